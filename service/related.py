"""What baskets and visits say to a query: which hits are mined with its seeds, and what that is worth.

Reads   relations that a run of the miner has found: one look-up per query, none where its preset does not
        ask; the index, once, for pairs that only their texts can tell apart
Writes  nothing
Never   fails a query: a store that is away is named in the answer, which is then ranked without it

A pair is worth 1 - 1 / lift_low: the share of its meetings that chance does not explain (the attributable
fraction among the exposed: Rothman, Greenland and Lash 2008, Modern Epidemiology, chapter 4), at the lower
bound of its lift. So it is between 0 and 1 like the other scores, and in the order of the bound. An item
that is mined with no seed has 0: of it nothing is known beyond chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from schemas.api import RelatedBy
from schemas.relations import Evidence, Mined, Partner, RelationReader, Run
from schemas.vectors import CONTENT, Ids, Point, SparseVector, Vector, Where
from service.catalogue import Catalogue, Target
from service.errors import Unavailable
from service.presets import Wanted
from service.relations import told_apart
from service.seeds import Part
from service.timing import BEHAVIOUR, INDEX, Timings

#: What the part of the score is called in an answer.
RELATIONS = "relations"
NOTE = "what was mined of baskets and visits (Redis) does not answer: ranked without it"


@dataclass(frozen=True, slots=True)
class Related:
    """A possible hit that is mined with the seed `place` of the query: worth from 0 to 1, and why."""

    place: int
    score: float
    by: RelatedBy


@dataclass(frozen=True, slots=True)
class Relating:
    """What relations say to one query: by id what raises a hit, and ids that are no hits."""

    weight: float = 0.0
    partners: Mapping[str, Related] = field(default_factory=dict)
    left_out: Sequence[str] = ()

    def narrowed(self, where: Where) -> Where:
        """The conditions of the query, without what is left out."""
        if not self.left_out:
            return where
        return Where(where.must, (*where.must_not, Ids(tuple(self.left_out))))

    def raised(self, limit: int) -> list[Where]:
        """A condition for the best partners: they may lie below the candidates of the dimensions."""
        if not self.partners:
            return []
        best = sorted(self.partners, key=lambda name: (-self.partners[name].score, name))
        return [Where((Ids(tuple(best[:limit])),))]

    def score(self, product_id: str) -> float:
        """What is mined of a hit."""
        one = self.partners.get(product_id)
        return 0.0 if one is None else one.score


NOTHING_RELATED = Relating()


class Relater:
    """Looks up what is mined of a query's seeds. Thread-safe as its collaborators are."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        reader: RelationReader | None,
        alike: float,
        away: Callable[[], bool] = lambda: False,
    ) -> None:
        """Without a `reader` nothing is related. It is not asked while its store is known to be `away`."""
        self._catalogue = catalogue
        self._reader = reader
        self._alike = alike
        self._away = away

    def of(
        self, wanted: Wanted, parts: Sequence[Part], target: Target, notes: list[str], timings: Timings
    ) -> Relating:
        """What relations say; NOTHING_RELATED where the preset does not ask or nothing is mined."""
        seeds = {
            part.product_id: place
            for place, part in enumerate(parts)
            if part.weight > 0 and part.product_id is not None
        }
        if wanted.relations is None or self._reader is None or not seeds:
            return NOTHING_RELATED
        try:
            if self._away():
                raise Unavailable(BEHAVIOUR, NOTE)
            with timings.asking(BEHAVIOUR):
                run, mined = self._reader.of_all(list(seeds))
        except Unavailable:
            notes.append(NOTE)
            return NOTHING_RELATED
        if run is None or not mined:
            return NOTHING_RELATED
        points = self._undecided(mined, target, timings)
        heaviest = max(parts[place].weight for place in seeds.values())
        partners: dict[str, Related] = {}
        left_out: dict[str, None] = {}
        for name, found in mined.items():
            seed = parts[seeds[name]]
            for partner in found.partners:
                other = partner.item_id
                told = told_apart(partner, alike=self._are_alike(seed, points.get(other)))
                if told is None or other in seeds:
                    continue
                evidence, kind = told
                if kind != wanted.relations:
                    # What goes with an item is no substitute; what could replace it is only not raised.
                    if kind == "complements":
                        left_out[other] = None
                    continue
                score = worth(evidence) * seed.weight / heaviest
                # Of several seeds the one that says most: they are not several occasions.
                if other not in partners or score > partners[other].score:
                    by = _by(name, found, run, partner, evidence)
                    partners[other] = Related(seeds[name], score, by)
        return Relating(
            wanted.relations_weight, partners, [name for name in left_out if name not in partners]
        )

    def _undecided(self, mined: Mapping[str, Mined], target: Target, timings: Timings) -> Mapping[str, Point]:
        """Points of the partners that are one thing if their texts are alike, and another if not."""
        names = {
            partner.item_id
            for found in mined.values()
            for partner in found.partners
            if told_apart(partner, alike=True) != told_apart(partner, alike=False)
        }
        if not names:
            return {}
        with timings.asking(INDEX):
            return self._catalogue.index.fetch(target.collection, sorted(names), vectors=(CONTENT,))

    def _are_alike(self, seed: Part, point: Point | None) -> bool:
        if point is None:
            return False
        path = list(seed.about.category)
        if path and path == list(point.payload.get("category_path") or ()):
            return True
        return _cosine(seed.vectors.get(CONTENT), point.vectors.get(CONTENT)) >= self._alike


def worth(evidence: Evidence) -> float:
    """The share of a pair's meetings that chance does not explain, at the lower bound of its lift."""
    return 1.0 - 1.0 / max(1.0, evidence.lift_low)


def _cosine(one: Vector | None, other: Vector | None) -> float:
    """Of unit vectors; 0 where one is missing."""
    if one is None or other is None or isinstance(one, SparseVector) or isinstance(other, SparseVector):
        return 0.0
    return float(np.dot(np.asarray(one), np.asarray(other)))


def _by(seed: str, mined: Mined, run: Run, partner: Partner, evidence: Evidence) -> RelatedBy:
    bought = evidence is partner.bought
    return RelatedBy(
        item_id=seed,
        basis="bought together" if bought else "looked at together",
        together=evidence.together,
        support=round(evidence.together / (run.baskets if bought else run.visits), 6),
        confidence=round(evidence.together / (mined.baskets if bought else mined.visits), 6),
        lift=evidence.lift,
        lift_low=evidence.lift_low,
    )
