"""An item's behaviour as Redis holds it in one string: read, never written, by Python.

Pure: adapters/behaviour_scripts.py says what is where, and writes it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgpack

from adapters.behaviour_scripts import HEADER, HEADER_BYTES, STATE_VERSION
from schemas.errors import Halt


class Header(NamedTuple):
    """The first bytes of an item's state."""

    version: int
    digest: float
    tau: float
    members: int
    moves: int
    shoppers: int
    registers: bytes

    @property
    def mark(self) -> str:
        """Names what the item gives to its vector: the sketch, tau, in steps of 6 % how many shoppers."""
        tau = "-" if self.tau == math.inf else f"{int(self.tau):x}"
        return f"{int(self.digest):013x}.{tau}.{shopper_step(self.shoppers)}"


class ItemBehaviour(NamedTuple):
    """All of an item's state but its sketch."""

    header: Header
    newest: int
    guards: Mapping[str, Any]
    totals: list[int]
    tiers: list[dict[int, list[Any]]]


def shopper_step(shoppers: int) -> int:
    """The number of shoppers in steps of 6 %, so that a vector need not move with each one of a thousand."""
    return round(16 * math.log(shoppers)) if shoppers > 0 else -1


def header_of(raw: bytes | None) -> Header | None:
    """The header of an item's state, or of its first `HEADER_BYTES`. Raises Halt for another version."""
    if not raw:
        return None
    header = Header(*struct.unpack(HEADER, raw[:HEADER_BYTES]))
    if header.version != STATE_VERSION:
        raise Halt(f"behaviour state of version {header.version} in Redis; this code reads {STATE_VERSION}")
    return header


def state_of(raw: bytes | None) -> ItemBehaviour | None:
    """An item's state from its bytes."""
    header = header_of(raw)
    if header is None or raw is None:
        return None
    newest, guards, totals, tiers = msgpack.unpackb(raw[HEADER_BYTES:], strict_map_key=False, raw=True)
    maps = [
        {number: _bucket(packed) for number, packed in tier.items()} if isinstance(tier, dict) else {}
        for tier in tiers
    ]
    return ItemBehaviour(header, newest, guards, totals, maps)


def _bucket(packed: bytes) -> list[Any]:
    """Seven counts, the registers of shoppers, the registers of buyers."""
    wide = len(packed) in (28, 60, 92)
    head = 28 if wide else 14
    counts = struct.unpack(">7I" if wide else ">7H", packed[:head])
    return [*counts, packed[head : head + 32], packed[head + 32 :]]
