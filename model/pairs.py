"""Which texts belong together, how much each pair counts, and which may never be each other's negatives.

Reads, writes  nothing: arrays in memory
Never          imports torch; splits by row (model/splits.py splits by time and by item)

Texts are rows of one table; a pair names two of them. Rows of one group are one thing (a duplicate, a
variant, the title and the description of one product): never negatives of each other, and neither are groups
whose items shoppers had together.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PairTable:
    """Pairs of rows of `texts`.

    `groups` has one number per text. `weights` has mean 1. `related` are groups seen together beyond the
    pairs themselves. `negatives`, where mined, has one row of text numbers per pair.
    """

    texts: Sequence[str]
    groups: Ints
    anchors: Ints
    positives: Ints
    weights: NDArray[np.float32]
    related: Sequence[tuple[int, int]] = ()
    negatives: Ints | None = None
    sources: Sequence[str] = field(default=())

    def __len__(self) -> int:
        return len(self.anchors)

    def chosen(self, rows: Ints) -> PairTable:
        """The same table with these pairs only; what is related stays known."""
        return PairTable(
            texts=self.texts,
            groups=self.groups,
            anchors=self.anchors[rows],
            positives=self.positives[rows],
            weights=self.weights[rows],
            related=self.related,
            negatives=None if self.negatives is None else self.negatives[rows],
            sources=[self.sources[row] for row in rows] if self.sources else (),
        )


class NegativeMask:
    """Tells which candidates of a batch are false negatives of which anchors."""

    def __init__(self, table: PairTable) -> None:
        self._table = table
        self._groups = table.groups
        self._base = int(table.groups.max(initial=0)) + 1
        first, second = table.groups[table.anchors], table.groups[table.positives]
        if table.related:
            extra = np.asarray(table.related, dtype=np.int64)
            first, second = np.concatenate([first, extra[:, 0]]), np.concatenate([second, extra[:, 1]])
        # Who goes with whom, as rows of a sparse matrix: those of group g are _neighbours[_starts[g]:
        # _starts[g + 1]]. np.unique would hash what sorting orders in a tenth of the time; a neighbour that
        # is there twice does no harm.
        keys = np.sort(np.concatenate([first * self._base + second, second * self._base + first]))
        self._neighbours: Ints = keys % self._base
        self._starts: Ints = np.searchsorted(keys, np.arange(self._base + 1) * self._base)
        counts = np.bincount(table.groups[table.positives], minlength=self._base).astype(np.float64)
        counts += np.bincount(table.groups[table.anchors], minlength=self._base)
        self._log_frequency = np.log(np.maximum(counts, 1.0) / max(1.0, counts.mean())).astype(np.float32)

    def of_batch(self, rows: Ints, *, columns: int) -> tuple[Bools, Bools]:
        """False negatives among candidates (batch, columns * batch) and, backwards, among anchors.

        Candidates are the batch's positives, then its negatives column by column. A pair's own positive is
        never masked.
        """
        anchors = self._groups[self._table.anchors[rows]]
        positives = self._groups[self._table.positives[rows]]
        candidates = self._candidates(rows, columns)
        # A candidate may be what the anchor goes with, or the same thing as the anchor or its positive.
        hidden = self._related(anchors, candidates)
        hidden |= positives[:, None] == candidates[None, :]
        own = np.arange(len(rows))
        hidden[own, own] = False
        back = self._related(positives, anchors)
        back |= anchors[:, None] == anchors[None, :]
        back[own, own] = False
        return hidden, back

    def related(self, anchors: Ints, texts: Ints) -> Bools:
        """Which texts are false negatives of which anchors, (anchors, texts), by text number."""
        return self._related(self._groups[anchors], self._groups[texts])

    def same(self, ones: Ints, texts: Ints) -> Bools:
        """Which texts are the same thing as which others, (ones, texts)."""
        found: Bools = self._groups[ones][:, None] == self._groups[texts][None, :]
        return found

    def log_frequency(self, rows: Ints, *, columns: int) -> NDArray[np.float32]:
        """ln(how often, over the mean) of each candidate, (columns * batch,)."""
        found: NDArray[np.float32] = self._log_frequency[self._candidates(rows, columns)]
        return found

    def _candidates(self, rows: Ints, columns: int) -> Ints:
        texts = [self._table.positives[rows]]
        if self._table.negatives is not None:
            texts += [self._table.negatives[rows, column] for column in range(columns - 1)]
        return self._groups[np.concatenate(texts)]

    def _related(self, ones: Ints, others: Ints) -> Bools:
        """Which groups are, or go with, which others, (ones, others)."""
        columns, column_of = np.unique(others, return_inverse=True)
        place = np.full(self._base, -1, dtype=np.int64)
        place[columns] = np.arange(len(columns))
        first, many = self._starts[ones], self._starts[ones + 1] - self._starts[ones]
        # Places in _neighbours: for each of `ones` its own range, one after the other.
        ends = np.cumsum(many)
        at = np.arange(many.sum()) + np.repeat(first - ends + many, many)
        found_at = place[self._neighbours[at]]
        known = found_at >= 0
        met = np.zeros((len(ones), len(columns)), dtype=np.bool_)
        met[np.repeat(np.arange(len(ones)), many)[known], found_at[known]] = True
        found: Bools = met[:, column_of]
        found |= ones[:, None] == others[None, :]
        return found


def duplicate_groups(texts: Sequence[str], given: Sequence[str | None] | None = None) -> Ints:
    """A number per text: equal where `given` names one group, or the texts are the same but for spelling.

    The same: equal after NFKC, case folding, and dropping everything but letters and digits, the words in
    any order. `given` (variants of one product, or the product behind a text) wins over the text.
    """
    names: dict[str, int] = {}
    parents: list[int] = []

    def number(name: str) -> int:
        if name not in names:
            names[name] = len(parents)
            parents.append(len(parents))
        return names[name]

    def root(node: int) -> int:
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    nodes = []
    for row, text in enumerate(texts):
        node = number("text:" + bag_of_words(text))
        group = given[row] if given is not None else None
        if group is not None:
            other = number("group:" + group)
            parents[root(node)] = root(other)
        nodes.append(node)
    roots = [root(node) for node in nodes]
    _, groups = np.unique(np.asarray(roots, dtype=np.int64), return_inverse=True)
    return groups.astype(np.int64)


def bag_of_words(text: str) -> str:
    """Letters and digits alone, folded, the words in alphabetical order and each once."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(sorted(set("".join(c if c.isalnum() else " " for c in folded).split()))) or text


