"""The state machine of releases in Redis: records changed by compare-and-set, one holder at a time.

Reads, writes  `{namespace}release:{all}:rollouts`, `...:lease:{name}`, `...:instances`
Never          decides a move, nor says what is live: the alias does

A lease is held for some seconds and renewed. Its token grows with every holder, so a holder that slept is
refused by the first record it tries to change, whatever it believes (a fencing token). Redis may lose its
last second: tokens are at least its clock in microseconds, so none is given out twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from typing import Any, cast

from pydantic import ValidationError

from adapters.redis_client import Client
from adapters.redis_nodes import RedisNodes
from schemas.errors import Halt
from schemas.parsing import explain
from schemas.rollouts import Rollout

ROLLOUT_LEASE = "rollout"
TRAINER_LEASE = "trainer"
#: An instance of the service that has said nothing for so long is gone.
SILENT_SECONDS = 30.0

# KEYS: rollouts, lease. ARGV: 1 collection, 2 record as it is believed to stand ('' for none), 3 new record,
# 4 token ('' where the change needs no lease).
_CHANGE = """
if ARGV[4] ~= '' and redis.call('HGET', KEYS[2], 'token') ~= ARGV[4] then return 'fenced' end
local standing = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if standing ~= ARGV[2] then return 'changed' end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 'done'
"""
# KEYS: lease. ARGV: 1 holder, 2 milliseconds, 3 a token to renew ('' to take). Answers {token, holder}.
_LEASE = """
local now = redis.call('TIME')
local ms = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local held = redis.call('HMGET', KEYS[1], 'token', 'holder', 'until')
if ARGV[3] ~= '' then
  if held[1] ~= ARGV[3] then return {'', held[2] or ''} end
  redis.call('HSET', KEYS[1], 'until', string.format('%.0f', ms + tonumber(ARGV[2])))
  return {held[1], ARGV[1]}
end
if held[1] and held[2] ~= ARGV[1] and held[2] ~= '' and tonumber(held[3]) > ms then return {'', held[2]} end
local token = string.format('%.0f', math.max(tonumber(held[1] or '0') + 1,
                                             tonumber(now[1]) * 1000000 + tonumber(now[2])))
redis.call('HSET', KEYS[1], 'token', token, 'holder', ARGV[1],
  'until', string.format('%.0f', ms + tonumber(ARGV[2])))
