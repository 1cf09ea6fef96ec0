"""benchmarks/compress.py: every variant of the encoder is judged by the same texts and the same pairs."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks import compress_trained
from benchmarks.compress import (
    VARIANTS,
    catalogue_texts,
    compare,
    in_turns,
    measure,
    recall_at,
    timed_texts,
)
from model.settings import ModelSettings
from tests.support.tiny_model import write_tiny_model

WORDS = ("red", "blue", "lamp", "shoe", "running", "steel", "drill", "battery")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shops with the same dozen products, worded alike."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("abt-buy", "amazon-google"):
        (folder / name).mkdir()
        titles = [f"{one} {other}" for one in WORDS[:3] for other in WORDS[4:8]]
        for side in "ab":
            rows = [{"product_id": f"{side}{row}", "title": title} for row, title in enumerate(titles)]
            _write(folder / name / f"products_{side}.jsonl.gz", rows)
        pairs = [{"a": f"a{row}", "b": f"b{row}", "label": 1} for row in range(len(titles))]
        for part, share in (("train", pairs[:4]), ("valid", pairs[4:6]), ("test", pairs[6:])):
            _write(folder / name / f"pairs_{part}.jsonl.gz", share)
    return folder


def _write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    with gzip.open(path, "wt") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)


def test_recall_counts_matches_among_the_nearest_and_asks_only_seeds_that_have_one() -> None:
    seeds = ["s0", "s1", "s2"], np.eye(3, dtype=np.float32)
    items = ["i0", "i1", "i2"], np.eye(3, dtype=np.float32)
    assert recall_at(1, seeds, items, {"s0": {"i0"}, "s1": {"i2"}}) == 0.5
    assert recall_at(3, seeds, items, {"s0": {"i0"}, "s1": {"i2"}}) == 1.0
    assert recall_at(1, seeds, items, {"s0": {"i0", "i1"}}) == 0.5
    assert recall_at(1, seeds, items, {"s0": {"elsewhere"}}) == 0.0


def test_one_variant_is_measured_on_the_pairs_that_are_named(tmp_path: Path, data: Path) -> None:
    tiny = write_tiny_model(tmp_path / "tiny")
    settings = ModelSettings(name=str(tiny), engine="torch", dtype="fp32")
    found = measure(data, settings, every=1, pairs=("test",))
    assert found.recall == {"abt-buy": 1.0, "amazon-google": 1.0}
    assert min(found.start_seconds, found.resident_mb) > 0
    # The control: other pairs, of which none is among the products that are kept.
    assert measure(data, settings, every=7, pairs=("valid",)).recall["abt-buy"] == 0.0


@pytest.mark.slow
def test_every_variant_runs_in_a_process_of_its_own(tmp_path: Path, data: Path) -> None:
    tiny = write_tiny_model(tmp_path / "tiny")
    settings = ModelSettings(name=str(tiny), graphs=str(tmp_path / "graphs"))
    # The tiny model's vectors have 32 numbers.
    variants = {
        name: {**fields, **({"dimension": 16} if "dimension" in fields else {})}
        for name, fields in VARIANTS.items()
    }
    found = compare(data, settings, variants, every=1, pairs=("test",))
    speeds = in_turns(settings, variants, timed_texts(data))
    assert list(speeds) == list(VARIANTS)
    assert all(speed.texts_per_second > 0 and speed.title_ms > 0 for speed in speeds.values())
    assert list(found) == list(VARIANTS)
    assert all(0.8 <= recall <= 1.0 for one in found.values() for recall in one.recall.values())
    assert len(list((tmp_path / "graphs").glob("*.onnx"))) == 2  # a graph, and its int8
    sizes = {name: one.vector_bytes for name, one in found.items()}
    assert sizes == {name: 4 * (16 if "dimension" in fields else 32) for name, fields in VARIANTS.items()}
    # What does without torch is smaller: the control that a variant is what it says.
    assert found["ONNX Runtime, fp32"].resident_mb < 0.8 * found["torch, fp32"].resident_mb


def test_trained_variants_learn_from_texts_and_are_kept(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = write_tiny_model(tmp_path / "tiny")
    monkeypatch.setattr("model.settings.base_folder", lambda settings: tiny)
    small = {
        "student": {"layers": (1,), "epochs": 1, "max_tokens": 16},
        "matryoshka": {"matryoshka": (32, 16), "epochs": 1, "max_tokens": 16},
    }
    monkeypatch.setattr(
        compress_trained,
        "RECIPES",
        {kind: compress_trained.RECIPES[kind].model_copy(update=small[kind]) for kind in small},
    )
    sizes = {}
    for kind in small:
        folder = compress_trained.made(kind, catalogue_texts(data), tmp_path / "kept")
        settings = ModelSettings(name=str(folder), engine="torch", dtype="fp32", dimension=16)
        assert measure(data, settings, every=1, pairs=("test",)).vector_bytes == 64
        sizes[kind] = (folder / "model.safetensors").stat().st_size
        made = (folder / "model.safetensors").stat().st_mtime_ns
        assert compress_trained.made(kind, catalogue_texts(data), tmp_path / "kept") == folder
        assert (folder / "model.safetensors").stat().st_mtime_ns == made
    assert sizes["student"] < sizes["matryoshka"]
