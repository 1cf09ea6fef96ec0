"""Which generation of state is the live one. A rebuild makes another beside it, and then moves one pointer.

Reads, writes  `{namespace}state:generation` (the live one), `{namespace}state:made` (the highest number)
Never          touches state, but to drop a generation that is not the live one

Keys of the first generation have the namespace in front and nothing else, as they had before there were
generations; those of a later one `{namespace}g2:`, `{namespace}g3:` and so on. Without a pointer the first
is live.
"""

from __future__ import annotations

from typing import Any, cast

from adapters.redis_client import glob
from adapters.redis_nodes import RedisNodes
from schemas.errors import Halt

FIRST = 1
#: Patterns of the keys that belong to one generation, each behind its prefix.
STATE_PATTERNS = ("item:*", "shopper:*", "trend:*", "{dirty-*", "behaviour:*")
_SCAN_KEYS = 1_000


def state_prefix(namespace: str, generation: int) -> str:
    """What stands in front of every key of a generation."""
    return namespace if generation == FIRST else f"{namespace}g{generation}:"


def group_suffix(generation: int) -> str:
    """What ends the name of a group that writes a generation: each reads the topics for itself."""
    return "" if generation == FIRST else f"-g{generation}"


class Generations:
    """The pointer, and numbers for new generations. Thread-safe; raises Transient when Redis is away."""

    def __init__(self, *, nodes: RedisNodes, namespace: str = "") -> None:
        self._nodes = nodes
        self._namespace = namespace
        self._live_key = f"{namespace}state:generation"
        self._made_key = f"{namespace}state:made"

    def live(self) -> int:
        """The generation that is read, and that consumers write."""
        with self._nodes.calling("asking for the live state"):
            found = cast("bytes | None", self._nodes.of(self._live_key).get(self._live_key))
        return FIRST if found is None else int(found)

    def make(self) -> int:
        """A number that no generation has had, as long as Redis remembers."""
        live = self.live()
        with self._nodes.calling("numbering a new state"):
            node = self._nodes.of(self._made_key)
            node.set(self._made_key, live, nx=True)
            return int(node.incr(self._made_key))

    def take_over(self, generation: int) -> None:
        """From now on this one is live. Consumers of the one before stop when they next ask (`standing`)."""
        with self._nodes.calling("making a state live"):
            self._nodes.of(self._live_key).set(self._live_key, generation)

    def standing(self, generation: int) -> None:
        """Raises Halt when another generation has taken over from this one."""
        live = self.live()
        if live != generation:
            raise Halt(
                f"generation {live} of the state has taken over from generation {generation}, which this "
                "process works on (`simstream rebuild --from-log`): start it again, and it goes on where the "
                "rebuild has left off"
            )

    def retired(self) -> list[int]:
        """Every generation that is not the live one, those of unfinished rebuilds as well."""
        live = self.live()
        with self._nodes.calling("asking for states"):
            made = cast("bytes | None", self._nodes.of(self._made_key).get(self._made_key))
        return [number for number in range(FIRST, max(live, int(made or 0)) + 1) if number != live]

    def drop(self, generation: int) -> int:
        """Remove every key of a generation; how many. Raises Halt for the live one."""
        if generation == self.live():
            raise Halt(f"generation {generation} of the state is the live one: it is not removed")
        prefix = state_prefix(self._namespace, generation)
        removed = 0
        for node in self._nodes.primaries():
            for pattern in STATE_PATTERNS:
                cursor = 0
                while True:
                    with self._nodes.calling("removing a retired state"):
                        found: Any = node.scan(cursor, match=glob(prefix) + pattern, count=_SCAN_KEYS)
                        cursor, keys = found
                        if keys:
                            pipe = node.pipeline(transaction=False)
                            for key in keys:
                                pipe.unlink(key)
                            removed += sum(pipe.execute())
                    if cursor == 0:
                        break
        return removed
