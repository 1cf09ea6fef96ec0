"""A candidate is tried before it is given a collection: whatever is broken is refused with its reason."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters.releases import ReleaseSettings, ReleaseStore, entry_of
from model.release import first_release, try_release
from model.settings import ModelSettings
from schemas.releases import MANIFEST_NAME, Manifest
from tests.support.tiny_model import DIMENSION, write_tiny_model

NOW = datetime(2026, 11, 25, tzinfo=UTC)
PROBES = ("a red lamp", "blue running shoes", "a steel drill")
SETTINGS = ModelSettings(dtype="fp32", threads=1)
WEIGHTS = "model.safetensors"


@pytest.fixture
def store(tmp_path: Path) -> ReleaseStore:
    return ReleaseStore(ReleaseSettings(url=str(tmp_path / "releases"), cache=str(tmp_path / "cache")))


@pytest.fixture
def good(store: ReleaseStore, tmp_path: Path) -> Manifest:
    model = write_tiny_model(tmp_path / "model")
    return first_release(SETTINGS.model_copy(update={"name": str(model)}), store, created_at=NOW)


def tried(store: ReleaseStore, release_id: str) -> Manifest:
    return try_release(store, release_id, SETTINGS, probes=PROBES)


def published(store: ReleaseStore, good: Manifest, folder: Path, release_id: str, **more: Any) -> str:
    """The files of a folder as a release, with a manifest that is true of them."""
    files = {name: entry_of(folder / name) for name in good.files}
    update = {"release_id": release_id, "files": files, **more}
    store.publish(folder, good.model_copy(update=update))
    return release_id


def changed(store: ReleaseStore, good: Manifest, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """The good release's files with other weights."""
    folder = store.fetch(good.release_id).parent.parent / "changed"
    for name in good.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((store.fetch(good.release_id) / name).read_bytes())
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def test_a_good_release_passes(store: ReleaseStore, good: Manifest) -> None:
    assert tried(store, good.release_id) == good


def test_weights_that_are_not_finite_are_named(store: ReleaseStore, good: Manifest) -> None:
    def poison(weights: dict[str, torch.Tensor]) -> None:
        weights["embeddings.LayerNorm.bias"][3] = float("nan")

    name = published(store, good, changed(store, good, poison), "nan")
    with pytest.raises(
        ValueError, match=r"release 'nan': weight 'embeddings\.LayerNorm\.bias' .* is not finite"
    ):
        tried(store, name)


@pytest.mark.usefixtures("encoder_here")
def test_a_dimension_that_is_not_the_manifests_is_named(store: ReleaseStore, good: Manifest) -> None:
    folder = store.fetch(good.release_id)
    name = published(store, good, folder, "wrong-size", dimension=DIMENSION * 2)
    with pytest.raises(ValueError, match="has vectors of 32 numbers and its manifest says 64"):
        tried(store, name)


@pytest.mark.usefixtures("encoder_here")
def test_a_model_that_has_collapsed_is_refused(store: ReleaseStore, good: Manifest) -> None:
    def collapse(weights: dict[str, torch.Tensor]) -> None:
        last = max(name for name in weights if name.endswith("output.LayerNorm.weight"))
        weights[last].zero_()

    name = published(store, good, changed(store, good, collapse), "collapsed")
    with pytest.raises(ValueError, match="the same vector of 3 different texts"):
        tried(store, name)


@pytest.mark.usefixtures("encoder_here")
def test_weights_that_the_configuration_asks_for_and_are_not_there(
    store: ReleaseStore, good: Manifest
) -> None:
    def lose(weights: dict[str, torch.Tensor]) -> None:
        del weights["encoder.layer.1.output.dense.weight"]

    name = published(store, good, changed(store, good, lose), "lacking")
    with pytest.raises(ValueError, match=r"lack 'encoder\.layer\.1\.output\.dense\.weight'"):
        tried(store, name)


def _truncated(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def _flipped(folder: Path) -> None:
    body = bytearray((folder / WEIGHTS).read_bytes())
    body[len(body) // 2] ^= 0xFF
    (folder / WEIGHTS).write_bytes(bytes(body))


def _foreign(folder: Path) -> None:
    (folder / "custom.py").write_text("print('run me')")


def _half(folder: Path) -> None:
    (folder / MANIFEST_NAME).write_bytes((folder / MANIFEST_NAME).read_bytes()[:40])


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (_truncated, "file 'model.safetensors' of release .* it was truncated or replaced"),
        (_flipped, "does not have the SHA-256 of its manifest"),
        (_foreign, "holds 'custom.py', which its manifest does not list"),
        (_half, "file 'manifest.json' of release .* cannot be read"),
    ],
)
def test_files_that_were_harmed_after_they_were_published(
    store: ReleaseStore, good: Manifest, harm: Callable[[Path], None], reason: str
) -> None:
    harm(store.fetch(good.release_id))
    with pytest.raises(ValueError, match=reason):
        tried(store, good.release_id)


@pytest.mark.usefixtures("encoder_here")
def test_a_file_that_was_truncated_before_its_manifest_was_made(store: ReleaseStore, good: Manifest) -> None:
    folder = changed(store, good, lambda weights: None)
    _truncated(folder)
    name = published(store, good, folder, "cut")
    with pytest.raises(ValueError, match="cannot be loaded"):
        tried(store, name)
