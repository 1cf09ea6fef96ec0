"""Who reads user.erasures, and how far each of them has drawn the consequences.

Reads, writes  `{namespace}erasures:readers`: a hash, one field per reading process
Never          names a shopper: readers and offsets only
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import orjson

from adapters.redis_nodes import RedisNodes

#: Longer than a session of Kafka's: a process that has said nothing for so long owns no partition any more.
GONE_AFTER_SECONDS = 60.0


class ErasureReaders:
    """The readers and their offsets. Thread-safe; raises Transient when Redis is away."""

    def __init__(self, *, nodes: RedisNodes, namespace: str = "") -> None:
        self._nodes = nodes
        self._key = f"{namespace}erasures:readers"

    def report(self, reader: str, reached: Mapping[int, int]) -> None:
        """This reader lives, and nothing older than `reached` (partition: next offset) is in its hands."""
        with self._nodes.calling("reporting a reader of erasures"):
            node = self._nodes.of(self._key)
            body = {"at": self._now(node), "next": {str(one): offset for one, offset in reached.items()}}
            node.hset(self._key, reader, cast(Any, orjson.dumps(body)))

    def leave(self, reader: str) -> None:
        """This reader has ended in order."""
        with self._nodes.calling("taking leave as a reader of erasures"):
            self._nodes.of(self._key).hdel(self._key, reader)

    def standing(self) -> dict[str, dict[int, int]]:
        """Every reader that has reported lately, and its next offset by partition; those gone are removed."""
        with self._nodes.calling("asking for readers of erasures"):
            node = self._nodes.of(self._key)
            now, found = self._now(node), cast("dict[bytes, bytes]", node.hgetall(self._key))
            alive = {}
            for name, raw in found.items():
                body = orjson.loads(raw)
                if now - body["at"] > GONE_AFTER_SECONDS:
                    node.hdel(self._key, cast(str, name))
                else:
                    alive[name.decode()] = {int(one): int(offset) for one, offset in body["next"].items()}
        return alive

    @staticmethod
    def _now(node: Any) -> float:
        """Redis' clock, in seconds: readers are on several machines."""
        seconds, micros = node.time()
        return float(seconds + micros / 1e6)
