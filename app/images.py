"""The dimension `image`, put together where it is on: SIMSTREAM_IMAGES__MODEL names a model.

Reads   settings; config.json of the image model; the first points of a collection
Writes  nothing
Never   mixes pictures of two models in one collection: one that was begun with another does without new ones
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from adapters.index_port import VectorIndex
from adapters.kafka import Publisher
from adapters.picture_fetch import Fetcher
from adapters.pictures import PictureReader
from app.settings import Settings
from consumers.pictures import Marks, Pictures
from model.settings import ModelSettings, UnusableModel
from schemas.events import ItemChanged, Product
from schemas.vectors import IMAGE

if TYPE_CHECKING:
    from model.image_encoder import ImageEncoder

log = logging.getLogger(__name__)

#: Points that are looked at for one with a picture.
_LOOKED_AT = 10_000


def image_dimension(settings: Settings) -> int | None:
    """The length of pictures' vectors; None while they are off. Loads no model."""
    if not settings.images.model:
        return None
    from model.image_encoder import dimension_of, image_folder

    return dimension_of(image_folder(settings.images.model, settings.model))


def picture_mark(
    settings: Settings, index: VectorIndex, collection: str
) -> Callable[[Product], str | None] | None:
    """How a collection's pictures are named; None where it is to get none, which is logged if they are on.

    The collection stands already.
    """
    length = image_dimension(settings)
    if length is None:
        return None
    stands = index.spec_of(collection).dense.get(IMAGE)
    marks = Marks(settings.images.model)
    if stands != length or not _begun_with(marks, index, collection):
        log.warning(
            "collection_without_pictures collection=%s vector=%s model=%s way_out=%s",
            collection,
            stands,
            settings.images.model,
            "simstream rebuild",
        )
        return None
    return marks.of


def open_pictures(
    settings: Settings, *, index: VectorIndex, collection: str, publisher: Publisher
) -> Pictures | None:
    """What fetches and encodes a collection's pictures, its threads started; None where it gets none."""
    if picture_mark(settings, index, collection) is None:
        return None
    topic = settings.named_topics().changed_bulk.name

    def announce(product_id: str) -> None:
        hint = ItemChanged(product_id=product_id, dimensions=[IMAGE], occurred_at=datetime.now(UTC))
        publisher.send(topic, key=product_id, value=hint.model_dump_json().encode())

    images = settings.images
    return Pictures(
        marks=Marks(images.model),
        reader=PictureReader(Fetcher(images.fetch), images.decode),
        encoder=_encoder(images.model, settings.model),
        announce=announce,
        settings=images,
    )


def _begun_with(marks: Marks, index: VectorIndex, collection: str) -> bool:
    """Whether the pictures that stand there already are of this model, as far as one is found."""
    seen = 0
    for page in index.scan(collection):
        for point in page:
            mark = (point.payload.get("fingerprints") or {}).get(IMAGE)
            if mark is not None:
                return marks.made(mark)
        seen += len(page)
        if seen >= _LOOKED_AT:
            break
    return True


@lru_cache(maxsize=1)
def _encoder(name: str, settings: ModelSettings) -> ImageEncoder:
    from model.image_encoder import load_image_encoder

    if importlib.util.find_spec("PIL") is None:
        raise UnusableModel(
            "SIMSTREAM_IMAGES__MODEL needs Pillow: pip install '.[images]' in a checkout of simstream"
        )
    return load_image_encoder(name, settings)
