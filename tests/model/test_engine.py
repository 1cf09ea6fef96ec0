"""model/engine.py, model/graph.py, model/forward_onnx.py: another engine, the same vectors."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from model import engine, graph
from model.encoder import TextEncoder
from model.sentence_config import read_encoder_config
from model.settings import ModelSettings, UnusableModel
from schemas.releases import Pooling
from tests.support.tiny_model import write_tiny_model

TEXTS = ["red lamp", "blue running shoe, size 44", "a", "the steel drill battery " * 12, "Lamp RED", ""]
E5 = {"query": "query: ", "passage": "passage: "}
Vectors = NDArray[np.float32]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One architecture is translated once for all of these tests."""
    return tmp_path_factory.mktemp("graphs")


def settings_for(folder: Path, graphs: Path, **fields: object) -> ModelSettings:
    return ModelSettings.model_validate({"name": str(folder), "graphs": str(graphs), **fields})


def vectors(settings: ModelSettings, *, query: bool = False) -> tuple[Vectors, str]:
    """Of TEXTS, and the engine that made them."""
    folder = Path(settings.name)
    encoder = TextEncoder.load(folder, read_encoder_config(folder, settings), settings)
    try:
        return encoder.encode_array(TEXTS, query=query), encoder.engine
    finally:
        encoder.close()


def cosines(one: Vectors, other: Vectors) -> Vectors:
    found: Vectors = (one * other).sum(axis=1)
    return found


@pytest.mark.parametrize(
    ("pooling", "prompts", "include_prompt"),
    [("mean", {}, True), ("cls", {}, True), ("last", {}, True), ("mean", E5, False)],
)
def test_both_engines_make_the_same_vectors(
    tmp_path: Path, graphs: Path, pooling: Pooling, prompts: Mapping[str, str], include_prompt: bool
) -> None:
    folder = write_tiny_model(
        tmp_path / "tiny", pooling=pooling, prompts=prompts, include_prompt=include_prompt
    )
    for query in (False, True):
        expected, torch = vectors(settings_for(folder, graphs, engine="torch", dtype="fp32"), query=query)
        found, onnx = vectors(settings_for(folder, graphs, engine="onnx", batch_tokens=40), query=query)
        assert (torch, onnx) == ("torch", "onnx")
        assert np.abs(found - expected).max() < 1e-5
    assert len(list(graphs.glob("*.onnx"))) == 1


def test_releases_of_one_base_share_a_graph_and_have_their_own_weights(tmp_path: Path, graphs: Path) -> None:
    one, other = (write_tiny_model(tmp_path / str(seed), seed=seed) for seed in (0, 1))
    first, _ = vectors(settings_for(one, graphs, engine="onnx"))
    second, _ = vectors(settings_for(other, graphs, engine="onnx"))
    assert len(list(graphs.glob("*.onnx"))) == 1
    expected, _ = vectors(settings_for(other, graphs, engine="torch", dtype="fp32"))
    assert np.abs(second - expected).max() < 1e-5
    assert cosines(first, second).min() < 0.9  # the control: the weights are other ones


def test_with_its_graph_at_hand_an_encoder_starts_without_torch(tmp_path: Path, graphs: Path) -> None:
    folder = write_tiny_model(tmp_path / "tiny")
    settings = settings_for(folder, graphs, engine="onnx")
    vectors(settings)
    script = """
import sys
from pathlib import Path
from model.encoder import TextEncoder
from model.sentence_config import read_encoder_config
from model.settings import ModelSettings
settings = ModelSettings(name=sys.argv[1], graphs=sys.argv[2], engine=sys.argv[3])
folder = Path(settings.name)
encoder = TextEncoder.load(folder, read_encoder_config(folder, settings), settings)
encoder.encode(["red lamp"])
print(encoder.engine, "torch" in sys.modules)
"""

    def said(engine: str) -> str:
        command = [sys.executable, "-c", script, str(folder), str(graphs), engine]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.strip()

    assert said("onnx") == "onnx False"
    assert said("torch") == "torch True"  # the control


