"""app/images.py: pictures are off by default, and never of two models in one collection."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from adapters.index_edge import EdgeIndex
from adapters.index_port import collection_name
from adapters.kafka import Publisher
from adapters.releases import ReleaseSettings, ReleaseStore
from app.images import image_dimension, open_pictures, picture_mark
from app.settings import Settings
from app.wiring import collection_spec
from consumers.pictures import ImageSettings, Marks
from model.release import first_release
from model.settings import ModelSettings, UnusableModel
from schemas.events import ItemChanged, Product
from schemas.parsing import parse_event
from schemas.vectors import CONTENT, IMAGE, Point
from tests.support.pictures import IMAGE_DIMENSION, write_tiny_clip
from tests.support.tiny_model import DIMENSION, write_tiny_model


@dataclass
class Sent:
    """Stands in for a publisher."""

    records: list[tuple[str, str, bytes]] = field(default_factory=list)

    def send(self, topic: str, *, key: str, value: bytes, **_: Any) -> None:
        self.records.append((topic, key, value))


@dataclass
class Stage:
    """Settings without and with pictures, a release, and an index."""

    off: Settings
    on: Settings
    index: EdgeIndex
    collection: str

    def open(self, settings: Settings) -> Any:
        return open_pictures(
            settings, index=self.index, collection=self.collection, publisher=cast(Publisher, Sent())
        )


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    model = ModelSettings(name=str(write_tiny_model(tmp_path / "tiny")), device="cpu")
    releases = ReleaseSettings(url=str(tmp_path / "releases"))
    off = Settings(model=model, releases=releases)
    images = ImageSettings(model=str(write_tiny_clip(tmp_path / "clip")))
    manifest = first_release(model, ReleaseStore(releases), created_at=datetime(2026, 11, 26, tzinfo=UTC))
    index = EdgeIndex(tmp_path / "index")
    yield Stage(off, off.model_copy(update={"images": images}), index, collection_name(manifest.release_id))
    index.close()


def test_by_default_nothing_of_it_is_there(stage: Stage) -> None:
    assert Settings().images.model == ""
    assert image_dimension(stage.off) is None
    assert IMAGE not in collection_spec(stage.off, DIMENSION).dense
    assert stage.open(stage.off) is None


def test_a_collection_that_is_made_while_they_are_on_gets_them(stage: Stage) -> None:
    spec = collection_spec(stage.on, DIMENSION)
    assert spec.dense == {"content": DIMENSION, "reviews": DIMENSION, "image": IMAGE_DIMENSION}
    stage.index.ensure_collection(stage.collection, spec)
    sent = Sent()
    pictures = open_pictures(
        stage.on, index=stage.index, collection=stage.collection, publisher=cast(Publisher, sent)
    )
    assert pictures is not None
    # No setting lets it ask this machine: refused, and announced so that the point can say why.
    shown = Product(title="a", image_url="http://127.0.0.1/a.png")
    pictures.want("a", shown)
    deadline = time.monotonic() + 60.0
    while not sent.records:
        assert time.monotonic() < deadline, "it is not announced"
        time.sleep(0.01)
    pictures.close()
    assert pictures.of(shown).refused == "address"
    topic, key, value = sent.records[0]
    assert (topic, key) == ("items.changed.bulk", "a")
    assert parse_event(value, ItemChanged).dimensions == [IMAGE]


def test_a_collection_that_was_made_without_them_does_without_and_says_so(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.index.ensure_collection(stage.collection, collection_spec(stage.off, DIMENSION))
    with caplog.at_level(logging.WARNING):
        assert stage.open(stage.on) is None
    assert "collection_without_pictures" in caplog.text
    assert "simstream rebuild" in caplog.text


@pytest.mark.parametrize("same", [True, False])
def test_pictures_of_another_model_are_not_mixed_in(
    stage: Stage, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.index.ensure_collection(stage.collection, collection_spec(stage.on, DIMENSION))
    # It is ensured by whoever writes it, once, and only looked at here.
    monkeypatch.setattr(stage.index, "ensure_collection", None)
    mark = Marks(stage.on.images.model if same else "another").of(Product(title="a", image_url="u"))
    vectors = {CONTENT: [1.0] * DIMENSION, IMAGE: [1.0] * IMAGE_DIMENSION}
    payload = {"product_id": "a", "deleted": False, "fingerprints": {IMAGE: mark}}
    stage.index.upsert(stage.collection, [Point("a", vectors, payload)], ticket=1)
    assert (picture_mark(stage.on, stage.index, stage.collection) is not None) == same


def test_a_model_that_cannot_be_found_is_named_by_its_setting(stage: Stage) -> None:
    wrong = stage.off.model_copy(update={"images": ImageSettings(model="no such model")})
    with pytest.raises(UnusableModel, match="SIMSTREAM_IMAGES__MODEL='no such model'"):
        image_dimension(wrong)
