"""What goes with an item and what could be bought instead: mined pairs, told apart by their texts.

Reads   relations that a run of the miner has found; the index: points of the item and of the others
Writes  nothing
Never   shows what the shop's rules block, what has left the catalogue, or a variant of the item itself
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from schemas.insights import BundleView, Relation, RelationsView
from schemas.relations import Evidence, Known, Mined, Partner, RelationReader, Run
from schemas.vectors import CONTENT, DimensionQuery, Point
from service.catalogue import Catalogue, Target
from service.errors import Unavailable
from service.hits import hit_item, rounded
from service.rules import NO_RULES, CompiledRules
from service.timing import BEHAVIOUR, INDEX, Timings


class Relations:
    """Looks relations up. Thread-safe as its collaborators are."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        reader: RelationReader | None,
        alike: float,
        rules: Callable[[], CompiledRules] = lambda: NO_RULES,
    ) -> None:
        """Without a `reader` what is asked for is Unavailable. `alike`: see ServiceSettings."""
        self._catalogue = catalogue
        self._reader = reader
        self._alike = alike
        self._rules = rules

    def relations(self, item_id: str, limit: int, timings: Timings) -> RelationsView:
        """An item's relations, at most `limit` of each kind.

        Raises UnknownItem, DeletedItem, NotSearchableYet, Unavailable.
        """
        target = self._catalogue.target(None, timings)
        point = self._catalogue.seed_points(target, [item_id], timings)[item_id]
        known = self._known(item_id, timings)
        view = RelationsView(
            item_id=item_id,
            mined_at=known.run.mined_at if known.run is not None else None,
            evidence="no run of `simstream relations mine` has looked yet",
            release_id=target.release_id,
            took_ms=0.0,
        )
        if known.run is not None:
            changes = self._told(
                point, known.run, known.mined or Mined(baskets=0, visits=0), target, limit, timings
            )
            view = view.model_copy(update=changes)
        return view.model_copy(update={"took_ms": round(timings.elapsed_ms(), 3)})

    def _known(self, item_id: str, timings: Timings) -> Known:
        if self._reader is None:
            raise Unavailable(BEHAVIOUR, "this service was started without a store of relations")
        with timings.asking(BEHAVIOUR):
            return self._reader.of(item_id)

    def _told(
        self, point: Point, run: Run, mined: Mined, target: Target, limit: int, timings: Timings
    ) -> dict[str, Any]:
        names = {one.item_id for one in mined.partners} | {
            name for bundle in mined.bundles for name in bundle.items
        }
        payloads = self._shown(point, sorted(names), target, timings)
        similarity = self._similarity(point, sorted(payloads), target, timings)
        substitutes: list[Relation] = []
        complements: list[Relation] = []
        for partner in mined.partners:
            payload = payloads.get(partner.item_id)
            if payload is None:
                continue
            near = similarity.get(partner.item_id, 0.0)
            basis = told_apart(partner, alike=near >= self._alike or _same_shelf(point.payload, payload))
            if basis is not None:
                evidence, kind = basis
                found = substitutes if kind == "substitutes" else complements
                found.append(_relation(partner, evidence, mined, run, near, payload))
        bundles = [
            BundleView(
                items=[hit_item(name, payloads[name]) for name in bundle.items],
                together=bundle.together,
                confidence=round(bundle.together / mined.baskets, 6),
            )
            for bundle in mined.bundles
            if all(name in payloads for name in bundle.items)
        ]
        for found in (substitutes, complements):
            found.sort(key=lambda one: (-one.lift_low, one.item_id))
        return {
            "substitutes": substitutes[:limit],
            "complements": complements[:limit],
            "bundles": bundles[:limit],
            "baskets": mined.baskets,
            "visits": mined.visits,
            "evidence": (
                f"{len(mined.partners)} items beyond chance, from {mined.baskets} baskets and {mined.visits}"
                f" visits with the item, of {run.baskets} and {run.visits}"
            ),
        }

    def _shown(
        self, point: Point, names: list[str], target: Target, timings: Timings
    ) -> dict[str, Mapping[str, Any]]:
        """Payloads of those that may be shown."""
        if not names:
            return {}
        with timings.asking(INDEX):
            found = self._catalogue.index.fetch(target.collection, names, vectors=False)
        book, group = self._rules(), point.payload.get("group_id")
        return {
            name: one.payload
            for name, one in found.items()
            if not one.payload.get("deleted")
            and not (group is not None and one.payload.get("group_id") == group)
            and not book.refuses(one.payload)
        }

    def _similarity(
        self, point: Point, names: list[str], target: Target, timings: Timings
    ) -> Mapping[str, float]:
        vector = point.vectors.get(CONTENT)
        if vector is None or not names:
            return {}
        with timings.asking(INDEX):
            asked = [DimensionQuery(CONTENT, vector, 1.0)]
            return self._catalogue.index.scores(target.collection, asked, names)[0]


def told_apart(partner: Partner, *, alike: bool) -> tuple[Evidence, str] | None:
    """What a pair is, and on which evidence; None for a pair that is merely looked at together.

    What is bought together goes together; but what is alike, and looked at together more than it is bought
    together, is compared. What is alike and looked at together is an alternative.
    """
    bought = partner.bought if partner.bought is not None and partner.bought.sure else None
    seen = partner.seen if partner.seen is not None and partner.seen.sure else None
    if bought is not None and not (alike and seen is not None and seen.lift > bought.lift):
        return bought, "complements"
    if alike and seen is not None:
        return seen, "substitutes"
    return None


def _same_shelf(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    path = one.get("category_path") or ()
    return bool(path) and list(path) == list(other.get("category_path") or ())


def _relation(
    partner: Partner, evidence: Evidence, mined: Mined, run: Run, near: float, payload: Mapping[str, Any]
) -> Relation:
    bought = evidence is partner.bought
    return Relation(
        item_id=partner.item_id,
        basis="bought together" if bought else "looked at together",
        together=evidence.together,
        support=round(evidence.together / (run.baskets if bought else run.visits), 6),
        confidence=round(evidence.together / (mined.baskets if bought else mined.visits), 6),
        confidence_back=round(evidence.together / evidence.other, 6),
        lift=evidence.lift,
        lift_low=evidence.lift_low,
        later=partner.later if bought else None,
        similarity=rounded(near),
        item=hit_item(partner.item_id, payload),
    )
