"""model/weights.py: complete, finite safetensors, or nothing."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.settings import UnusableModel
from model.weights import load_model
from tests.support.tiny_model import write_tiny_model

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny")


def change(folder: Path, name: str, value: float | None) -> None:
    """Set one number of a weight, or leave the weight out."""
    weights = load_file(folder / "model.safetensors")
    if value is None:
        del weights[name]
    else:
        weights[name].view(-1)[3] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_model_is_loaded_in_fp32_ready_to_infer(folder: Path) -> None:
    model = load_model(folder, CPU)
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(folder: Path, value: float) -> None:
    change(folder, "embeddings.word_embeddings.weight", value)
    with pytest.raises(UnusableModel, match=r"'embeddings\.word_embeddings\.weight'.* is not finite"):
        load_model(folder, CPU)


def test_a_missing_weight_is_refused_and_a_missing_pooler_is_not(folder: Path) -> None:
    change(folder, "pooler.dense.weight", None)
    load_model(folder, CPU)
    change(folder, "encoder.layer.1.output.dense.bias", None)
    with pytest.raises(UnusableModel, match=r"lack 'encoder\.layer\.1\.output\.dense\.bias'"):
        load_model(folder, CPU)


def test_a_truncated_file_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UnusableModel, match="cannot be loaded"):
        load_model(folder, CPU)


def test_pickled_weights_are_not_opened(folder: Path) -> None:
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnusableModel, match="pickled weights are not opened"):
        load_model(folder, CPU)


def test_loading_says_nothing_on_standard_error(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_model(folder, CPU)
    assert capfd.readouterr() == ("", "")


class Intruder:
    """As a pickle it leaves a file behind when it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


def test_a_pickle_beside_the_weights_is_not_opened(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "opened"
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(pickle.dumps(Intruder(mark)))
    load_model(folder, CPU)
    assert not mark.exists()
    pickle.loads((folder / "optimizer.pt").read_bytes())  # noqa: S301
    assert mark.exists(), "it would have been seen"


def test_code_that_came_with_a_model_is_not_run(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    code = f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
    (folder / "modeling_intruder.py").write_text(
        code + "from transformers import BertConfig, BertModel\n"
        "class IntruderConfig(BertConfig):\n    model_type = 'intruder'\n"
        "class Intruder(BertModel):\n    config_class = IntruderConfig\n"
    )
    shape = json.loads((folder / "config.json").read_text())
    shape["auto_map"] = {
        "AutoConfig": "modeling_intruder.IntruderConfig",
        "AutoModel": "modeling_intruder.Intruder",
    }
    # A known architecture is loaded as the library knows it; one that needs the code is refused.
    (folder / "config.json").write_text(json.dumps(shape))
    assert type(load_model(folder, CPU)).__module__.startswith("transformers.")
    (folder / "config.json").write_text(json.dumps(shape | {"model_type": "intruder"}))
    with pytest.raises(UnusableModel, match="cannot be loaded"):
        load_model(folder, CPU)
    assert not mark.exists()
    exec(compile(code, "code", "exec"), {})  # noqa: S102
    assert mark.exists(), "it would have been seen"
