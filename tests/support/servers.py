"""Servers that only tests start: Apache Kafka itself, and a Redis Cluster of three nodes.

Kafka is one node, KRaft, from Maven Central, on the Java of the machine.

Reads   SIMSTREAM_CACHE (default ~/.cache/simstream): the folder that keeps Kafka's jars between runs
Writes  the jars there, once; data and logs into the folder each broker is given
Never   is silent about a machine that cannot run it: `require_kafka()` skips with the reason, or fails in CI
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import redis

from app.children import HOST, Child, reserve_port
from app.local import LocalRedis, TansuBroker, answers_kafka
from schemas.errors import Halt

KAFKA_VERSION = "4.3.1"
#: Any 16 bytes in base64; fixed, so that a data folder can be started again.
CLUSTER_ID = "c2ltc3RyZWFtLXRlc3RzMA"
MAVEN_TIMEOUT_SECONDS = 300.0
# slf4j-simple: without a binding Kafka logs nothing, not even why it does not start.
_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>simstream</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""
#: A broker that lives for minutes: the quick compiler, the small collector, a small heap.
_JAVA = [
    "-Xmx512m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Xshare:auto",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
]


def missing() -> str | None:
    """Why Apache Kafka cannot run here, or None when it can."""
    if shutil.which("java") is None:
        return "Apache Kafka needs Java 17 or newer on the PATH (apt-get install default-jre-headless)"
    if shutil.which("mvn") is None and not _jars_present():
        return "Apache Kafka is fetched with Maven, which is not on the PATH (apt-get install maven)"
    return None


def require_kafka() -> None:
    """Skip the test that asks, with the reason, where Apache Kafka cannot run; where CI=true, fail it."""
    reason = missing()
    if reason is None:
        return
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason}; with CI=true this is a failure, not a skip", pytrace=False)
    pytest.skip(reason)


def _cache_folder() -> Path:
    base = os.environ.get("SIMSTREAM_CACHE") or Path.home() / ".cache" / "simstream"
    return Path(base).expanduser() / f"kafka-{KAFKA_VERSION}"


def _jars_present() -> bool:
    return (_cache_folder() / "complete").is_file()


@cache
def kafka_jars() -> Path:
    """The folder of Kafka's jars, fetched once per machine. Raises Halt when Maven cannot fetch them."""
    folder = _cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # sessions that start together fetch once
        if not _jars_present():
            (folder / "pom.xml").write_text(_POM)
            done = subprocess.run(
                ["mvn", "-B", "-q", "dependency:copy-dependencies", f"-DoutputDirectory={folder / 'jars'}"],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=MAVEN_TIMEOUT_SECONDS,
                check=False,
            )
            if done.returncode != 0:
                raise Halt(f"Maven could not fetch Apache Kafka {KAFKA_VERSION}:\n{done.stdout[-2000:]}")
            (folder / "complete").touch()
    return folder / "jars"


class ApacheKafka(Child):
    """Apache Kafka, broker and controller in one process. `overrides` are lines of server.properties."""

    name = "kafka"
    start_timeout_seconds = 60.0
    stop_timeout_seconds = 20.0

    def __init__(self, folder: Path, *, port: int = 0, overrides: dict[str, str] | None = None) -> None:
        super().__init__(folder, port=port)
        self._overrides = overrides or {}
        self._controller: socket.socket | None = None

    @property
    def bootstrap_servers(self) -> str:
        """What Kafka clients connect to."""
        return f"{HOST}:{self.port}"

    def prepare(self) -> None:
        """Write server.properties; format the data folder if it is new."""
        self._controller = self._controller or reserve_port(0, "kafka's controller")
        properties = self.folder / "server.properties"
        lines = self._properties(self._controller.getsockname()[1])
        properties.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        if (self.folder / "data" / "meta.properties").is_file():
            return
        arguments = ["format", "--cluster-id", CLUSTER_ID, "--config", str(properties.resolve())]
        done = subprocess.run(
            self._java("kafka.tools.StorageTool", *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=self.start_timeout_seconds,
            check=False,
        )
        if done.returncode != 0:
            raise Halt(f"Apache Kafka could not format {self.folder / 'data'}:\n{done.stdout[-2000:]}")

    def command(self) -> list[str]:
        return self._java("kafka.Kafka", str((self.folder / "server.properties").resolve()))

    def ready(self) -> bool:
        return answers_kafka(self.bootstrap_servers, CLUSTER_ID)

    def stop(self) -> None:
        super().stop()
        if self._controller is not None:
            self._controller.close()
            self._controller = None

    def _java(self, main: str, *arguments: str) -> list[str]:
        java = shutil.which("java")
        if java is None:
            raise Halt(missing() or "java has gone from the PATH")
        return [java, *_JAVA, "-cp", f"{kafka_jars()}/*", main, *arguments]

    def _properties(self, controller_port: int) -> dict[str, str]:
        controller = f"{HOST}:{controller_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{self.bootstrap_servers},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str((self.folder / "data").resolve()),
            "group.initial.rebalance.delay.ms": "0",
            # After kill -9 the broker may register again only when its session has run out (default 9 s).
            "broker.heartbeat.interval.ms": "300",
            "broker.session.timeout.ms": "1500",
            "num.partitions": "4",
            "auto.create.topics.enable": "false",
            "offsets.topic.num.partitions": "4",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "2",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "log.cleaner.dedupe.buffer.size": str(8 * 1024 * 1024),
            **self._overrides,
        }


