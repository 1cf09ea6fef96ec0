"""Consumers in a process of their own, run and stopped like a `Runner` of this one.

Reads   settings, from its parent
Writes  what `simstream consume` writes; tells its parent when it has its partitions, and its metrics
Never   outlives its parent, nor goes on with fewer consumers than it was given

The embedded stack runs those consumers this way that parse much: it keeps an interpreter busy, and the writer
of the index in the stack's own process would wait for its lock most of the time.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from adapters.child import calm_collector, ended, parent_connection, start_child
from adapters.process_memory import show_own_memory
from app.observability import configure_logging, start_tracing
from app.runners import state_runner
from app.settings import Settings
from app.wiring import open_publisher
from consumers.runner import Runner
from schemas.errors import Halt

STOP_SECONDS = 30.0
METRICS_SECONDS = 2.0


class ConsumersProcess:
    """Consumers of one child, by name (app.runners.state_runner). `run` blocks until it has ended."""

    def __init__(self, settings: Settings, consumers: Sequence[str]) -> None:
        self._settings = settings
        self._consumers = list(consumers)
        ours, self._theirs = socket.socketpair()
        self._connection = Connection(ours.detach())
        self._sending = threading.Lock()
        self._stopping = False
        self._metrics: SimpleQueue[str] = SimpleQueue()
        self._asking = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        #: Set once every consumer has been given its partitions.
        self.assigned = threading.Event()

    @property
    def pid(self) -> int | None:
        """The child's process id, once it has started."""
        return None if self._process is None else self._process.pid

    def run(self) -> None:
        """Run it until `stop`. Raises Halt, with its own sentence, when it ends by itself."""
        process = self._process = start_child(__name__, self._theirs)
        reason = None
        try:
            self._send((self._settings, self._consumers))
            while True:
                kind, content = self._connection.recv()
                if kind == "assigned":
                    self.assigned.set()
                elif kind == "metrics":
                    self._metrics.put(content)
                else:
                    reason = content
        except (EOFError, OSError):
            pass
        code = ended(process, STOP_SECONDS)
        self._connection.close()
        if not self._stopping:
            raise Halt(
                f"the process of {' and '.join(self._consumers)} has ended: {reason or f'exit code {code}'}"
            )

    def stop(self) -> None:
        """Ask it to end after the work in hand; `run` returns when it has."""
        self._stopping = True
        self._send("stop")

    def metrics(self) -> str:
        """Its metrics in Prometheus' text format; empty when it does not answer."""
        with self._asking:
            while not self._metrics.empty():
                self._metrics.get()  # an answer that came too late for whoever asked
            self._send("metrics")
            try:
                return self._metrics.get(timeout=METRICS_SECONDS)
            except Empty:
                return ""

    def _send(self, message: Any) -> None:
        try:
            with self._sending:
                self._connection.send(message)
        except OSError:
            pass  # it has ended, and `run` says so


class Together(Collector):
    """The metrics of this process and of others: equal samples are added up."""

    def __init__(self, others: Sequence[Callable[[], str]]) -> None:
        self._others = others

    def collect(self) -> Iterable[Metric]:
        """Families of this process, then those that only others have."""
        families = {family.name: family for family in REGISTRY.collect()}
        for other in self._others:
            for family in text_string_to_metric_families(other()):
                # What describes a process is no sum; its time of creation is no figure of the stack.
                if not family.name.startswith("simstream_") or family.name.endswith("_created"):
                    continue
                ours = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                ours.samples = _added(ours.samples, family.samples)
        return families.values()


def _added(ours: Sequence[Sample], theirs: Sequence[Sample]) -> list[Sample]:
    found = {(sample.name, tuple(sorted(sample.labels.items()))): sample for sample in ours}
    for sample in theirs:
        key = (sample.name, tuple(sorted(sample.labels.items())))
        standing = found.get(key)
        value = sample.value + (standing.value if standing is not None else 0.0)
        found[key] = sample._replace(value=value)
    return list(found.values())


def registry_of(others: Sequence[Callable[[], str]]) -> CollectorRegistry:
    """A registry that shows `Together`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Together(others))
    return registry


# --- the child ---------------------------------------------------------------------------------------


def serve(connection: Connection) -> int:
    """Consume until the parent says stop; its exit code."""
    telling = threading.Lock()

    def tell(kind: str, content: object = None) -> None:
        with telling:
            connection.send((kind, content))

    calm_collector()
    settings, consumers = connection.recv()
    configure_logging(settings.log)
    show_own_memory(" and ".join(consumers))
    start_tracing(settings.tracing, process=" and ".join(consumers))
    with ExitStack() as opened:
        runners = {name: _opened(opened, name, settings) for name in consumers}

        def stop() -> None:
            for runner in runners.values():
                runner.stop()

        def listen() -> None:
            try:
                while (message := connection.recv()) != "stop":
                    tell("metrics", generate_latest(REGISTRY).decode()) if message == "metrics" else None
            except (EOFError, OSError):
                os._exit(1)  # the parent was killed: what is uncommitted is read again
            stop()

        def announce() -> None:
            for runner in runners.values():
                runner.assigned.wait()
            tell("assigned")

        for work in (listen, announce):
            threading.Thread(target=work, daemon=True).start()
        failure = _run_together(runners, stop)
        if failure is not None:
            tell("failed", failure)
            return 1
    return 0


def _opened(opened: ExitStack, name: str, settings: Settings) -> Runner[Any]:
    publisher = open_publisher(settings, name)
    opened.callback(publisher.close)
    return state_runner(name, settings, publisher=publisher)


def _run_together(runners: Mapping[str, Runner[Any]], stop: Callable[[], None]) -> str | None:
    """Run all until one ends, then stop the others; why the first one failed, if one did."""
    ended: SimpleQueue[str | None] = SimpleQueue()

    def run(name: str, runner: Runner[Any]) -> None:
        try:
            runner.run()
            ended.put(None)
        except BaseException as error:  # noqa: BLE001  the parent says it to whoever started the stack
            ended.put(f"{name}: {error!s}" if str(error) else f"{name}: {error!r}")

    for name, runner in runners.items():
        threading.Thread(target=run, args=(name, runner), name=name, daemon=True).start()
    failures = []
    for _ in runners:
        failures.append(ended.get())
        stop()
    return next((failure for failure in failures if failure is not None), None)


if __name__ == "__main__":
    sys.exit(serve(parent_connection()))
