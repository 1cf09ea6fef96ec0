"""What the miner of relations found, item by item: a run appears whole or not at all.

Reads, writes  `{namespace}relations:live` (which run), `{namespace}relations:{run}:{item}`, both JSON
Never          decides what is related; keeps a run that nobody renews

It belongs to no generation of the item state: it is mined from the archive again whenever that is wanted.
A run writes its keys, then the pointer, then removes the runs before; what a kill leaves goes by itself.
Names of runs grow. Of two at once the later one stays: the other neither moves its pointer nor its keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from adapters.redis_client import glob
from adapters.redis_nodes import RedisNodes
from schemas.relations import Known, Mined, Run

_BATCH = 1_000
# KEYS: pointer. ARGV: 1 name of the run, 2 the run, 3 seconds. Answers 1, or 0 where a later run is read.
_POINT = """
local standing = redis.call('GET', KEYS[1])
if standing and cjson.decode(standing).run > ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""


class RelationStore:
    """Implements schemas.relations.RelationReader. Thread-safe; raises Transient when Redis is away."""

    def __init__(self, *, nodes: RedisNodes, namespace: str = "") -> None:
        self._nodes = nodes
        self._prefix = f"{namespace}relations:"

    def of(self, product_id: str) -> Known:
        """See the protocol."""
        run = self.live()
        if run is None:
            return Known(None, None)
        with self._nodes.calling("reading relations"):
            key = self._key(run.run, product_id)
            raw = cast("bytes | None", self._nodes.of(key).get(key))
        return Known(run, None if raw is None else Mined.model_validate_json(raw))

    def of_all(self, product_ids: Sequence[str]) -> tuple[Run | None, Mapping[str, Mined]]:
        """See the protocol. The pointer to the run, then one pipeline per node."""
        run = self.live()
        if run is None or not product_ids:
            return run, {}
        keys = [self._key(run.run, product_id) for product_id in product_ids]
        found: dict[str, Mined] = {}
        with self._nodes.calling("reading relations"):
            for node, positions in self._nodes.by_node(keys):
                pipe = node.pipeline(transaction=False)
                for position in positions:
                    pipe.get(keys[position])
                for position, raw in zip(positions, cast("list[bytes | None]", pipe.execute()), strict=True):
                    if raw is not None:
                        found[product_ids[position]] = Mined.model_validate_json(raw)
        return run, found

    def live(self) -> Run | None:
        """The run that is read now."""
        key = f"{self._prefix}live"
        with self._nodes.calling("reading relations"):
            raw = cast("bytes | None", self._nodes.of(key).get(key))
        return None if raw is None else Run.model_validate_json(raw)

    def put(self, run: Run, mined: Mapping[str, Mined], *, keep_seconds: int) -> bool:
        """Write a run and make it the one that is read; False, and nothing stays, where a later one is."""
        with self._nodes.calling("writing relations"):
            for chunk in _chunks(mined):
                keys = [self._key(run.run, product_id) for product_id in chunk]
                values = [mined[product_id].model_dump_json(exclude_none=True) for product_id in chunk]
                for node, positions in self._nodes.by_node(keys):
                    pipe = node.pipeline(transaction=False)
                    for position in positions:
                        pipe.set(keys[position], values[position], ex=keep_seconds)
                    pipe.execute()
            key = f"{self._prefix}live"
            # EVAL and not EVALSHA: once a run.
            node = self._nodes.of(key)
            is_read = bool(node.eval(_POINT, 1, key, run.run, run.model_dump_json(), str(keep_seconds)))
            self._drop(lambda name: name < run.run or (name == run.run and not is_read))
        return is_read

    def _drop(self, superfluous: Callable[[str], bool]) -> None:
        """Remove the keys of runs with such a name."""
        for node in self._nodes.primaries():
            found = node.scan_iter(match=glob(self._prefix) + "*:*", count=10_000)
            for key in cast("list[bytes]", list(found)):
                name, _, _ = key[len(self._prefix.encode()) :].partition(b":")
                if superfluous(name.decode()):
                    node.unlink(key)

    def _key(self, run: str, product_id: str) -> str:
        return f"{self._prefix}{run}:{product_id}"


def _chunks(mined: Mapping[str, Mined]) -> list[list[str]]:
    names = list(mined)
    return [names[start : start + _BATCH] for start in range(0, len(names), _BATCH)]
