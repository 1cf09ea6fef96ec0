"""State in Redis as canonical lines: equal state gives equal bytes, whoever wrote it, in whatever order.

Reads   every key of one generation
Writes  nothing
Never   leaves out a key without saying so here; one that it does not know is refused

One JSON line per key, `[key, value]`, sorted by key (without its prefix); bytes that are not UTF-8 as
hexadecimal. What is not state is left out, because it says how events arrived and not what they come to:

guards         of counters, inside an item's behaviour: offsets up to which it has counted
moves          in the same place: how much of a sketch has moved since it was last announced
id windows     of shoppers (`ids:*`): recent event ids with the offsets where they first appeared
marks          `{dirty-N}:*`: items still to be announced; and write tickets, which are no generation's
trend:*        lists of trending items: made from the registers of items, which are here, and removed by
               Redis' clock, so that they depend on when they were written
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import orjson

from adapters.behaviour_state import state_of
from adapters.redis_client import glob
from adapters.redis_nodes import RedisNodes
from adapters.state_generation import FIRST, state_prefix
from schemas.errors import Halt

#: The registers of the items that a shopper touched.
_REGISTERS_FIELD = b"n"
_IDS = re.compile(r"shopper:\{\w+\}:ids:")
_HASHES = ("product", "reviews", "reviews:texts", "reviews:summary")
_SORTED_SETS = ("reviews:kept", "reviews:slots", "sketch", "recent", "bought")
_PATTERNS = ("item:*", "shopper:*", "behaviour:*")
_SCAN_KEYS = 1_000
_PAGE_KEYS = 500


def export_state(*, nodes: RedisNodes, namespace: str = "", generation: int = FIRST) -> Iterator[bytes]:
    """The lines, sorted, each with its newline. Raises Halt for a key it does not know, Transient.

    While somebody writes, it is no snapshot: keys are read one page after another.
    """
    prefix = state_prefix(namespace, generation)
    keys = sorted(key for key in _keys(nodes, prefix) if not _IDS.match(key, len(prefix)))
    for start in range(0, len(keys), _PAGE_KEYS):
        page = keys[start : start + _PAGE_KEYS]
        names = [key[len(prefix) :] for key in page]
        for name, value in zip(names, _values(nodes, page, names), strict=True):
            if value is not None:
                yield orjson.dumps([name, value]) + b"\n"


def _keys(nodes: RedisNodes, prefix: str) -> set[str]:
    found: set[str] = set()
    for node in nodes.primaries():
        for pattern in _PATTERNS:
            cursor = 0
            while True:
                with nodes.calling("walking state"):
                    cursor, keys = cast(
                        "tuple[int, list[bytes]]",
                        node.scan(cursor, match=glob(prefix) + pattern, count=_SCAN_KEYS),
                    )
                found.update(key.decode() for key in keys)
                if cursor == 0:
                    break
    return found


def _values(nodes: RedisNodes, keys: Sequence[str], names: Sequence[str]) -> list[Any]:
    """What keys hold, in canonical form and their order; None where it is not state, or has gone."""
    values: list[Any] = [None] * len(keys)
    with nodes.calling("exporting state"):
        for node, positions in nodes.by_node(keys):
            pipe = node.pipeline(transaction=False)
            read = [_asked(pipe, keys[position], names[position]) for position in positions]
            for position, canonical, answer in zip(positions, read, pipe.execute(), strict=True):
                values[position] = canonical(answer) if answer else None
    return values


def _asked(pipe: Any, key: str, name: str) -> Callable[[Any], Any]:
    """Ask for a key; what makes the answer canonical."""
    kind, _, rest = name.partition(":")
    part = rest.rpartition("}:")[2] if kind in ("item", "shopper") else ""
    if kind == "item" and part == "behaviour":
        pipe.get(key)
        return _behaviour
    if (kind == "shopper" and part == "seen") or name == "behaviour:epoch":
        pipe.hget(key, _REGISTERS_FIELD) if part else pipe.get(key)
        return _plain
    if part in _HASHES:
        pipe.hgetall(key)
        return lambda row: {_plain(field): _plain(value) for field, value in sorted(row.items())}
    if part in _SORTED_SETS:
        pipe.zrange(key, 0, -1, withscores=True)
        return lambda members: sorted([_plain(member), score] for member, score in members)
    raise Halt(f"the export of state does not know what {key!r} is: say so in adapters/state_export.py")


def _behaviour(raw: bytes) -> Any:
    state = state_of(raw)
    assert state is not None  # noqa: S101  there are bytes
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
