"""The index's IDF figures, remembered for a while: they move slowly and cost a look-up each.

They only scale the lexical score of inline seeds and rank the words of an explanation; the scores themselves
come from the index, with its figures of this moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from adapters.index_port import VectorIndex

LIFETIME_SECONDS = 60.0
#: About 20 MiB; beyond it everything is forgotten at once, which costs a few slower queries.
MAX_REMEMBERED = 200_000


class RememberedIdf:
    """IDF by collection, dimension and index, each at most LIFETIME_SECONDS old. Thread-safe."""

    def __init__(self, index: VectorIndex, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._index = index
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str, int], tuple[float, float]] = {}

    def of(self, collection: str, dimension: str, indices: Sequence[int]) -> list[float]:
        """The figures in the order given; what is unknown or old is asked for in one call."""
        now = self._clock()
        with self._lock:
            found = {index: self._known.get((collection, dimension, index)) for index in indices}
        missing = [
            index for index, entry in found.items() if entry is None or now - entry[1] > LIFETIME_SECONDS
        ]
        fresh: dict[int, float] = {}
        if missing:
            values = self._index.idf(collection, dimension, missing)
            fresh = dict(zip(missing, values, strict=True))
            with self._lock:
                if len(self._known) + len(fresh) > MAX_REMEMBERED:
                    self._known.clear()
                self._known.update(
                    ((collection, dimension, index), (value, now)) for index, value in fresh.items()
                )
        return [fresh[index] if index in fresh else _value(found[index]) for index in indices]


def _value(entry: tuple[float, float] | None) -> float:
    assert entry is not None  # noqa: S101  (whatever had none was just asked for)
    return entry[0]
