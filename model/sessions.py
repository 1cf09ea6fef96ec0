"""Sessions from the archive's rows: what a shopper did in one visit, of items that are live.

Reads, writes  nothing: tables in memory
Never          looks at what an item is
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from adapters.archive import session_numbers
from model.pairs import seen_weight
from schemas.events import Product


class Item(NamedTuple):
    """A live item as training sees it; `rating` is the mean of its reviews' stars."""

    product: Product
    reviews: str = ""
    rating: float | None = None


class Session(NamedTuple):
    """Items in order, each with how much it counts (`seen_weight`)."""

    items: list[tuple[str, float]]
    starts_ms: int
    name: str


def sessions_of(
    table: pa.Table, catalogue: Mapping[str, Item], gap_ms: int, bias: float
) -> Sequence[Session]:
    """Sessions in the order of their start, of live items alone, an item at a time once.

    A named session is one, whatever else the shopper did meanwhile on another device or without a name.
    """
    order = ("shopper", "session", "at_ms", "offset")
    ordered = table.sort_by([(name, "ascending") for name in order])
    numbers = session_numbers(ordered, gap_ms=gap_ms)
    columns: Any = [ordered[name].to_pylist() for name in ("shopper", "product", "at_ms", "position")]
    found: dict[int, Session] = {}
    for number, shopper, product, at_ms, position in zip(numbers.tolist(), *columns, strict=True):
        if product in catalogue:
            session = found.setdefault(number, Session([], at_ms, f"session {shopper} {at_ms}"))
            if not session.items or session.items[-1][0] != product:
                session.items.append((product, seen_weight(position, bias=bias)))
    return sorted(found.values(), key=lambda session: (session.starts_ms, session.name))


def steps_of(sessions: Iterable[Session]) -> Iterable[tuple[str, str]]:
    """Each item of a session and the one after it."""
    for session in sessions:
        for (one, _), (other, _) in zip(session.items, session.items[1:], strict=False):
            yield one, other


def new_window_from(sessions: Sequence[Session], share: float) -> float:
    """The time after which sessions are the new window: so many of the sessions with two items at least."""
    times = [session.starts_ms for session in sessions if len(session.items) > 1]
    return float(np.quantile(times, 1 - share)) if len(times) > 1 else float("inf")


def without(sessions: Iterable[Session], unseen: set[str]) -> list[list[tuple[str, float]]]:
    return [[entry for entry in session.items if entry[0] not in unseen] for session in sessions]


def share_of(name: str) -> float:
    """A number in [0, 1) that depends on the name alone, the same in every process and run."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) / 2**64
