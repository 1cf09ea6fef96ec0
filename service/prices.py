"""Whether an item's price is out of line with what the same kind of thing costs, and the evidence.

Reads   the index: the item, its nearest neighbours in text and their prices
Writes  nothing
Never   compares two currencies; is moved by the shop's rules: a boost makes nothing comparable
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import Field

from schemas.api import Filter, Hit, QueryOptions, Seed
from schemas.errors import Transient
from schemas.events import Frozen, PriceInsight
from schemas.insights import Comparable, PriceView
from schemas.vectors import Point
from service.catalogue import Catalogue, Target
from service.errors import DeletedItem, NotSearchableYet, Unavailable, UnknownItem
from service.price_bands import Offer, Standing, pack_of, standing
from service.query import QueryEngine
from service.settings import ServiceSettings
from service.timing import INDEX, Timings

SHOWN = 10
_WANTED = QueryOptions(preset="same_product", filter=Filter(group="any"))


class PriceSettings(Frozen):
    """When a price is out of line. Chosen by benchmarks/insights.py on seeds that it does not report."""

    #: Nearest neighbours that are looked at, and the share of the third nearest's score below which one is
    #: another kind of thing.
    neighbours: int = Field(default=80, ge=10, le=200)
    near: float = Field(default=0.5, ge=0, le=1)
    #: Fewer comparable prices say nothing.
    least: int = Field(default=8, ge=3)
    #: An outlier is this many standard deviations off, and at least this factor.
    score: float = Field(default=2.3, gt=0)
    factor: float = Field(default=1.9, ge=1)
    #: The spread of prices where few are known, and how many prices that counts for.
    usual_spread: float = Field(default=0.3, gt=0)
    usual_weight: float = Field(default=30.0, ge=0)


class Prices:
    """Looks at prices. Thread-safe as its collaborators are."""

    def __init__(
        self, *, catalogue: Catalogue, service: ServiceSettings, settings: PriceSettings | None = None
    ) -> None:
        self._catalogue = catalogue
        self._settings = settings or PriceSettings()
        # An engine of its own, without rules.
        self._engine = QueryEngine(catalogue=catalogue, settings=service)

    def price(self, item_id: str, timings: Timings) -> PriceView:
        """Where the item's price stands. Raises UnknownItem, DeletedItem, NotSearchableYet, Unavailable."""
        target = self._catalogue.target(None, timings)
        points = self._catalogue.seed_points(target, [item_id], timings)
        payload = points[item_id].payload
        view = PriceView(
            item_id=item_id,
            price=payload.get("price_exact"),
            currency=payload.get("currency"),
            pack=pack_of(payload),
            condition=payload.get("condition"),
            evidence="the item has no price",
            release_id=target.release_id,
            took_ms=0.0,
        )
        if not payload.get("price"):
            return _timed(view, timings)
        hits, payloads = self._near(item_id, points, target, timings)
        similarity = {hit.item_id: hit.score for hit in hits}
        others = [_offer(name, found) for name, found in payloads.items()]
        found = standing(
            _offer(item_id, payload),
            others,
            least=self._settings.least,
            usual_spread=self._settings.usual_spread,
            usual_weight=self._settings.usual_weight,
            currency=view.currency,
        )
        if found is None:
            few = (
                f"{len(others)} comparable items have a price in this currency;"
                f" {self._settings.least} are needed"
            )
            return _timed(view.model_copy(update={"evidence": few}), timings)
        against = sorted(found.against, key=lambda one: -similarity[one.key])
        return _timed(
            view.model_copy(
                update={
                    "outlier": self.out_of_line(found),
                    "score": round(found.score, 3),
                    "ratio": round(found.ratio, 4),
                    "position": round(found.position, 4),
                    "band": found.band,
                    "basis": found.basis,
                    "evidence": _sentence(view, found),
                    "comparables": [_shown(one, payloads, similarity) for one in against[:SHOWN]],
                }
            ),
            timings,
        )

    def judged(self, product_id: str, *, now: datetime) -> PriceInsight | None:
        """The same as an event; None while the index does not show the item's newest state.

        What is gone is no outlier. Raises Transient when a store is away.
        """
        timings = Timings()
        try:
            shown = self._catalogue.shows(product_id, timings)
            if shown is False:
                return None
            if shown is None:
                return PriceInsight(product_id=product_id, outlier=False, evidence="gone", found_at=now)
            view = self.price(product_id, timings)
        except (UnknownItem, DeletedItem, NotSearchableYet):
            return None  # it went just now: the next look says so
        except Unavailable as error:
            raise Transient(error.detail) from error
        return PriceInsight(
            product_id=product_id,
            outlier=view.outlier,
            price=view.price,
            currency=view.currency,
            score=view.score,
            ratio=view.ratio,
            median=view.band.median if view.band is not None else None,
            evidence=view.evidence,
            found_at=now,
        )

    def out_of_line(self, found: Standing[str]) -> bool:
        """Whether a price that stands so is an outlier: unlikely, and far enough off to matter."""
        factor = max(found.ratio, 1 / found.ratio)
        return abs(found.score) >= self._settings.score and factor >= self._settings.factor

    def _near(
        self, item_id: str, points: Mapping[str, Point], target: Target, timings: Timings
    ) -> tuple[list[Hit], dict[str, Mapping[str, Any]]]:
        """The neighbours that are the same kind of thing and have a price in the same currency."""
        options = _WANTED.model_copy(update={"limit": self._settings.neighbours})
        answer = self._engine.neighbours(
            options, target, timings, seeds=[Seed(item_id=item_id)], points=points
        )
        own = points[item_id].payload
        hits = [hit for hit in answer.items if _comparable(hit, own)]
        nearest = [hit.score for hit in hits[:3]]
        floor = self._settings.near * nearest[-1] if nearest else 0.0
        hits = [hit for hit in hits if hit.score >= floor]
        with timings.asking(INDEX):
            found = self._catalogue.index.fetch(
                target.collection, [hit.item_id for hit in hits], vectors=False
            )
        payloads = {
            hit.item_id: found[hit.item_id].payload
            for hit in hits
            if hit.item_id in found and found[hit.item_id].payload.get("price")
        }
        return hits, payloads