def co_interactions(
    sessions: Iterable[Sequence[tuple[str, float]]],
    *,
    distance: int = 3,
    decay: float = 0.7,
    popularity: float = 0.5,
) -> dict[tuple[str, str], float]:
    """Weight of each unordered pair of items that one session has within `distance` steps.

    A session is its items in order, each with how much that interaction counts (`seen_weight`). A pair counts
    decay^(steps - 1) times both, once per session, over (n_a * n_b)^popularity: n is in how many sessions an
    item is, so that what everybody has says little about what it is like.
    """
    found: dict[tuple[str, str], float] = {}
    often: Counter[str] = Counter()
    for session in sessions:
        first: dict[str, float] = {}
        for item, weight in session:
            first[item] = max(weight, first.get(item, 0.0))
        items = list(first)
        often.update(items)
        for place, one in enumerate(items):
            for steps, other in enumerate(items[place + 1 : place + 1 + distance], start=1):
                pair = (one, other) if one < other else (other, one)
                weight = decay ** (steps - 1) * first[one] * first[other]
                found[pair] = found.get(pair, 0.0) + weight
    return {
        pair: weight / float(often[pair[0]] * often[pair[1]]) ** popularity for pair, weight in found.items()
    }


def seen_weight(position: int | None, *, bias: float = 0.5, most: float = 4.0) -> float:
    """How much an interaction with the item at `position` (from 0) of a list counts.

    The inverse of the chance that the position is looked at, (1 + position)^-bias, clipped (Joachims et al.
    2017, Unbiased learning-to-rank, eq. 3 and section 3.3): what was found far down was wanted.
    """
    return 1.0 if position is None else min(most, (1.0 + position) ** bias)
