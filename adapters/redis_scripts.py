"""A Lua script that works on many units (items, shoppers) in one call, on one Redis or on a cluster.

The script's contract: KEYS are those of the units in a row, ARGV[1] is MessagePack [settings..., [unit,
...]], and it answers one MessagePack list with an answer per unit. Units may be flat: their values then stand
behind each other in that one list. On a cluster a call holds one unit, for a script may touch the keys of one
slot only; there the calls are pipelined per node.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgpack
import redis
from redis.exceptions import NoScriptError

from adapters.redis_nodes import RedisNodes

#: Units per call: long enough to be cheap, short enough that Redis answers others between two calls.
UNITS_PER_CALL = 64
# Inside the script, because a client may connect to a restarted node between asking and writing.
_ONLY_IN_EPOCH = """
if ARGV[2] ~= '' then
  local id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  if not string.find(ARGV[2], id, 1, true) then
    return redis.error_reply('RESTARTED it may have lost its last seconds')
  end
end
"""


class UnitScript:
    """One script, loaded on each node when it is first needed there. Thread-safe."""

    def __init__(self, nodes: RedisNodes, text: str) -> None:
        self._nodes = nodes
        self._text = text
        self._sha: str | None = None
        self._lock = threading.Lock()

    def run(
        self,
        settings: Sequence[Any],
        keys: Sequence[Sequence[str]],
        units: Sequence[Any],
        *,
        raw: bool = False,
        flat: bool = False,
        epoch: str | None = None,
    ) -> list[Any]:
        """An answer per unit, in their order; text as bytes if `raw`. Raises what redis-py raises.

        With an `epoch` (run ids of all nodes) a node that is not in it does nothing and answers RESTARTED.
        """
        answers: list[Any] = [None] * len(units)
        per_call = 1 if self._nodes.clustered else UNITS_PER_CALL
        for node, positions in self._nodes.by_node([of_unit[0] for of_unit in keys]):
            chunks = [positions[start : start + per_call] for start in range(0, len(positions), per_call)]
            calls = []
            for chunk in chunks:
                asked = [units[position] for position in chunk]
                values = list(chain.from_iterable(asked)) if flat else asked
                # Redis' MessagePack is older than the type `bin`.
                argument = msgpack.packb([*settings, values], use_bin_type=False)
                calls.append(([key for position in chunk for key in keys[position]], argument))
            for chunk, answer in zip(chunks, self._called(node, calls, epoch), strict=True):
                for position, one in zip(chunk, msgpack.unpackb(answer, raw=raw), strict=True):
                    answers[position] = one
        return answers

    def _called(
        self, node: redis.Redis, calls: Sequence[tuple[list[str], bytes]], epoch: str | None
    ) -> list[bytes]:
        if self._sha is None:
            self._load(node)
        try:
            return self._pipelined(node, calls, epoch)
        except NoScriptError:  # a node that has not seen it, or was restarted
            self._load(node)
            return self._pipelined(node, calls, epoch)

    def _load(self, node: redis.Redis) -> None:
        with self._lock:
            self._sha = str(node.script_load(_ONLY_IN_EPOCH + self._text))

    def _pipelined(
        self, node: redis.Redis, calls: Sequence[tuple[list[str], bytes]], epoch: str | None
    ) -> list[bytes]:
        pipe = node.pipeline(transaction=False)
        for keys, argument in calls:
            pipe.evalsha(str(self._sha), len(keys), *keys, argument, epoch or "")
        found: list[bytes] = pipe.execute()
        return found
