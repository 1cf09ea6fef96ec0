"""Texts of a run, each item's once, and the pairs between them as they are collected.

Reads, writes  nothing: products in memory
Never          gives two texts of one product different groups
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from model.mining import Nearest
from model.pairs import PairTable, duplicate_groups
from model.sessions import Item
from model.text import ProductText
from schemas.events import Product


class Texts:
    """Texts by row, each item's once; what is the same thing has one group."""

    def __init__(self, catalogue: Mapping[str, Item], recipe: ProductText, prompts: tuple[str, str]) -> None:
        self._catalogue = catalogue
        self._recipe = recipe
        self._query_prompt, self._prompt = prompts
        self._rows: dict[str, int] = {}
        self.texts: list[str] = []
        self.names: list[str | None] = []

    def item(self, item: str) -> int:
        if item not in self._rows:
            product = self._catalogue[item].product
            self._rows[item] = self._add(
                self._prompt + self._recipe.content(product), product.group_id or "item " + item
            )
        return self._rows[item]

    def queries(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[int, int, float]]:
        return [(self._add(self._query_prompt + query, None), self.item(item), 1.0) for query, item in pairs]

    def reviews(self, items: Sequence[str]) -> list[tuple[int, int, float]]:
        return [(self._add(self.review(item), self._name(item)), self.item(item), 1.0) for item in items]

    def descriptions(self, items: Sequence[str]) -> list[tuple[int, int, float]]:
        rows = []
        for item in items:
            product = self._catalogue[item].product
            text = self._recipe.content(Product(title=(product.description or "")[:2_000]))
            name = self._name(item)
            rows.append((self._add(self.title(item), name), self._add(self._prompt + text, name), 1.0))
        return rows

    def title(self, item: str) -> str:
        return self._prompt + self._recipe.content(Product(title=self._catalogue[item].product.title))

    def review(self, item: str) -> str:
        return self._prompt + self._catalogue[item].reviews

    def neighbours(
        self, pairs: PairTable, nearest: Nearest, *, left_out: Collection[str]
    ) -> dict[int, list[int]]:
        """Rows of the items nearest to each anchor that is an item, nearest first; added where they lack."""
        item_of = {row: item for item, row in self._rows.items()}
        anchors = {row: item_of[row] for row in np.unique(pairs.anchors).tolist() if row in item_of}
        found = nearest(list(anchors.values()))
        return {
            row: [
                self.item(near)
                for near in found.get(item, ())
                if near in self._catalogue and near not in left_out
            ]
            for row, item in anchors.items()
        }

    def _name(self, item: str) -> str:
        return self._catalogue[item].product.group_id or "item " + item

    def _add(self, text: str, name: str | None) -> int:
        self.texts.append(text)
        self.names.append(name)
        return len(self.texts) - 1


class Pairs:
    """Pairs as they are collected."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._rows: list[tuple[int, int, float]] = []
        self._sources: list[str] = []
        self._related: set[tuple[int, int]] = set()
        self.counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def relate(self, weights: Iterable[tuple[str, str]]) -> None:
        """These are never each other's negatives, trained on or not."""
        self._related.update((self._texts.item(one), self._texts.item(other)) for one, other in weights)

    def add(self, source: str, rows: Sequence[tuple[int, int, float]], limit: int) -> None:
        taken = rows[: max(0, limit)]
        self._rows += taken
        self._sources += [source] * len(taken)
        self.counts[source] = len(taken)

    def table(self) -> PairTable:
        groups = duplicate_groups(self._texts.texts, self._texts.names)
        rows = np.array([row[:2] for row in self._rows], dtype=np.int64).reshape(-1, 2)
        weights = np.array([row[2] for row in self._rows], dtype=np.float32)
        # Between sources a pair counts the same; within co-interactions by its weight, tempered.
        for source in set(self._sources):
            of = np.array([name == source for name in self._sources])
            weights[of] = np.sqrt(weights[of] / max(1e-12, float(weights[of].mean())))
        return PairTable(
            texts=self._texts.texts,
            groups=groups,
            anchors=rows[:, 0],
            positives=rows[:, 1],
            weights=weights,
            related=sorted((int(groups[one]), int(groups[other])) for one, other in self._related),
            sources=self._sources,
        )
