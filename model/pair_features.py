"""What two products have in common, in a few numbers a pair: what a small classifier judges pairs by.

Reads, writes  nothing: products and vectors in memory
Never          imports torch
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.pairs import Ints, bag_of_words
from model.text import ProductText
from schemas.events import Product

Floats = NDArray[np.float64]
#: The columns, in their order. All but `price` grow with likeness, or are 0 where nothing is known.
FEATURES = ("content", "lexical", "words", "codes", "category", "brand", "price", "priced", "behaviour")
#: Known of every pair: by their mean pairs are laid out while nothing is learned.
LIKENESS = ("content", "lexical")
BEHAVIOUR = FEATURES.index("behaviour")
#: Beyond a factor of e^2 prices say no more.
_FAR_APART = 2.0


class Likeness:
    """Called with pairs of rows, answers their features.

    `products` are by row, `vectors` their unit vectors (rows, dimension). `together` says how much behaviour
    relates two rows, the smaller one first; what is not there is 0.
    """

    def __init__(
        self,
        products: Sequence[Product],
        vectors: NDArray[np.float32],
        *,
        recipe: ProductText,
        together: Mapping[tuple[int, int], float] | None = None,
    ) -> None:
        self._products = products
        self._vectors = vectors
        self._together = together or {}
        self._grams = _gram_table(products, recipe)
        self._words = [frozenset(bag_of_words(product.title).split()) for product in products]
        self._codes = [
            frozenset(word for word in words if any(letter.isdigit() for letter in word))
            for words in self._words
        ]

    def __call__(self, pairs: Ints) -> Floats:
        """Features (pairs, len(FEATURES)) of pairs of rows (pairs, 2)."""
        one, other = pairs[:, 0], pairs[:, 1]
        found = np.zeros((len(pairs), len(FEATURES)))
        found[:, 0] = np.einsum("pd,pd->p", self._vectors[one], self._vectors[other])
        found[:, 1] = np.asarray(self._grams[one].multiply(self._grams[other]).sum(axis=1)).ravel()
        for row, (a, b) in enumerate(pairs.tolist()):
            found[row, 2:] = self._spoken(a, b)
        return found

    def _spoken(self, a: int, b: int) -> tuple[float, ...]:
        """The columns that are no vectors' products."""
        first, second = self._products[a], self._products[b]
        price, priced = 0.0, 0.0
        if first.price and second.price and first.currency == second.currency:
            price = min(_FAR_APART, abs(math.log(float(first.price) / float(second.price))))
            priced = 1.0
        return (
            _shared(self._words[a], self._words[b]),
            _shared(self._codes[a], self._codes[b]),
            _common_depth(first.category, second.category),
            _same(first.brand, second.brand),
            price,
            priced,
            math.log1p(self._together.get((min(a, b), max(a, b)), 0.0)),
        )


def _gram_table(products: Sequence[Product], recipe: ProductText) -> Any:
    """Grams times their rarity among these products, unit rows, as a sparse matrix (products, grams)."""
    from scipy.sparse import csr_matrix, diags
    from sklearn.preprocessing import normalize

    vectors = [recipe.lexical(product) for product in products]
    ends = np.cumsum([0, *(len(vector.indices) for vector in vectors)])
    indices = np.array([index for vector in vectors for index in vector.indices], dtype=np.int64)
    values = np.array([value for vector in vectors for value in vector.values], dtype=np.float64)
    known, columns = np.unique(indices, return_inverse=True)
    often = np.bincount(columns, minlength=len(known))
    # The index's own rarity (IDF of BM25): what every product has says nothing.
    rarity = np.log1p((len(products) - often + 0.5) / (often + 0.5))
    table = csr_matrix((values, columns, ends), shape=(len(products), len(known)))
    return normalize(table @ diags(rarity)).tocsr()


def _shared(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard; 0 where neither has any."""
    return len(one & other) / len(one | other) if one or other else 0.0


def _common_depth(one: Sequence[str], other: Sequence[str]) -> float:
    """Steps of the category paths in common, of the longer one; 0 where one has none."""
    depth = 0
    for step, same in zip(one, other, strict=False):
        if step != same:
            break
        depth += 1
    return depth / max(len(one), len(other), 1)


def _same(one: str | None, other: str | None) -> float:
    """1 for one brand, -1 for two, 0 where one is not known."""
    if not one or not other:
        return 0.0
    return 1.0 if one.casefold() == other.casefold() else -1.0
