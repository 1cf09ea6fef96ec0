"""Which items an erasure is about, from before anything goes until the index has heard of them.

Reads, writes  `{namespace}erasures:{name}:{dimension}`: a set of item ids; named as on user.erasures
Never          outlives the erasure: `done` removes it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from adapters.redis_nodes import RedisNodes


class ErasedItems:
    """Items of one erasure, by the dimension that it changes. Raises Transient when Redis is away."""

    def __init__(self, *, nodes: RedisNodes, name: str, namespace: str = "") -> None:
        self._nodes = nodes
        self._prefix = f"{namespace}erasures:{name}:"

    def add(self, dimension: str, product_ids: Sequence[str]) -> None:
        """Something of these items is about to go."""
        if product_ids:
            key = self._prefix + dimension
            with self._nodes.calling("putting down which items an erasure is about"):
                self._nodes.of(key).sadd(key, *product_ids)

    def of(self, dimension: str) -> set[str]:
        """All that were put down, by an earlier call of the same erasure as well."""
        key = self._prefix + dimension
        with self._nodes.calling("asking which items an erasure is about"):
            return {one.decode() for one in cast("set[bytes]", self._nodes.of(key).smembers(key))}

    def done(self, dimension: str) -> None:
        """The index has heard of them."""
        key = self._prefix + dimension
        with self._nodes.calling("ending an erasure"):
            self._nodes.of(key).delete(key)
