"""One Redis or a cluster of them, seen as nodes: which node holds a key, and a plain client of each.

redis-py's cluster pipelines refuse scripts, so whoever pipelines scripts groups its keys by node and
pipelines per node. On a single Redis there is one group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import redis
from pydantic import Field
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
)
from redis.retry import Retry

from schemas.errors import Halt, Transient
from schemas.events import Frozen

#: ResponseErrors that mean "not now" rather than "never", by their first word. The client puts the command
#: of a pipeline in front of it, and Redis 6.2 the line of the script.
_NOT_NOW = re.compile(
    r"(?:^|caused error: |@user_script: ?\d+: -?)"
    r"(?:LOADING|MASTERDOWN|MISCONF|NOREPLICAS|TRYAGAIN|CLUSTERDOWN|BUSY|OOM)\b"
)


class RedisSettings(Frozen):
    """Where item state lives. Redis >= 6.2, `maxmemory-policy noeviction`, AOF on.

    `cluster` says that the URL names one node of a Redis Cluster.
    """

    url: str = "redis://127.0.0.1:6379/0"
    cluster: bool = False
    timeout_seconds: float = Field(default=5.0, gt=0)


Client = redis.Redis | RedisCluster


def connect(settings: RedisSettings) -> Client:
    """Open a client that fails fast; waiting and repeating is for the caller, who knows what may be.

    A cluster is asked for its nodes at once: raises Transient when it is away.
    """
    if settings.cluster:
        with translated("asking the cluster for its nodes"):
            return RedisCluster.from_url(
                settings.url,
                socket_timeout=settings.timeout_seconds,
                socket_connect_timeout=settings.timeout_seconds,
                cluster_error_retry_attempts=0,
            )
    return redis.Redis.from_url(
        settings.url,
        socket_timeout=settings.timeout_seconds,
        socket_connect_timeout=settings.timeout_seconds,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn the client's exceptions into Transient (away, loading, full, moved) or Halt (refused for good)."""
    try:
        yield
    except AuthenticationError as error:
        raise Halt(
            f"Redis refused the credentials while {what}: {error}; check SIMSTREAM_REDIS__URL"
        ) from error
    except NoScriptError:
        raise
    except (
        redis.ConnectionError,
        redis.TimeoutError,
        ReadOnlyError,
        OutOfMemoryError,
        ClusterDownError,
        RedisClusterException,
        MovedError,
        AskError,
    ) as error:
        raise Transient(f"Redis is away while {what}: {error}") from error
    except ResponseError as error:
        if _NOT_NOW.search(str(error)):
            raise Transient(f"Redis answered 'not now' while {what}: {error}") from error
        raise


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
        """`translated`; slots that moved and nodes that have gone are looked up anew for the next call."""
        try:
            with translated(what):
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

    def ping(self) -> None:
        """Raises Transient when a node is away."""
        with self.calling("a ping"):
            for node in self.primaries():
                node.ping()
