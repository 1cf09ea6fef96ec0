"""Which pairs people should label next: those about which a small classifier is least sure.

Uncertainty sampling (Lewis & Gale 1994, section 3): a logistic regression is fitted on what is known, and the
pairs whose probability is nearest to one half are asked for. As one such batch would be of the same few
products, it is spread: no product more often than `most_per_item`, categories in proportion to what the
catalogue has of them. Known are labelled pairs; else, for as long as there are none of both kinds, what
shoppers had together against pairs drawn at random (silver labels); else nothing, and pairs are spread evenly
from the least alike to the most.

Reads, writes  nothing: arrays in memory
Never          imports torch; proposes two of one group (a duplicate, a variant), nor a pair that is known
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.pair_features import BEHAVIOUR, FEATURES, LIKENESS, Floats, Likeness
from model.pairs import Ints

Basis = Literal["labels", "behaviour", "nothing"]
#: Per item: its very nearest, and as many drawn from those up to `_FAR`, which silver labels are unsure of.
_NEAR, _FAR = 5, 100
#: Silver labels of each kind, at most.
_SILVER = 2_000
_BLOCK = 512
#: The inverse strength of the regression's penalty, chosen on valid pairs (benchmarks/labels.py).
PENALTY = 1.0


class Suggestion(NamedTuple):
    """Two rows of the catalogue, and how probably they belong together; None where nothing is known."""

    a: int
    b: int
    probability: float | None


class Suggestions(NamedTuple):
    """The pairs to ask about, the least sure first, of how many, and what the classifier knew."""

    pairs: Sequence[Suggestion]
    pool: int
    basis: Basis


def suggested(
    likeness: Likeness,
    vectors: NDArray[np.float32],
    *,
    groups: Ints,
    kinds: Sequence[str],
    labelled: Mapping[tuple[int, int], float],
    left_out: Collection[tuple[int, int]],
    together: Mapping[tuple[int, int], float],
    count: int,
    most_per_item: int,
    seed: int,
) -> Suggestions:
    """The next `count` pairs to label, fewer where there are no more.

    All by row of `vectors` (unit vectors); pairs of rows have the smaller one first. `groups` has a number
    per row, `kinds` its category. `labelled` is what the classifier learns from; neither that nor what is
    `left_out` is proposed.
    """
    generator = np.random.default_rng(seed)
    pool = candidates(
        vectors, groups=groups, known={*labelled, *left_out}, also=together, generator=generator
    )
    if not len(pool):
        return Suggestions([], 0, "nothing")
    features = likeness(pool)
    basis: Basis = "nothing"
    probabilities: Floats | None = None
    if both_kinds(labels := np.array([label > 0.5 for label in labelled.values()])):
        basis = "labels"
        probabilities = fitted(likeness(_rows(list(labelled))), labels)(features)
    elif together:
        basis = "behaviour"
        rows, labels = silver(together, many=len(vectors), groups=groups, generator=generator)
        # What the silver labels were made of is not what they are recognised by.
        known, asked = likeness(rows), features.copy()
        known[:, BEHAVIOUR] = asked[:, BEHAVIOUR] = 0
        probabilities = fitted(known, labels)(asked) if both_kinds(labels) else None
        basis = "behaviour" if probabilities is not None else "nothing"
    order = layout(features, count) if probabilities is None else unsure(probabilities, generator)
    taken = spread(pool, order, kinds, count=count, most_per_item=most_per_item)
    return Suggestions(
        [
            Suggestion(
                int(pool[row, 0]),
                int(pool[row, 1]),
                None if probabilities is None else float(probabilities[row]),
            )
            for row in taken
        ],
        len(pool),
        basis,
    )


def candidates(
    vectors: NDArray[np.float32],
    *,
    groups: Ints,
    known: Collection[tuple[int, int]],
    also: Collection[tuple[int, int]],
    generator: np.random.Generator,
) -> Ints:
    """Pairs of rows (pairs, 2) that could be asked about: each row with some near and some further ones.

    Of rows of one group only the first is asked about.
    """
    _, first = np.unique(groups, return_index=True)
    asked = np.sort(first)
    lone = set(asked.tolist())
    found = {pair for pair in also if lone.issuperset(pair)}
    deep = min(_FAR, len(asked) - 1)
    for start in range(0, len(asked), _BLOCK):
        block = asked[start : start + _BLOCK]
        scores = vectors[block] @ vectors[asked].T
        scores[np.arange(len(block)), start + np.arange(len(block))] = -np.inf
        nearest = np.argsort(-scores, axis=1)[:, :deep]
        for row, near in zip(block.tolist(), asked[nearest], strict=True):
            rest = near[_NEAR:]
            drawn = generator.choice(rest, min(_NEAR, len(rest)), replace=False)
            found.update((min(row, other), max(row, other)) for other in [*near[:_NEAR], *drawn])
    return _rows(sorted((int(a), int(b)) for a, b in found.difference(known)))


def silver(
    together: Mapping[tuple[int, int], float], *, many: int, groups: Ints, generator: np.random.Generator
) -> tuple[Ints, NDArray[np.bool_]]:
    """What shoppers had together most, and as many pairs drawn from `many` rows that they had not."""
    ranked = sorted(together, key=lambda pair: (-together[pair], pair))
    alike = [pair for pair in ranked if groups[pair[0]] != groups[pair[1]]][:_SILVER]
    drawn = np.sort(generator.integers(0, many, (2 * len(alike), 2)), axis=1)
    apart = [(a, b) for a, b in drawn.tolist() if groups[a] != groups[b] and (a, b) not in together][
        : len(alike)
    ]
    return _rows([*alike, *apart]), np.arange(len(alike) + len(apart)) < len(alike)


def both_kinds(labels: NDArray[np.bool_]) -> bool:
    """Whether there is something to tell apart."""
    return 0 < int(labels.sum()) < len(labels)


def fitted(features: Floats, labels: NDArray[np.bool_], *, penalty: float = PENALTY) -> Any:
    """A logistic regression on scaled features, as a function from features to probabilities (pairs,)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=1_000))
    model.fit(features, labels)

    def probabilities(asked: Floats) -> Floats:
        found: Floats = model.predict_proba(asked)[:, 1]
        return found

    return probabilities


