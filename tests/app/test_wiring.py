"""What is put together: a collection of an older version is named, and a dead encoder is replaced."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.index_edge import EdgeIndex
from adapters.index_port import LIVE_ALIAS, collection_name
from adapters.releases import ReleaseSettings, ReleaseStore
from app.settings import Settings, load_settings
from app.wiring import LoadedReleases, open_live
from model.release import first_release
from model.settings import ModelSettings
from schemas.errors import Halt, Transient
from schemas.vectors import CONTENT, CollectionSpec
from service.releases import ReleaseNotLoaded
from tests.support.tiny_model import write_tiny_model


def test_a_collection_with_the_vectors_of_an_older_version_halts_and_names_the_way_out(
    tmp_path: Path,
) -> None:
    model = ModelSettings(name=str(write_tiny_model(tmp_path / "model")))
    releases = ReleaseSettings(url=str(tmp_path / "releases"))
    manifest = first_release(model, ReleaseStore(releases), created_at=datetime.now(UTC))
    collection = collection_name(manifest.release_id)
    old = EdgeIndex(tmp_path / "index")
    old.ensure_collection(collection, CollectionSpec(dense={CONTENT: manifest.dimension}))
    old.set_alias(LIVE_ALIAS, collection)
    old.close()
    settings: Settings = load_settings({"SIMSTREAM_QDRANT__URL": f"edge:{tmp_path / 'index'}"}).model_copy(
        update={"model": model, "releases": releases}
    )
    with pytest.raises(Halt, match="An older version made it: remove the collection and its alias"):
        open_live(settings)


def test_a_release_whose_encoder_was_killed_is_not_loaded_until_it_is_loaded_again(tmp_path: Path) -> None:
    model = ModelSettings(name=str(write_tiny_model(tmp_path / "model")), device="cpu", dtype="fp32")
    stored = ReleaseSettings(url=str(tmp_path / "releases"))
    name = first_release(model, ReleaseStore(stored), created_at=datetime.now(UTC)).release_id
    releases = LoadedReleases(load_settings({}).model_copy(update={"model": model, "releases": stored}))
    first = releases.load(name)
    assert releases.load(name) is first
    assert releases.loaded(name) is first
    os.kill(first.encoder.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while releases.ids():
        assert time.monotonic() < deadline, "its end was not noticed"
        time.sleep(0.01)
    with pytest.raises(ReleaseNotLoaded):
        releases.loaded(name)
    second = releases.load(name)
    assert releases.ids() == {name}
    assert releases.loaded(name) is second
    assert len(second.encoder.encode(["a lamp"], query=True)) == 1
    # A query that began before holds the old one, which is closed by now.
    with pytest.raises(Transient, match="has ended"):
        first.encoder.encode(["a lamp"], query=True)
    releases.close()