SLOTS = 16_384
#: A node's second port, on which nodes speak to each other, is as far from its first.
BUS_PORT_OFFSET = 10_000
NODE_TIMEOUT_MS = 1_000
#: Slots that one command takes on: CLUSTER ADDSLOTSRANGE came with Redis 7.
_SLOTS_PER_COMMAND = 1_024


class RedisNode(LocalRedis):
    """One node of a Redis Cluster; kept apart, it serves nothing."""

    _bus: socket.socket | None = None

    def start(self) -> Self:
        if self._reserved is None:
            self._reserved, self._bus = _two_ports(self.name)
        return super().start()

    def stop(self) -> None:
        super().stop()
        if self._bus is not None:
            self._bus.close()
            self._bus = None

    def command(self) -> list[str]:
        more = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]
        more += ["--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--cluster-announce-ip", HOST]
        return [*super().command(), *more]

    def ask(self, *words: str | int) -> Any:
        """What the node answers to a command."""
        with redis.Redis(host=HOST, port=self.port, socket_timeout=5) as client:
            return client.execute_command(*words)


def _two_ports(name: str) -> tuple[socket.socket, socket.socket]:
    """A free port whose bus port is free as well. Raises Halt when there is none."""
    for _ in range(100):
        first = reserve_port(0, name)
        bus = first.getsockname()[1] + BUS_PORT_OFFSET
        if bus < 1 << 16:
            try:
                return first, reserve_port(bus, f"{name}'s bus")
            except Halt:
                pass  # somebody has it
        first.close()
    raise Halt(f"no two free ports {BUS_PORT_OFFSET} apart for {name}")


class LocalRedisCluster:
    """Three Redis nodes that share the slots, each with an append-only file and without a replica.

    While one of them is away for longer than the node timeout, the others refuse too. A context manager.
    """

    def __init__(self, folder: Path, *, nodes: int = 3) -> None:
        self.nodes = [RedisNode(folder / f"node-{number}") for number in range(nodes)]
        self._open = ExitStack()

    @property
    def url(self) -> str:
        """What a cluster's client connects to first."""
        return self.nodes[0].url

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            for node in self.nodes:
                opening.enter_context(node)
            self._meet()
            self.wait_ready()
            self._open = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def _meet(self) -> None:
        for number, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            slots = range(number * SLOTS // len(self.nodes), (number + 1) * SLOTS // len(self.nodes))
            for start in range(0, len(slots), _SLOTS_PER_COMMAND):
                node.ask("CLUSTER", "ADDSLOTS", *slots[start : start + _SLOTS_PER_COMMAND])
            if number:
                node.ask("CLUSTER", "MEET", HOST, self.nodes[0].port)

    def wait_ready(self, timeout_seconds: float = 30.0) -> None:
        """Wait until every node knows the others and serves its slots. Raises Halt when they do not."""
        deadline = time.monotonic() + timeout_seconds
        while not all(self._serves(node) for node in self.nodes):
            if time.monotonic() > deadline:
                said = [node.ask("CLUSTER", "INFO") for node in self.nodes]
                raise Halt(f"the Redis Cluster did not form within {timeout_seconds:g} s: {said}")
            time.sleep(0.05)

    def _serves(self, node: RedisNode) -> bool:
        said = node.ask("CLUSTER", "INFO").decode().split()
        wanted = {"state": "ok", "slots_ok": SLOTS, "known_nodes": len(self.nodes)}
        return all(f"cluster_{name}:{value}" in said for name, value in wanted.items())


@dataclass(frozen=True, slots=True)
class RunningKafka:
    """A Kafka that somebody else runs: SIMSTREAM_KAFKA__BOOTSTRAP_SERVERS names it."""

    bootstrap_servers: str


@dataclass(frozen=True, slots=True)
class RunningRedis:
    """A Redis that somebody else runs: SIMSTREAM_REDIS__URL names it."""

    url: str


#: What the fixtures hand out. They are shared, so a test uses the address and nothing else.
Kafka = ApacheKafka | RunningKafka
Broker = TansuBroker | Kafka
Redis = LocalRedis | RunningRedis
