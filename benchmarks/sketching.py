"""What shoppers did as sketches and vectors, in bulk, by the product's own functions and without Redis.

Scores, registers, tau, the estimate of distinct shoppers and the vectors are those of consumers/interest.py,
adapters/registers.py and consumers/shopper_vectors.py. What the Lua script does event by event (keep the k
smallest scores of an item, the largest rank of a register) is done here by sorting all of them at once.

Reads   arrays of interactions
Never   decides how a vector is made
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adapters.behaviour_scripts import ITEM_REGISTERS, STATE_VERSION
from adapters.behaviour_state import Header
from adapters.registers import distinct, distinct_each
from adapters.shopper_scripts import SHOPPER_REGISTERS
from consumers.interest import Scorer, SketchSettings
from consumers.shopper_vectors import VectorSettings, shopper_weight, vector_of
from schemas.events import UserEventType
from schemas.vectors import SparseVector

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Interactions(NamedTuple):
    """Who did something with what, and when, row by row; `shopper` and `item` are places in the names."""

    shoppers: Sequence[str]
    items: Sequence[str]
    shopper: Ints
    item: Ints
    at_seconds: Floats
    #: The number of the basket or visit that each event belongs to.
    session: Ints

    def chosen(self, rows: NDArray[np.bool_] | Ints) -> Interactions:
        """Those events alone; the names stay."""
        return self._replace(
            shopper=self.shopper[rows],
            item=self.item[rows],
            at_seconds=self.at_seconds[rows],
            session=self.session[rows],
        )


class Sketches(NamedTuple):
    """Every item's header and kept shoppers, as Redis would hold them; the shoppers' weights by member."""

    headers: Sequence[Header]
    members: Sequence[Sequence[tuple[bytes, float]]]
    names: dict[bytes, bytes]
    weights: dict[bytes, float]
    #: The weight of each shopper, in the order of the names.
    shopper_weights: Floats

    def vectors(self, settings: VectorSettings) -> list[SparseVector]:
        """The vector of each item; empty for one that nobody touched."""
        weights = self.weights if settings.weigh_shoppers else dict.fromkeys(self.weights, 1.0)
        return [
            vector_of(header, kept, self.names, weights, settings)
            for header, kept in zip(self.headers, self.members, strict=True)
        ]


def distinct_pairs(events: Interactions) -> Interactions:
    """The newest event of each shopper with each item: of one type, it has the smallest score."""
    order = np.lexsort((-events.at_seconds, events.shopper, events.item))
    item, shopper = events.item[order], events.shopper[order]
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = (item[1:] != item[:-1]) | (shopper[1:] != shopper[:-1])
    return events.chosen(order[first])


def sketches_of(events: Interactions, settings: SketchSettings, kind: UserEventType = "purchase") -> Sketches:
    """The sketches that these events leave behind, all of one type."""
    scorer = Scorer(settings)
    log_weight = scorer.interest(kind, None)
    if log_weight is None:
        raise ValueError(f"{kind} is no interaction with these settings")
    pairs = distinct_pairs(events)
    known = [scorer.shopper(name) for name in events.shoppers]
    members = [shopper.member.encode() for shopper in known]
    touched = _packed(
        len(known),
        SHOPPER_REGISTERS,
        pairs.shopper,
        _codes([scorer.item_register(i) for i in events.items])[pairs.item],
    )
    shopper_weights = np.array([shopper_weight(distinct(packed)) for packed in touched])
    seen = _packed(
        len(events.items),
        ITEM_REGISTERS,
        pairs.item,
        _codes([shopper.register for shopper in known])[pairs.shopper],
    )
    estimates = distinct_each(seen)
    bounds = np.searchsorted(pairs.item, np.arange(len(events.items) + 1)).tolist()
    ranks = np.array([shopper.rank for shopper in known])
    log_weights = np.full(len(pairs.item), log_weight)
    score = scorer.scores(ranks[pairs.shopper], log_weights, pairs.at_seconds).tolist()
    shopper = pairs.shopper.tolist()
    headers, kept = [], []
    for number, (start, end) in enumerate(pairwise(bounds)):
        scores = sorted(
            (value, members[one]) for one, value in zip(shopper[start:end], score[start:end], strict=True)
        )
        k = settings.members
        tau = scores[k][0] if len(scores) > k else math.inf
        shoppers = len(scores) if tau == math.inf else max(k + 1, math.floor(estimates[number] + 0.5))
        headers.append(Header(STATE_VERSION, 0.0, tau, min(k, len(scores)), 0, shoppers, seen[number]))
        kept.append([(member, value) for value, member in scores[:k]])
    return Sketches(
        headers=headers,
        members=kept,
        names={member: one.hash for member, one in zip(members, known, strict=True)},
        weights=dict(zip(members, shopper_weights.tolist(), strict=True)),
        shopper_weights=shopper_weights,
    )


def _codes(codes: Sequence[int]) -> Ints:
    return np.array(codes, dtype=np.int64)


def _packed(count: int, registers: int, owner: Ints, codes: Ints) -> list[bytes]:
    """Register sketches of `count` owners: the largest rank of each register, two to a byte."""
    ranks = np.zeros((count, registers), dtype=np.uint8)
    np.maximum.at(ranks, (owner, codes // 16), (codes % 16).astype(np.uint8))
    packed = (ranks[:, 0::2] << 4) | ranks[:, 1::2]
    return [row.tobytes() for row in packed]


class Likeness:
    """Items as sparse vectors in a matrix: products of one with all others. Shape of a row: (items,)."""

    def __init__(self, vectors: Sequence[tuple[Ints, Floats]], columns: int) -> None:
        self._rows = vectors
        lengths = [len(indices) for indices, _ in vectors]
        items = np.repeat(np.arange(len(vectors)), lengths)
        indices = np.concatenate([indices for indices, _ in vectors])
        values = np.concatenate([values for _, values in vectors])
        order = np.argsort(indices, kind="stable")
        self._items, self._values = items[order], values[order]
        self._bounds = np.searchsorted(indices[order], np.arange(columns + 1))

    @classmethod
    def of(cls, vectors: Sequence[SparseVector]) -> Likeness:
        """From vectors with 32-bit indices."""
        every = np.unique(np.concatenate([np.array(one.indices, dtype=np.int64) for one in vectors]))
        rows = [
            (
                np.searchsorted(every, np.array(one.indices, dtype=np.int64)),
                np.array(one.values, dtype=np.float64),
            )
            for one in vectors
        ]
        return cls(rows, len(every))

    def with_all(self, row: int) -> Floats:
        """Products of one item's vector with every item's; 0 with itself."""
        indices, values = self._rows[row]
        spans = [(self._bounds[index], self._bounds[index + 1]) for index in indices]
        if not spans:
            return np.zeros(len(self._rows))
        items = np.concatenate([self._items[start:end] for start, end in spans])
        parts = [value * self._values[start:end] for value, (start, end) in zip(values, spans, strict=True)]
        weights = np.concatenate(parts)
        found = np.bincount(items, weights=weights, minlength=len(self._rows)).astype(np.float64)
        found[row] = 0.0
        return found

    def nearest(self, row: int, k: int, factors: Floats | None = None) -> list[int]:
        """The k items with the largest products, times `factors`; only those above 0."""
        found = self.with_all(row)
        if factors is not None:
            found = found * factors
        best: Ints = np.argpartition(-found, k)[:k] if len(found) > k else np.arange(len(found))
        best = best[found[best] > 0]
        ordered: list[int] = best[np.argsort(-found[best], kind="stable")].tolist()
        return ordered
