"""What `simstream demo-learn` asks while it learns, and what the synthetic shop knows of the answers.

Reads   the service's HTTP API; what was planted in the shop
Writes  nothing
Never   calls a query answered that was not
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import httpx

from producers.shop import Shop

_NEAREST = 10
_QUERIES_PER_SECOND = 5.0


class Planted:
    """What the shop knows of its shoppers and no text does."""

    def __init__(self, shop: Shop) -> None:
        self._taste = shop.truth.taste_of
        self._kind = {listing.product_id: listing.design.kind.noun for listing in shop.listings}

    def same(self, one: str, other: str) -> bool:
        """Of two kinds that the same shoppers like."""
        return self._kind[one] != self._kind[other] and self._taste[one] == self._taste[other]

    def share(self, neighbours: Mapping[str, Sequence[str]]) -> float:
        """Of neighbours of another kind, the share that the same shoppers like."""
        others = [
            (item, one)
            for item, near in neighbours.items()
            for one in near
            if self._kind[one] != self._kind[item]
        ]
        return sum(self.same(*pair) for pair in others) / max(1, len(others))


@dataclass(frozen=True, slots=True)
class Asked:
    """One query: in which phase, how long it took, and which release answered (None: it failed)."""

    phase: str
    seconds: float
    release: str | None


class Load:
    """Queries one after the other on a thread, so many a second at most."""

    def __init__(self, address: str, items: Sequence[str]) -> None:
        self._address = address
        self._items = items
        self.phase = "training"
        self.asked: list[Asked] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ask until the block ends."""
        stopped = threading.Event()

        def ask() -> None:
            draw = Random(1)
            with httpx.Client(base_url=self._address, timeout=60.0) as api:
                while not stopped.wait(1 / _QUERIES_PER_SECOND):
                    phase, begun, release = self.phase, time.monotonic(), None
                    try:
                        response = api.post("/v1/similar", json=question(draw.choice(self._items)))
                        if response.is_success:
                            release = str(response.json()["release_id"])
                    except httpx.HTTPError:
                        pass
                    self.asked.append(Asked(phase, time.monotonic() - begun, release))

        thread = threading.Thread(target=ask, name="demo-load", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()

    def in_words(self, phase: str) -> str:
        """How many of a phase failed, who answered the others, and how fast."""
        asked = [one for one in self.asked if one.phase == phase]
        if not asked:
            return "none"
        answered = Counter(one.release for one in asked if one.release is not None)
        by = ", ".join(f"{count} by {release}" for release, count in answered.items())
        seconds = sorted(one.seconds for one in asked)
        p50, p99 = (seconds[int(share * (len(seconds) - 1))] for share in (0.5, 0.99))
        return (
            f"{by}; {len(asked) - sum(answered.values())} failed; p50 {p50 * 1e3:.0f}, p99 {p99 * 1e3:.0f} ms"
        )


def question(item: str) -> dict[str, object]:
    """The body of a query for the nearest of an item by content alone."""
    return {"seeds": [{"item_id": item}], "weights": {"content": 1.0}, "limit": _NEAREST}