def _comparable(hit: Hit, own: Mapping[str, Any]) -> bool:
    """Whether a neighbour has a price that can be held against the item's, and lies on the same shelf."""
    item = hit.item
    if item.price is None or item.currency != own.get("currency"):
        return False
    path = own.get("category_path") or []
    return not path or not item.category or item.category == list(path)


def _offer(name: str, payload: Mapping[str, Any]) -> Offer[str]:
    return Offer(name, float(payload["price"]), pack_of(payload), payload.get("condition"))


def _shown(
    one: Offer[str], payloads: Mapping[str, Mapping[str, Any]], similarity: Mapping[str, float]
) -> Comparable:
    payload = payloads[one.key]
    return Comparable(
        item_id=one.key,
        title=payload["title"],
        price=payload["price_exact"],
        unit_price=round(one.unit_price, 4),
        pack=one.pack,
        condition=one.condition,
        similarity=similarity[one.key],
    )


def _sentence(view: PriceView, found: Standing[str]) -> str:
    band = found.band
    pack = f", for a pack of {view.pack}" if view.pack > 1 else ""
    return (
        f"{view.price} {view.currency or ''} is {found.ratio:.2f} times what {band.items} comparable items"
        f" cost ({found.basis}: half of them {band.quarter:.2f} to {band.three_quarters:.2f}{pack}),"
        f" {abs(found.score):.1f} standard deviations {'above' if found.score > 0 else 'below'}"
    )


def _timed(view: PriceView, timings: Timings) -> PriceView:
    return view.model_copy(update={"took_ms": round(timings.elapsed_ms(), 3)})
