"""Every hit scored again, offline, with the release that its answer names; and a control that mixes the two.

Reads   answers; both releases; the index, once the stack has let go of it
Writes  nothing
Never   judges an answer by another release than the one it names
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapters.index_edge import EdgeIndex
from adapters.index_port import LIVE_ALIAS, release_of
from adapters.redis_client import RedisSettings, connect
from adapters.redis_items import ItemStore
from benchmarks.swap_traffic import STILL, Asked
from model.release import LoadedRelease
from schemas.api import SimilarRequest
from schemas.events import ProductUpserted
from service.catalogue import Catalogue
from service.query import QueryEngine
from service.releases import ReleaseNotLoaded
from service.settings import ServiceSettings
from service.timing import Timings
from tests.support.moving_alias import MovingAlias

TOLERANCE = 1e-3
Vectors = NDArray[np.float32]


@dataclass(slots=True)
class Judged:
    """What came of scoring every hit again."""

    hits: int = 0
    off: int = 0
    worst: float = 0.0
    by_release: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.hits} hits scored again, {self.off} off, the worst by {self.worst:.6f}"


class Judge:
    """Scores hits offline: the cosine of seed and item in one release."""

    def __init__(
        self, products: Sequence[ProductUpserted], releases: Mapping[str, LoadedRelease[Any]]
    ) -> None:
        self._releases = releases
        self._row = {one.product_id: row for row, one in enumerate(products)}
        self._items = {
            name: self._encoded(name, [release.recipe.content(one) for one in products])
            for name, release in releases.items()
        }

    def _encoded(self, release_id: str, texts: list[str], *, query: bool = False) -> Vectors:
        found: Vectors = self._releases[release_id].encoder.encode_array(texts, query=query)
        return found

    def expected(self, release_id: str, seed: str | Vectors, item_ids: Sequence[str]) -> Vectors:
        """Cosines of a seed (an item, or a vector) and items, as the release has them."""
        items = self._items[release_id]
        vector = items[self._row[seed]] if isinstance(seed, str) else seed
        found: Vectors = items[[self._row[one] for one in item_ids]] @ vector
        return found

    def judge(self, asked: Sequence[Asked]) -> Judged:
        """Every hit of every answer."""
        judged = Judged()
        names = dict(zip(self._releases, ("first", "candidate"), strict=True))
        searches = [one for one in asked if "text" in one.body and one.status == HTTPStatus.OK]
        texts = {name: sorted({one.body["text"] for one in searches}) for name in names}
        vectors = {
            name: dict(zip(found, self._encoded(name, found, query=True), strict=True)) if found else {}
            for name, found in texts.items()
        }
        for one in asked:
            if one.status != HTTPStatus.OK:
                continue
            release_id, hits = one.answer["release_id"], one.answer["items"]
            by = judged.by_release
            by[names[release_id]] = by.get(names[release_id], 0) + 1
            seed = (
                vectors[release_id][one.body["text"]]
                if "text" in one.body
                else str(one.body["seeds"][0]["item_id"])
            )
            expected = self.expected(release_id, seed, [hit["item_id"] for hit in hits])
            for hit, score in zip(hits, expected, strict=True):
                difference = abs(hit["dimensions"]["content"]["score"] - float(score))
                judged.hits += 1
                judged.off += difference > TOLERANCE
                judged.worst = max(judged.worst, difference)
        return judged


class _NoEncoder:
    """Implements service.releases.Releases: both are there, neither is asked to encode."""

    def __init__(self, releases: Mapping[str, LoadedRelease[Any]]) -> None:
        self._releases = releases

    def loaded(self, release_id: str) -> LoadedRelease[Any]:
        """The release by name. Raises ReleaseNotLoaded."""
        if release_id not in self._releases:
            raise ReleaseNotLoaded(release_id)
        return self._releases[release_id]


def through_the_alias(
    index: EdgeIndex, products: Sequence[ProductUpserted], releases: Mapping[str, LoadedRelease[Any]]
) -> list[Asked]:
    """The same queries where each call of the index goes through an alias that moves."""
    first, second = (next(one for one in index.collections() if release_of(one) == name) for name in releases)
    nobody = ItemStore(client=connect(RedisSettings(url="redis://127.0.0.1:1/0", timeout_seconds=0.5)))
    catalogue = Catalogue(
        index=MovingAlias(index, (first, second), through_alias=True),
        store=nobody,
        releases=_NoEncoder(releases),
        alias=LIVE_ALIAS,
    )
    engine = QueryEngine(catalogue=catalogue, settings=ServiceSettings())
    answered = []
    for product in [one for one in products if one.attributes["lot"] == STILL][:50]:
        body = {
            "seeds": [{"item_id": product.product_id}],
            "weights": {"content": 1.0},
            "filter": {"attributes": {"lot": [STILL]}},
        }
        answer = engine.similar(SimilarRequest.model_validate(body), Timings()).model_dump(mode="json")
        answered.append(Asked("control", body, status=HTTPStatus.OK, answer=answer))
    return answered
