"""Where a request's time goes, and what a store's absence means for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from schemas.errors import Halt, Transient
from service.errors import Unavailable

INDEX = "index"
ITEMS = "items"
BEHAVIOUR = "behaviour"
ENCODER = "encoder"
BROKER = "broker"
#: What each store is called in an answer.
NAMES = {
    INDEX: "the vector index",
    ITEMS: "item state (Redis)",
    BEHAVIOUR: "behaviour (Redis)",
    ENCODER: "the encoder",
    BROKER: "the broker (Kafka)",
}


class Timings:
    """Seconds spent in each collaborator during one request. Belongs to one thread."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def asking(self, store: str) -> Iterator[None]:
        """Time a call to a store. Raises Unavailable, naming the store, where it is away or refuses us."""
        before = time.perf_counter()
        try:
            yield
        except (Transient, Halt) as error:
            raise Unavailable(store, f"{NAMES[store]} cannot answer now: {error}") from error
        finally:
            self.seconds[store] = self.seconds.get(store, 0.0) + time.perf_counter() - before

    def add(self, part: Timings) -> None:
        """Count the spans of one part of the request."""
        for name, seconds in part.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def elapsed_ms(self) -> float:
        """Milliseconds since the request's work began."""
        return (time.perf_counter() - self.started) * 1000

    def header(self) -> str:
        """The value of a Server-Timing header, durations in milliseconds."""
        spans = [f"{name};dur={seconds * 1000:.3f}" for name, seconds in self.seconds.items()]
        return ", ".join([*spans, f"total;dur={self.elapsed_ms():.3f}"])