return {token, ARGV[1]}
"""
# KEYS: lease. ARGV: 1 token. The token stays, so that it is never given out again.
_LET_GO = """
if redis.call('HGET', KEYS[1], 'token') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'holder', '', 'until', '0')
end
return 1
"""


class Fenced(Exception):
    """Somebody else has taken the lease since: whoever gets this stops what it is doing."""


class Changed(Exception):
    """The record is not what it was believed to be: read it again."""


class RolloutBoard:
    """Records, leases, and which releases each instance of the service has loaded. Thread-safe.

    Every method raises Transient when Redis is away.
    """

    def __init__(self, *, client: Client, namespace: str = "") -> None:
        self._nodes = RedisNodes(client)
        # One hash tag: a script touches several of them, also on a cluster.
        self._prefix = f"{namespace}release:{{all}}:"
        self._rollouts = self._prefix + "rollouts"

    # --- records -------------------------------------------------------------------------------------

    def all(self) -> list[Rollout]:
        """Every record, oldest state first. Raises Halt for one that this version cannot read."""
        with self._nodes.calling("reading rollouts"):
            found: Mapping[bytes, bytes] = self._nodes.of(self._rollouts).hgetall(self._rollouts)  # type: ignore[assignment]
        return sorted((_parsed(body) for body in found.values()), key=lambda one: (one.since, one.collection))

    def get(self, collection: str) -> Rollout | None:
        """The record of a collection, or None."""
        with self._nodes.calling("reading a rollout"):
            body = self._nodes.of(self._rollouts).hget(self._rollouts, collection)
        return None if body is None else _parsed(body)  # type: ignore[arg-type]

    def change(self, before: Rollout | None, after: Rollout, *, token: int | None = None) -> Rollout:
        """Replace a record, or make the first (`before` None), if it still stands as it was read.

        Raises Changed if it does not, Fenced if the token is not the rollout lease's newest. `token` None is
        for what anybody may do: register a candidate, ask for a release.
        """
        keys = [self._rollouts, self._lease_key(ROLLOUT_LEASE)]
        arguments = [
            after.collection,
            "" if before is None else _body(before),
            _body(after),
            "" if token is None else str(token),
        ]
        answer = self._eval(_CHANGE, keys, arguments, "changing a rollout").decode()
        if answer == "fenced":
            raise Fenced("another process has taken over the rollout of releases")
        if answer == "changed":
            raise Changed(f"the record of {after.collection} was changed by somebody else meanwhile")
        return after

    # --- leases --------------------------------------------------------------------------------------

    def take(self, name: str, holder: str, seconds: float) -> int | None:
        """Become the holder; the token, or None while somebody else is. Taking again gives a new token."""
        token, _ = self._eval(_LEASE, [self._lease_key(name)], [holder, _ms(seconds), ""], "taking a lease")
        return int(token) if token else None

    def renew(self, name: str, holder: str, seconds: float, *, token: int) -> bool:
        """Hold on to it; False once somebody else has it."""
        answer, _ = self._eval(
            _LEASE, [self._lease_key(name)], [holder, _ms(seconds), str(token)], "renewing a lease"
        )
        return bool(answer)

    def let_go(self, name: str, *, token: int) -> None:
        """Give it back; no effect if somebody else has it."""
        self._eval(_LET_GO, [self._lease_key(name)], [str(token)], "giving a lease back")

    def holder(self, name: str) -> str | None:
        """Who holds the lease now."""
        key = self._lease_key(name)
        with self._nodes.calling("reading a lease"):
            node = self._nodes.of(key)
            holder, until = cast("list[bytes | None]", node.hmget(key, ["holder", "until"]))
            seconds, micros = node.time()
        if not holder or int(until or 0) <= seconds * 1000 + micros // 1000:
            return None
        return holder.decode()

    # --- instances of the service --------------------------------------------------------------------

    def report(self, instance: str, release_ids: Collection[str], *, now: float | None = None) -> None:
        """This instance can encode with these releases, at this moment (seconds since 1970)."""
        key = self._prefix + "instances"
        body = json.dumps({"at": time.time() if now is None else now, "releases": sorted(release_ids)})
        with self._nodes.calling("reporting what is loaded"):
            self._nodes.of(key).hset(key, instance, body)

    def sign_off(self, instance: str) -> None:
        """This instance ends."""
        key = self._prefix + "instances"
        with self._nodes.calling("signing off"):
            self._nodes.of(key).hdel(key, instance)

    def instances(self, *, now: float | None = None) -> dict[str, frozenset[str]]:
        """The releases of each instance that was heard of lately."""
        key = self._prefix + "instances"
        with self._nodes.calling("reading instances"):
            found: Mapping[bytes, bytes] = self._nodes.of(key).hgetall(key)  # type: ignore[assignment]
        oldest = (time.time() if now is None else now) - SILENT_SECONDS
        said = {name.decode(): json.loads(body) for name, body in found.items()}
        return {name: frozenset(one["releases"]) for name, one in said.items() if one["at"] >= oldest}

    def _lease_key(self, name: str) -> str:
        return f"{self._prefix}lease:{name}"

    def _eval(self, script: str, keys: list[str], arguments: list[str], what: str) -> Any:
        with self._nodes.calling(what):
            # EVAL and not EVALSHA: a few calls a minute, and no script to load again after a restart.
            return self._nodes.of(keys[0]).eval(script, len(keys), *keys, *arguments)


def _ms(seconds: float) -> str:
    return str(int(seconds * 1000))


def _body(rollout: Rollout) -> str:
    return rollout.model_dump_json()


def _parsed(body: bytes) -> Rollout:
    try:
        return Rollout.model_validate_json(body)
    except ValidationError as error:
        raise Halt(
            f"a record of the rollout of releases cannot be read by this version: {explain(error)}"
        ) from None
