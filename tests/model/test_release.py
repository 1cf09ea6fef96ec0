"""model/release.py: the first release, and loading any."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from adapters.releases import InvalidRelease, ReleaseSettings, ReleaseStore, entry_of
from model.release import first_release, load_release, release_recipe
from model.settings import ModelSettings, UnusableModel
from model.text import FieldUse, TextSettings
from schemas.events import Product
from tests.support.tiny_model import DIMENSION, write_tiny_model

NOW = datetime(2026, 11, 25, tzinfo=UTC)
E5 = {"query": "query: ", "passage": "passage: "}


@pytest.fixture
def settings(tmp_path: Path) -> ModelSettings:
    folder = write_tiny_model(tmp_path / "Tiny_Model", prompts=E5)
    return ModelSettings(
        name=str(folder), device="cpu", text=TextSettings(brand=FieldUse(content_chars=9, lexical_chars=9))
    )


@pytest.fixture
def store(tmp_path: Path) -> ReleaseStore:
    return ReleaseStore(ReleaseSettings(url=str(tmp_path / "releases"), cache=str(tmp_path / "cache")))


def test_the_first_release_names_its_contents_and_says_how_it_encodes(
    settings: ModelSettings, store: ReleaseStore, tmp_path: Path
) -> None:
    manifest = first_release(settings, store, created_at=NOW)
    assert manifest.release_id.startswith("tiny-model-")
    assert (manifest.base_model, manifest.dimension) == ("Tiny_Model", DIMENSION)
    assert (manifest.encoder.query_prompt, manifest.encoder.max_length) == ("query: ", 24)
    assert {"config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"} <= set(
        manifest.files
    )
    later = first_release(settings, store, created_at=NOW + timedelta(days=1))
    assert later == manifest
    elsewhere = ReleaseStore(ReleaseSettings(url=str(tmp_path / "elsewhere")))
    assert first_release(settings, elsewhere, created_at=NOW).release_id == manifest.release_id


@pytest.mark.parametrize(
    "change",
    [{"text": TextSettings()}, {"max_length": 20}, {"query_prompt": "find: "}],
    ids=lambda change: next(iter(change)),
)
def test_another_recipe_or_encoder_makes_another_release(
    settings: ModelSettings, store: ReleaseStore, change: dict[str, object]
) -> None:
    first = first_release(settings, store, created_at=NOW)
    other = first_release(settings.model_copy(update=change), store, created_at=NOW)
    assert other.release_id != first.release_id
    assert store.list() == sorted([first.release_id, other.release_id])


def test_a_loaded_release_encodes_by_its_manifest_and_not_by_todays_settings(
    settings: ModelSettings, store: ReleaseStore
) -> None:
    manifest = first_release(settings, store, created_at=NOW)
    today = ModelSettings(name="another/model", device="cpu", query_prompt="other: ", max_length=5)
    loaded = load_release(store, manifest.release_id, today)
    assert loaded.release_id == manifest.release_id
    assert loaded.recipe.settings == settings.text
    assert loaded.encoder.config == manifest.encoder
    product = Product(title="red lamp", brand="a brand with a long name")
    assert loaded.recipe.content(product) == "red lamp. a brand"
    vectors = loaded.encoder.encode_array([loaded.recipe.content(product), "red lamp"])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(2), abs=1e-6)
    loaded.encoder.close()


def test_a_tokeniser_without_its_fast_file_is_written_out(
    settings: ModelSettings, store: ReleaseStore
) -> None:
    with_file = load_release(store, first_release(settings, store, created_at=NOW).release_id, settings)
    (Path(settings.name) / "tokenizer.json").unlink()
    without = load_release(store, first_release(settings, store, created_at=NOW).release_id, settings)
    texts = ["Red lamp!", "running shoe 44"]
    assert with_file.encoder.tokenise(texts) == without.encoder.tokenise(texts)
    with_file.encoder.close()
    without.encoder.close()


def test_weights_that_are_not_finite_never_become_a_release(
    settings: ModelSettings, store: ReleaseStore
) -> None:
    path = Path(settings.name) / "model.safetensors"
    weights = load_file(path)
    weights["embeddings.LayerNorm.bias"][0] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(UnusableModel, match=r"'embeddings\.LayerNorm\.bias' in .* is not finite"):
        first_release(settings, store, created_at=NOW)
    assert store.list() == []


def test_a_model_without_safetensors_is_refused(settings: ModelSettings, store: ReleaseStore) -> None:
    (Path(settings.name) / "model.safetensors").rename(Path(settings.name) / "pytorch_model.bin")
    with pytest.raises(UnusableModel, match="pickled weights are not opened"):
        first_release(settings, store, created_at=NOW)


def test_a_release_that_was_spoiled_is_not_loaded(
    settings: ModelSettings, store: ReleaseStore, tmp_path: Path
) -> None:
    manifest = first_release(settings, store, created_at=NOW)
    weights = tmp_path / "releases" / manifest.release_id / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InvalidRelease, match=rf"'model\.safetensors' of release '{manifest.release_id}'"):
        load_release(store, manifest.release_id, settings)


def test_a_manifest_of_another_dimension_or_recipe_is_refused(
    settings: ModelSettings, store: ReleaseStore
) -> None:
    folder = Path(settings.name)
    good = first_release(settings, store, created_at=NOW)
    files = {name: entry_of(folder / name) for name in good.files}
    wider = good.model_copy(update={"release_id": "wider", "dimension": 99, "files": files})
    store.publish(folder, wider)
    with pytest.raises(InvalidRelease, match="'wider' has vectors of 32 numbers and its manifest says 99"):
        load_release(store, "wider", settings)
    newer = good.model_copy(update={"release_id": "newer", "text": {"gram_sizes": []}, "files": files})
    store.publish(folder, newer)
    with pytest.raises(InvalidRelease, match=r"text recipe of release 'newer'.*gram_sizes"):
        load_release(store, "newer", settings)
    with pytest.raises(InvalidRelease, match=r"text recipe of release 'newer'.*gram_sizes"):
        release_recipe(store, "newer")


def test_the_recipe_alone_is_that_of_the_manifest_whatever_became_of_the_weights(
    settings: ModelSettings, store: ReleaseStore, tmp_path: Path
) -> None:
    manifest = first_release(settings, store, created_at=NOW)
    (tmp_path / "releases" / manifest.release_id / "model.safetensors").unlink()
    assert release_recipe(store, manifest.release_id).settings == settings.text


@pytest.mark.parametrize("name", ["modeling_own.py", "pytorch_model.bin", "1_Pooling/model.PT"])
def test_a_release_that_lists_code_or_a_pickle_is_refused(
    settings: ModelSettings, store: ReleaseStore, tmp_path: Path, name: str
) -> None:
    good = first_release(settings, store, created_at=NOW)
    folder = tmp_path / "releases" / good.release_id
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"anything")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = entry_of(folder / name).model_dump()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidRelease, match="neither code nor pickles"):
        load_release(store, good.release_id, settings)
