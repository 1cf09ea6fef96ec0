"""The Redis client as the house uses it: how it is opened, what its errors mean, how item keys are named.

Reads, writes  nothing by itself: the stores of item state each write their own keys
Never          repeats a command: waiting and repeating is for the caller, who knows what may be
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

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
    r"(?:LOADING|MASTERDOWN|MISCONF|READONLY|NOREPLICAS|TRYAGAIN|CLUSTERDOWN|BUSY|OOM|RESTARTED)\b"
)


class RedisSettings(Frozen):
    """Where item state lives. Redis >= 6.2, `maxmemory-policy noeviction`, AOF on.

    `cluster` says that the URL names one node of a Redis Cluster.
    """

    url: str = "redis://127.0.0.1:6379/0"
    cluster: bool = False
    timeout_seconds: float = Field(default=5.0, gt=0)


class Outcome(StrEnum):
    """How a write compared with what stood there. Newer and equal are announced, older is silent."""

    NEWER = "newer"
    EQUAL = "equal"
    OLDER = "older"


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
                retry=Retry(NoBackoff(), 0),
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
    """Turn the client's exceptions into Transient (away, loading, full) or Halt (refused for good)."""
    try:
        yield
    except (AuthenticationError, RedisClusterException) as error:
        # A cluster's client wraps what its nodes have said.
        if not isinstance(error, AuthenticationError) and not isinstance(
            error.__cause__, AuthenticationError
        ):
            raise Transient(f"Redis is away while {what}: {error}") from error
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
        MovedError,
        AskError,
    ) as error:
        raise Transient(f"Redis is away while {what}: {error}") from error
    except ResponseError as error:
        if _NOT_NOW.search(str(error)):
            raise Transient(f"Redis answered 'not now' while {what}: {error}") from error
        raise


def run_id(client: redis.Redis) -> str:
    """Names this incarnation of the Redis process; a new one may have lost its last seconds."""
    with translated("asking for its run id"):
        info = client.info("server")
    return str(info["run_id"])


class Scripts:
    """The Lua scripts of one store, each loaded when it is first called. Thread-safe, as the client is."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._loaded: dict[str, str] = {}

    def sha(self, script: str) -> str:
        """What EVALSHA calls the script."""
        found = self._loaded.get(script)
        if found is None:
            found = self._loaded[script] = str(self._client.script_load(script))
        return found

    def run(self, call: Callable[..., Any], *args: Any) -> Any:
        """`call(*args)`; if Redis was restarted and forgot our scripts, load them again and repeat once."""
        try:
            return call(*args)
        except NoScriptError:
            self._loaded.clear()
            return call(*args)


def item_key(namespace: str, product_id: str, what: str) -> str:
    """A key of an item. `{id}` is its hash tag: on Redis Cluster all keys of an item lie on one node.

    Braces would end the tag early, so they are escaped.
    """
    tag = product_id.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
    return f"{namespace}item:{{{tag}}}:{what}"


def glob(text: str) -> str:
    """Text as a SCAN pattern that matches itself."""
    return "".join(f"\\{char}" if char in "*?[]\\" else char for char in text)


def untagged(tag: str) -> str:
    """The product id that a hash tag stands for."""
    return tag.replace("%7D", "}").replace("%7B", "{").replace("%25", "%")
