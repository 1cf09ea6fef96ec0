"""An encoder without a model: hash-seeded unit vectors; equal texts are equal, shared words are near.

Counts what it was asked (`calls`, `texts`), so that a test can say that the encoder was never run.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"\w+")


@lru_cache(maxsize=50_000)
def _word_vector(word: str, dimension: int) -> NDArray[np.float64]:
    """A fixed direction per word, the same in every process, shape (dimension,)."""
    seed = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest(), "big")
    return np.random.default_rng(seed).standard_normal(dimension)


class FakeEncoder:
    """Implements schemas.vectors.Encoder. A text is the sum of its words' directions. Thread-safe."""

    def __init__(self, dimension: int = 32) -> None:
        self._dimension = dimension
        self._lock = threading.Lock()
        self.calls = 0
        self.texts: list[str] = []
        self.queries: list[bool] = []

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return self._dimension

    def encode(
        self, texts: Sequence[str], *, query: bool = False, background: bool = False
    ) -> list[list[float]]:
        """Unit vectors, shape (len(texts), dimension); a query differs from a passage in the record only."""
        with self._lock:
            self.calls += 1
            self.texts.extend(texts)
            self.queries.extend([query] * len(texts))
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> list[float]:
        words = sorted(set(_WORD.findall(text.casefold()))) or ["(nothing)"]
        total = np.sum([_word_vector(word, self._dimension) for word in words], axis=0)
        unit: list[float] = (total / np.linalg.norm(total)).tolist()
        return unit
