"""Hard negatives: what the parent finds near an anchor, and no shopper had with it.

Reads, writes  nothing: arrays in memory
Never          takes what the mask calls a false negative, nor the very nearest (often the same thing)

By the parent's vectors of the texts at hand, or, where an index of them is running, by what it answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from model.pairs import NegativeMask, PairTable

_BLOCK = 512

#: Asked for items by id, answers the ids nearest to each, nearest first; none for one it does not know.
Nearest = Callable[[Sequence[str]], Mapping[str, Sequence[str]]]


def with_hard_negatives(
    table: PairTable,
    vectors: NDArray[np.float32],
    *,
    count: int,
    seed: int,
    first: int = 5,
    last: int = 50,
    below: float = 0.95,
) -> PairTable:
    """The table with `count` negatives per pair, drawn among the anchor's neighbours ranked [first, last).

    `vectors` are the parent's, one unit vector per text. A neighbour nearer than `below` times the positive's
    score stays out (de Souza Moreira et al. 2024, NV-Retriever, section 3: positive-aware mining). Where too
    few are left, any text that is no false negative fills up.
    """
    mask = NegativeMask(table)
    generator = np.random.default_rng(seed)
    items = np.unique(np.concatenate([table.anchors, table.positives]))
    found = np.empty((len(table), count), dtype=np.int64)
    for start in range(0, len(table), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(table)))
        anchors, positives = table.anchors[rows], table.positives[rows]
        scores = vectors[anchors] @ vectors[items].T
        wanted = (vectors[anchors] * vectors[positives]).sum(axis=1)
        false = mask.related(anchors, items) | mask.same(positives, items)
        scores[false] = -np.inf
        order = np.argsort(-scores, axis=1)[:, first:last]
        for at, row in enumerate(rows):
            near = [
                place for place in order[at] if -np.inf < scores[at, place] < below * max(wanted[at], 0.0)
            ]
            if len(near) < count:
                allowed = np.flatnonzero(~false[at])
                # Where all are false negatives any will do: the loss masks it.
                more = generator.choice(allowed, count) if len(allowed) else np.zeros(count, dtype=np.int64)
                near += more.tolist()
                near = near[:count]
            else:
                near = generator.choice(near, count, replace=False).tolist()
            found[row] = items[near]
    return dataclasses.replace(table, negatives=found)


def with_nearest_negatives(
    table: PairTable,
    neighbours: Mapping[int, Sequence[int]],
    *,
    count: int,
    seed: int,
    first: int = 5,
    last: int = 50,
) -> PairTable:
    """The table with `count` negatives per pair out of each anchor's `neighbours`: rows, nearest first.

    Ranks alone decide (Xiong et al. 2021, ANCE, section 3): what the positive scores, the index does not say.
    Neighbours that are false negatives are passed over before ranks are counted. An anchor without enough of
    them (a query, a review) has any item that is no false negative.
    """
    mask = NegativeMask(table)
    generator = np.random.default_rng(seed)
    # Positives are items; an anchor may be a query or a review.
    items = np.unique(table.positives)
    found = np.empty((len(table), count), dtype=np.int64)
    for row in range(len(table)):
        anchor, positive = table.anchors[row : row + 1], table.positives[row : row + 1]

        def allowed(
            texts: NDArray[np.int64],
            anchor: NDArray[np.int64] = anchor,
            positive: NDArray[np.int64] = positive,
        ) -> NDArray[np.int64]:
            kept: NDArray[np.int64] = texts[~(mask.related(anchor, texts) | mask.same(positive, texts))[0]]
            return kept

        near = allowed(np.array(neighbours.get(int(anchor[0]), ()), dtype=np.int64))[first:last]
        if len(near) < count:
            others = allowed(items)
            fill = generator.choice(others if len(others) else items, count - len(near))
            near = np.concatenate([near, fill])
        found[row] = generator.choice(near, count, replace=False)
    return dataclasses.replace(table, negatives=found)
