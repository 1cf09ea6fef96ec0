"""Which items are known to have a price out of line: what was last published of each.

Reads, writes  `{namespace}insights:prices`: a hash, one field per item that is an outlier
Never          decides what is one

It belongs to no generation of the item state: a rebuild changes nothing of what was published.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from adapters.redis_nodes import RedisNodes


class PriceMarks:
    """Marks of items. Thread-safe; raises Transient when Redis is away."""

    def __init__(self, *, nodes: RedisNodes, namespace: str = "") -> None:
        self._nodes = nodes
        self._key = f"{namespace}insights:prices"

    def outliers(self, product_ids: Sequence[str]) -> set[str]:
        """Those of the items that were last published as outliers."""
        if not product_ids:
            return set()
        with self._nodes.calling("reading marks of prices"):
            found = cast("list[bytes | None]", self._nodes.of(self._key).hmget(self._key, list(product_ids)))
        return {one for one, mark in zip(product_ids, found, strict=True) if mark is not None}

    def mark(self, product_id: str, *, outlier: bool) -> None:
        """Remember what was published."""
        with self._nodes.calling("marking a price"):
            node = self._nodes.of(self._key)
            if outlier:
                node.hset(self._key, product_id, "1")
            else:
                node.hdel(self._key, product_id)

    def run_id(self) -> str:
        """Names the incarnation of the node that holds the marks."""
        return self._nodes.run_id()
