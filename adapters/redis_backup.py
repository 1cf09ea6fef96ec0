"""State in Redis as a file: every key of one generation as Redis itself packs it, and back.

Reads, writes  keys of the state and the numbers of generations; one gzip file of MessagePack records
Never          a snapshot: keys are read one after another while consumers write. Those of one item are read
               in one transaction, and whoever restores reads the topics again from before the backup began
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgpack
import redis

from adapters.redis_client import glob
from adapters.redis_nodes import RedisNodes
from adapters.state_generation import STATE_PATTERNS, state_prefix
from schemas.errors import Halt

#: Keys of an item beside the one that was met: they are read together.
_ITEM_PARTS = (
    "product",
    "reviews",
    "reviews:texts",
    "reviews:summary",
    "reviews:kept",
    "reviews:slots",
    "behaviour",
    "sketch",
)
_ITEM = re.compile(rb"(.*item:\{[^}]*\}:)([a-z:]+)$", re.DOTALL)
#: Which numbers of generations were given out. Records of releases are not kept: the alias says what is live,
#: and old ones could name collections that have gone.
_COMMON = ("state:made",)
_SCAN_KEYS = 500


class Kept(NamedTuple):
    """One key: what is left of its life in milliseconds (0: for ever), and its value as DUMP packs it."""

    key: bytes
    ttl_ms: int
    packed: bytes


def write_backup(nodes: RedisNodes, file: Path, *, namespace: str, generation: int) -> int:
    """Write every key into `file`; how many. Raises Transient when Redis is away."""
    count = 0
    packer = msgpack.Packer(use_bin_type=True)
    with gzip.open(file, "wb", compresslevel=1) as out:
        for kept in _walk(nodes, namespace=namespace, generation=generation):
            out.write(packer.pack(tuple(kept)))
            count += 1
    return count


def read_backup(file: Path) -> Iterator[Kept]:
    """The keys of a file. Raises ValueError for one that is cut off or is none."""
    try:
        with gzip.open(file, "rb") as content:
            for key, ttl_ms, packed in msgpack.Unpacker(cast(Any, content), raw=False):
                yield Kept(key, ttl_ms, packed)
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise ValueError(f"{file} is not a whole backup of state: {error}") from error


def restore_backup(nodes: RedisNodes, file: Path, *, page: int = 500) -> int:
    """Put every key of the file back in place of what stands there; how many. Raises Transient, Halt."""
    waiting: list[Kept] = []
    count = 0
    for kept in read_backup(file):
        waiting.append(kept)
        if len(waiting) == page:
            count += _put(nodes, waiting)
            waiting = []
    return count + _put(nodes, waiting)


def standing_keys(nodes: RedisNodes, *, namespace: str, generation: int) -> int:
    """How many keys of that generation there are."""
    return sum(len(keys) for _, keys in _pages(nodes, state_prefix(namespace, generation)))


def remove_keys(nodes: RedisNodes, *, namespace: str, generation: int) -> None:
    """Remove every key of that generation, also of the live one: something else is about to be put there."""
    for node, keys in _pages(nodes, state_prefix(namespace, generation)):
        with nodes.calling("removing state"):
            pipe = node.pipeline(transaction=False)
            for key in keys:
                pipe.unlink(key)
            pipe.execute()


def _walk(nodes: RedisNodes, *, namespace: str, generation: int) -> Iterator[Kept]:
    common = [(namespace + name).encode() for name in _COMMON]
    for key in common:
        yield from _read(nodes, nodes.of(key.decode()), [key])
    seen: set[bytes] = set()
    for node, keys in _pages(nodes, state_prefix(namespace, generation)):
        for key in keys:
            item = _ITEM.fullmatch(key)
            first = key if item is None else item[1]
            if first in seen:
                continue
            seen.add(first)
            together = [key] if item is None else [item[1] + part.encode() for part in _ITEM_PARTS]
            if key not in together:
                raise Halt(f"the backup does not know what {key!r} is: say so in adapters/redis_backup.py")
            yield from _read(nodes, node, together)


def _pages(nodes: RedisNodes, prefix: str) -> Iterator[tuple[redis.Redis, list[bytes]]]:
    for node in nodes.primaries():
        for pattern in STATE_PATTERNS:
            cursor = 0
            while True:
                with nodes.calling("walking state"):
                    found: Any = node.scan(cursor, match=glob(prefix) + pattern, count=_SCAN_KEYS)
                cursor, keys = found
                if keys:
                    yield node, keys
                if cursor == 0:
                    break


def _read(nodes: RedisNodes, node: redis.Redis, keys: Sequence[bytes]) -> Iterator[Kept]:
    """Keys that lie together, in one transaction; those that do not exist are left out."""
    with nodes.calling("copying state"):
        pipe = node.pipeline(transaction=True)
        for key in keys:
            pipe.dump(key)
            pipe.pttl(key)
        answers = pipe.execute()
    for place, key in enumerate(keys):
        packed, left = answers[2 * place : 2 * place + 2]
        if packed is not None:
            yield Kept(key, max(0, left), packed)


def _put(nodes: RedisNodes, all_kept: Sequence[Kept]) -> int:
    with nodes.calling("restoring state"):
        for node, positions in nodes.by_node([kept.key.decode() for kept in all_kept]):
            pipe = node.pipeline(transaction=False)
            for position in positions:
                kept = all_kept[position]
                pipe.restore(kept.key, kept.ttl_ms, kept.packed, replace=True)
            try:
                pipe.execute()
            except redis.ResponseError as error:
                if "payload version" in str(error):
                    raise Halt(f"this Redis is older than the one of the backup: {error}") from error
                raise
    return len(all_kept)