def test_int8_is_near_fp32_and_says_how_near(
    tmp_path: Path, graphs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_tiny_model(tmp_path / "tiny")
    plain, _ = vectors(settings_for(folder, graphs, engine="onnx"))
    with caplog.at_level(logging.INFO):
        small, used = vectors(settings_for(folder, graphs, dtype="int8"))
    assert used == "onnx"
    assert 0.95 < cosines(plain, small).min() < 0.99999
    (ready,) = [line for line in caplog.messages if line.startswith("encoder_ready")]
    assert "dtype=int8 cosine_to_fp32=0.9" in ready
    assert list(graphs.glob("int8-*.onnx"))


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_weights_that_are_not_there_or_not_finite_are_refused_by_name(
    tmp_path: Path, graphs: Path, dtype: str
) -> None:
    folder = write_tiny_model(tmp_path / "tiny")
    vectors(settings_for(folder, graphs, engine="onnx"))
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("layer.1.output.dense.weight"))
    save_file({key: value for key, value in weights.items() if key != name}, folder / "model.safetensors")
    with pytest.raises(UnusableModel, match=r"lack .*layer\.1\.output\.dense\.weight"):
        vectors(settings_for(folder, graphs, engine="onnx", dtype=dtype))
    weights[name] = np.full_like(weights[name], np.nan)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UnusableModel, match="not finite; it would poison vectors"):
        vectors(settings_for(folder, graphs, engine="onnx", dtype=dtype))


def test_an_architecture_that_is_not_translated_runs_in_torch_and_is_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, graphs = write_tiny_model(tmp_path / "tiny"), tmp_path / "graphs"
    tried: list[Path] = []

    def refuse(folder: Path, weights: object) -> None:
        tried.append(folder)
        raise graph.Untranslatable("torch's exporter: no such operator")

    monkeypatch.setattr(graph, "_translated", refuse)
    monkeypatch.setattr(engine, "_LEAST_BYTES", 0)
    for _ in range(2):
        _, used = vectors(settings_for(folder, graphs, dtype="fp32"))
        assert used == "torch"
    assert len(tried) == 1
    assert any("model_not_translated" in line and "no such operator" in line for line in caplog.messages)
    with pytest.raises(UnusableModel, match="no such operator; set SIMSTREAM_MODEL__ENGINE=torch"):
        vectors(settings_for(folder, graphs, engine="onnx"))


def test_a_graph_with_other_vectors_than_torch_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, graphs = write_tiny_model(tmp_path / "tiny"), tmp_path / "graphs"
    monkeypatch.setattr("model.forward_onnx.least_cosine", lambda one, other: 0.998)
    with pytest.raises(UnusableModel, match=r"differ from torch's \(least cosine 0\.998"):
        vectors(settings_for(folder, graphs, engine="onnx"))
    assert not list(graphs.glob("*.onnx"))


def test_where_graphs_cannot_be_kept_fp32_runs_all_the_same_and_int8_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, graphs = write_tiny_model(tmp_path / "tiny"), tmp_path / "graphs"
    graphs.write_text("a file, and no folder")
    assert vectors(settings_for(folder, graphs, engine="onnx"))[1] == "onnx"
    assert any("graph_not_kept" in line and "SIMSTREAM_MODEL__GRAPHS" in line for line in caplog.messages)
    with pytest.raises(UnusableModel, match=r"SIMSTREAM_MODEL__GRAPHS=.*cannot be written"):
        vectors(settings_for(folder, graphs, dtype="int8"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"engine": "torch", "dtype": "int8"}, "set SIMSTREAM_MODEL__ENGINE=onnx or auto"),
        ({"engine": "onnx", "device": "cuda"}, "runs on the processor, not on 'cuda'"),
        ({"engine": "onnx", "dtype": "bf16"}, "has fp32 and int8, not bf16"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_with_the_remedy(
    tmp_path: Path, graphs: Path, fields: Mapping[str, object], message: str
) -> None:
    folder = write_tiny_model(tmp_path / "tiny")
    with pytest.raises(UnusableModel, match=message):
        vectors(settings_for(folder, graphs, **fields))


def test_without_the_packages_auto_takes_torch_and_the_name_says_what_to_install(
    tmp_path: Path, graphs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny_model(tmp_path / "tiny")
    monkeypatch.setattr(engine, "_LEAST_BYTES", 0)
    monkeypatch.setattr(engine, "_PACKAGES", ("onnxruntime", "surely_not_there"))
    assert vectors(settings_for(folder, graphs, dtype="fp32"))[1] == "torch"
    with pytest.raises(UnusableModel, match="pip install surely_not_there"):
        vectors(settings_for(folder, graphs, engine="onnx"))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("flags\t\t: fpu avx2 avx512_bf16", "torch"), ("flags\t\t: fpu avx2", "onnx")],
)
def test_auto_takes_torch_where_the_processor_has_bf16(
    tmp_path: Path, graphs: Path, monkeypatch: pytest.MonkeyPatch, flags: str, expected: str
) -> None:
    folder = write_tiny_model(tmp_path / "tiny")
    monkeypatch.setattr(engine, "_LEAST_BYTES", 0)
    monkeypatch.setattr(engine, "_processor_flags", lambda: frozenset(flags.partition(":")[2].split()))
    assert vectors(settings_for(folder, graphs, device="cpu"))[1] == expected
