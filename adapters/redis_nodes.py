"""One Redis or a cluster of them, seen as nodes: which node holds a key, and a plain client of each.

redis-py's cluster pipelines refuse scripts, so whoever pipelines scripts groups its keys by node and
pipelines per node. On a single Redis there is one group.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import redis
from redis.cluster import RedisCluster

from adapters.metrics import REDIS_SECONDS
from adapters.redis_client import Client, translated
from schemas.errors import Halt, Transient


class Vitals(NamedTuple):
    """How a node is. `ahead_seconds`: its clock minus ours, `within_seconds` at most wrong.

    `fsync` is None where nobody may ask; `cluster_ok` where there is no cluster.
    """

    name: str
    version: str
    policy: str
    used_bytes: int
    allowed_bytes: int
    keeps_log: bool
    log_written: bool
    fsync: str | None
    ahead_seconds: float
    within_seconds: float
    cluster_ok: bool | None


class RedisNodes:
    """The nodes behind a client. Thread-safe, as redis-py's clients are."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def clustered(self) -> bool:
        """Whether keys are spread over slots, so that a script may touch those of one tag only."""
        return isinstance(self._client, RedisCluster)

    @contextmanager
    def calling(self, what: str) -> Iterator[None]:
        """`translated`, and timed; slots that moved and nodes that have gone are looked up for the next."""
        try:
            with translated(what), REDIS_SECONDS.labels(call=what).time():
                yield
        except Transient:
            if isinstance(self._client, RedisCluster):
                try:
                    self._client.nodes_manager.initialize()
                except (redis.RedisError, OSError):
                    pass  # the cluster is away as a whole: the next call says so
            raise

    def of(self, key: str) -> redis.Redis:
        """The node that holds a key."""
        if isinstance(self._client, RedisCluster):
            node = self._client.get_node_from_key(key)  # type: ignore[no-untyped-call]
            if node is None:
                raise redis.ConnectionError(f"no node of the cluster serves the slot of {key!r}")
            return self._client.get_redis_connection(node)
        return self._client

    def by_node(self, keys: Sequence[str]) -> list[tuple[redis.Redis, list[int]]]:
        """The positions of `keys`, grouped by the node that holds each."""
        if not isinstance(self._client, RedisCluster):
            return [(self._client, list(range(len(keys))))] if keys else []
        groups: dict[int, tuple[redis.Redis, list[int]]] = {}
        for position, key in enumerate(keys):
            node = self.of(key)
            groups.setdefault(id(node), (node, []))[1].append(position)
        return list(groups.values())

    def primaries(self) -> list[redis.Redis]:
        """A client of every node that owns keys."""
        if isinstance(self._client, RedisCluster):
            nodes = self._client.get_primaries()  # type: ignore[no-untyped-call]
            return [self._client.get_redis_connection(node) for node in nodes]
        return [self._client]

    def run_id(self) -> str:
        """Names this incarnation of all nodes; a new one may have lost its last seconds."""
        with self.calling("asking for its run id"):
            return " ".join(sorted(str(node.info("server")["run_id"]) for node in self.primaries()))

    def vitals(self) -> list[Vitals]:
        """What each node says of itself. Raises Halt where this user may not ask."""
        found = []
        with self.calling("asking how it is"):
            for node in self.primaries():
                try:
                    found.append(_vitals(node, clustered=self.clustered))
                except redis.exceptions.NoPermissionError as error:
                    raise Halt(f"Redis does not say how it is: {error}; grant INFO and TIME") from error
        return found

    def rewrite_logs(self, *, timeout_seconds: float) -> bool:
        """Have each node write its append-only file anew, from what it holds; False if none keeps one.

        Returns once it is done: what was removed from memory before is then in no file of Redis. Raises
        Transient when it takes longer.
        """
        kept, deadline = False, time.monotonic() + timeout_seconds
        with self.calling("rewriting the append-only file"):
            for node in self.primaries():
                if not node.info("persistence")["aof_enabled"]:
                    continue
                kept = True
                _settled(node, deadline)  # one that began earlier may hold what was there then
                node.bgrewriteaof()
                _settled(node, deadline)
                status = node.info("persistence")["aof_last_bgrewrite_status"]
                if status != "ok":
                    raise Transient(f"Redis did not rewrite its append-only file: {status}")
        return kept

    def ping(self) -> None:
        """Raises Transient when a node is away."""
        with self.calling("a ping"):
            for node in self.primaries():
                node.ping()


def _vitals(node: redis.Redis, *, clustered: bool) -> Vitals:
    info, place = node.info("all"), node.connection_pool.connection_kwargs
    asked = time.time()
    seconds, micros = node.time()
    answered = time.time()
    try:
        fsync = node.config_get("appendfsync").get("appendfsync")
    except redis.ResponseError:
        fsync = None  # renamed, or not allowed to this user
    cluster = node.execute_command("CLUSTER", "INFO") if clustered else None  # type: ignore[no-untyped-call]
    return Vitals(
        name=f"{place.get('host', 'localhost')}:{place.get('port', '')}",
        version=str(info["redis_version"]),
        policy=str(info["maxmemory_policy"]),
        used_bytes=int(info["used_memory"]),
        allowed_bytes=int(info["maxmemory"] or info["total_system_memory"]),
        keeps_log=bool(info["aof_enabled"]),
        log_written=all(
            info.get(name, "ok") == "ok" for name in ("aof_last_write_status", "aof_last_bgrewrite_status")
        ),
        fsync=fsync,
        ahead_seconds=seconds + micros / 1e6 - (asked + answered) / 2,
        within_seconds=(answered - asked) / 2,
        cluster_ok=None if cluster is None else "cluster_state:ok" in _text(cluster),
    )


def _text(answer: object) -> str:
    return answer.decode() if isinstance(answer, bytes) else str(answer)


def _settled(node: redis.Redis, deadline: float) -> None:
    """Wait until no rewrite of the append-only file is under way or scheduled."""
    while True:
        found = node.info("persistence")
        if not found["aof_rewrite_in_progress"] and not found["aof_rewrite_scheduled"]:
            return
        if time.monotonic() > deadline:
            raise Transient("Redis is still rewriting its append-only file")
        time.sleep(0.05)
