"""Which items are known to have a price out of line: what was last published of each.

Reads, writes  `{namespace}insights:prices`: a hash, one field per item that is an outlier ("1"), or of which
               something is being published just now ("?")
Never          decides what is one

It belongs to no generation of the item state: a rebuild changes nothing of what was published.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from adapters.redis_nodes import RedisNodes

_TELLING = b"?"


class PriceMarks:
    """Marks of items. Thread-safe; raises Transient when Redis is away."""

    def __init__(self, *, nodes: RedisNodes, namespace: str = "") -> None:
        self._nodes = nodes
        self._key = f"{namespace}insights:prices"

    def known(self, product_ids: Sequence[str]) -> dict[str, bool | None]:
        """Whether each item was last published as an outlier; None where nobody can say."""
        if not product_ids:
            return {}
        with self._nodes.calling("reading marks of prices"):
            found = cast("list[bytes | None]", self._nodes.of(self._key).hmget(self._key, list(product_ids)))
        return {
            one: None if mark == _TELLING else mark is not None
            for one, mark in zip(product_ids, found, strict=True)
        }

    def telling(self, product_id: str) -> None:
        """Something is about to be published of it: until `mark`, nobody knows what was."""
        with self._nodes.calling("marking a price"):
            self._nodes.of(self._key).hset(self._key, product_id, _TELLING)

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
