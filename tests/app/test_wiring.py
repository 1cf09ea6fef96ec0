"""What is put together at the start: a collection of an older version is named, and not written to."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.index_edge import EdgeIndex
from adapters.index_port import LIVE_ALIAS, collection_name
from adapters.releases import ReleaseSettings, ReleaseStore
from app.settings import Settings, load_settings
from app.wiring import open_live
from model.release import first_release
from model.settings import ModelSettings
from schemas.errors import Halt
from schemas.vectors import CONTENT, CollectionSpec
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
