"""State in Redis as a file: every key of one generation as Redis itself packs it, and back.

Reads, writes  keys of the state, the numbers of generations, reports; one gzip file of MessagePack records
Never          a snapshot: keys are read one after another while consumers write. Those of one item are read
               in one transaction, and whoever restores reads the topics again from before the backup began.
               Nor does it set back what no topic tells: a number that was given out, a person's decision
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
# KEYS: a number. ARGV: a lower or higher one as DUMP packs it. The higher stays.
_KEEP_HIGHER = """
local standing = redis.call('GET', KEYS[1])
redis.call('RESTORE', KEYS[1], 0, ARGV[1], 'REPLACE')
if standing and tonumber(standing) > tonumber(redis.call('GET', KEYS[1])) then
  redis.call('SET', KEYS[1], standing)
end
"""
# KEYS: a hash. ARGV: an earlier one as DUMP packs it. Fields that stand are newer, and stay.
_KEEP_FIELDS = """
local standing = redis.call('HGETALL', KEYS[1])
redis.call('RESTORE', KEYS[1], 0, ARGV[1], 'REPLACE')
for place = 1, #standing, 2 do redis.call('HSET', KEYS[1], standing[place], standing[place + 1]) end
"""
#: Keys of no generation, and how each is put back: the highest number that was given out, and what people
#: reported and decided. All others come back by themselves or by a command (docs/operations.md). Records of
#: releases are not kept: the alias says what is live, and old ones could name collections that have gone.
_COMMON: Mapping[str, str] = {"state:made": _KEEP_HIGHER, "reports": _KEEP_FIELDS}
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


def restore_backup(nodes: RedisNodes, file: Path, *, namespace: str, page: int = 500) -> int:
    """Put every key of the file back in place of what stands there; how many. Raises Transient, Halt.

    What belongs to no generation is joined with what stands: numbers stay given out, decisions stay taken.
    """
    common = {(namespace + name).encode(): script for name, script in _COMMON.items()}
    waiting: list[Kept] = []
    count = 0
    for kept in read_backup(file):
        if kept.key in common:
            _join(nodes, kept, common[kept.key])
            count += 1
            continue
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
    with _restoring(nodes):
        for node, positions in nodes.by_node([kept.key.decode() for kept in all_kept]):
            pipe = node.pipeline(transaction=False)
            for position in positions:
                kept = all_kept[position]
                pipe.restore(kept.key, kept.ttl_ms, kept.packed, replace=True)
            pipe.execute()
    return len(all_kept)


def _join(nodes: RedisNodes, kept: Kept, script: str) -> None:
    with _restoring(nodes):
        nodes.of(kept.key.decode()).eval(script, 1, cast(str, kept.key), cast(str, kept.packed))


@contextmanager
def _restoring(nodes: RedisNodes) -> Iterator[None]:
    with nodes.calling("restoring state"):
        try:
            yield
        except redis.ResponseError as error:
            if "payload version" in str(error):
                raise Halt(f"this Redis is older than the one of the backup: {error}") from error
            raise
