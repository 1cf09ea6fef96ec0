"""Ids of items by the keys that Redis holds of them, node by node.

Reads   keys, with SCAN: not a snapshot, and an id may come twice
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from adapters.redis_client import glob, untagged
from adapters.redis_nodes import RedisNodes


def item_ids(nodes: RedisNodes, prefix: str, part: str, *, batch: int = 1_000) -> Iterator[list[str]]:
    """Ids of all items that have a key `{prefix}item:{id}:{part}`, in pages. Raises Transient."""
    before, after = f"{prefix}item:{{", f"}}:{part}"
    pattern = f"{glob(prefix)}item:*:{part}"
    for node in nodes.primaries():
        cursor = 0
        while True:
            with nodes.calling(f"walking items' {part}"):
                cursor, keys = cast("tuple[int, list[bytes]]", node.scan(cursor, match=pattern, count=batch))
            if keys:
                yield [untagged(key.decode()[len(before) : -len(after)]) for key in keys]
            if cursor == 0:
                break