def unsure(probabilities: Floats, generator: np.random.Generator) -> Ints:
    """Pairs in the order in which they are asked about; equals in an order that is drawn."""
    order: Ints = np.lexsort((generator.random(len(probabilities)), np.abs(probabilities - 0.5)))
    return order


def layout(features: Floats, count: int) -> Ints:
    """Pairs in an order whose first `count` go evenly from the most alike to the least.

    Evenly over the values, not over the pairs: nearly all pairs of a catalogue are unlike.
    """
    likeness = features[:, [FEATURES.index(name) for name in LIKENESS]].mean(axis=1)
    ranked = np.argsort(-likeness, kind="stable")
    wanted = np.linspace(likeness.max(), likeness.min(), max(2, count))
    first = np.unique(np.searchsorted(-likeness[ranked], -wanted).clip(max=len(ranked) - 1))
    rest = np.setdiff1d(np.arange(len(ranked)), first)
    order: Ints = ranked[np.concatenate([first, rest])]
    return order


def spread(pairs: Ints, order: Ints, kinds: Sequence[str], *, count: int, most_per_item: int) -> list[int]:
    """The first of `order` (rows of `pairs`), no item too often, each kind in proportion to its items.

    A kind that has too few pairs leaves its places to the others. A pair is of the kind of its first item.
    """
    places = _shares(Counter(kinds), count)
    often: Counter[int] = Counter()
    taken: list[int] = []
    later: list[int] = []
    for by_kind in (True, False):
        for row in order.tolist() if by_kind else later:
            a, b = pairs[row].tolist()
            if len(taken) == count or max(often[a], often[b]) >= most_per_item:
                continue
            if by_kind and not places[kinds[a]]:
                later.append(row)
                continue
            places[kinds[a]] -= 1
            often.update((a, b))
            taken.append(row)
    rank = {row: place for place, row in enumerate(order.tolist())}
    return sorted(taken, key=rank.__getitem__)


def _shares(sizes: Counter[str], count: int) -> Counter[str]:
    """`count` places by size, whole numbers: the largest remainders get what is left (Hamilton)."""
    total = sum(sizes.values())
    exact = {kind: count * size / total for kind, size in sizes.items()}
    places = Counter({kind: int(share) for kind, share in exact.items()})
    order = sorted(exact, key=lambda kind: (places[kind] - exact[kind], kind))
    places.update(order[: count - sum(places.values())])
    return places


def _rows(pairs: Sequence[tuple[int, int]]) -> Ints:
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)
