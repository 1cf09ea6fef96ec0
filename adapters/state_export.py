"""State in Redis as canonical lines: equal state gives equal bytes, whoever wrote it, in whatever order.

Reads   every key of one generation
Writes  nothing
Never   leaves out a key without saying so here; one that it does not know is refused

One JSON line per key, `[key, value]`, sorted by key (without its prefix); bytes that are not UTF-8 as
hexadecimal. What is not state is left out, because it says how events arrived and not what they come to:

guards         of counters, inside an item's behaviour: offsets up to which it has counted
moves          in the same place: how much of a sketch has moved since it was last announced
id windows     of shoppers: recent event ids with the offsets where they first appeared
marks          `{dirty-N}:*`: items still to be announced; and write tickets, which are no generation's
trend:*        lists of trending items: made from the registers of items, which are here, and removed by
               Redis' clock, so that they depend on when they were written
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import orjson

from adapters.redis_behaviour import state_of
from adapters.redis_client import glob
from adapters.redis_nodes import RedisNodes
from adapters.state_generation import FIRST, state_prefix
from schemas.errors import Halt

#: The hash of a shopper's event ids also holds the registers of the items they touched.
_REGISTERS_FIELD = b"n"
_HASHES = ("product", "reviews", "reviews:texts", "reviews:summary")
_SORTED_SETS = ("reviews:kept", "reviews:slots", "sketch", "recent", "bought")
_SCAN_KEYS = 1_000


def export_state(*, nodes: RedisNodes, namespace: str = "", generation: int = FIRST) -> Iterator[bytes]:
    """The lines, sorted, each with its newline. Raises Halt for a key it does not know, Transient.

    While somebody writes, it is no snapshot: keys are read one page after another.
    """
    prefix = state_prefix(namespace, generation)
    for node, keys in _pages(nodes, prefix):
        with nodes.calling("exporting state"):
            for key in keys:
                value = _value(node, key, key.decode()[len(prefix) :])
                if value is not None:
                    yield orjson.dumps([key.decode()[len(prefix) :], value]) + b"\n"


def _pages(nodes: RedisNodes, prefix: str) -> Iterator[tuple[Any, list[bytes]]]:
    """All keys in order, in pages, each with the node that has them."""
    found: list[tuple[bytes, Any]] = []
    for node in nodes.primaries():
        for pattern in ("item:*", "shopper:*", "behaviour:*"):
            cursor = 0
            while True:
                with nodes.calling("walking state"):
                    cursor, keys = cast(
                        "tuple[int, list[bytes]]",
                        node.scan(cursor, match=glob(prefix) + pattern, count=_SCAN_KEYS),
                    )
                found += [(key, node) for key in keys]
                if cursor == 0:
                    break
    for key, node in sorted(dict(found).items()):
        yield node, [key]


def _value(node: Any, key: bytes, name: str) -> Any:
    """What a key holds, in canonical form; None where it is not state."""
    kind, _, rest = name.partition(":")
    part = rest.rpartition("}:")[2] if kind in ("item", "shopper") else rest
    if kind == "item" and part == "behaviour":
        return _behaviour(node.get(key))
    if kind == "shopper" and part == "seen":
        registers = node.hget(key, _REGISTERS_FIELD)
        return _plain(registers) if registers else None
    if part in _HASHES:
        return {_plain(field): _plain(value) for field, value in sorted(node.hgetall(key).items())}
    if part in _SORTED_SETS:
        return sorted([_plain(member), score] for member, score in node.zrange(key, 0, -1, withscores=True))
    if name == "behaviour:epoch":
        return _plain(node.get(key))
    raise Halt(f"the export of state does not know what {key!r} is: say so in adapters/state_export.py")


def _behaviour(raw: bytes | None) -> Any:
    state = state_of(raw)
    if state is None:
        return None
    header = state.header
    return {
        "version": header.version,
        "digest": header.digest,
        "tau": None if header.tau == math.inf else header.tau,
        "members": header.members,
        "shoppers": header.shoppers,
        "registers": header.registers.hex(),
        "newest": state.newest,
        "totals": state.totals,
        "tiers": [
            [
                [number, *bucket[:7], bucket[7].hex(), bucket[8].hex()]
                for number, bucket in sorted(tier.items())
            ]
            for tier in state.tiers
        ],
    }


def _plain(value: bytes) -> str:
    """Text as it is, anything else as hexadecimal behind a mark that no text of ours begins with."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "\x00" + value.hex()
