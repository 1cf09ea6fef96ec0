"""The embedded stack as a benchmark sees it: the command `simstream up --embedded`, in a process of its own.

Reads   `stack.json`, items.updated
Writes  a folder that goes away
Never   shares an interpreter with what it measures
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from adapters.kafka import KafkaSettings, Publisher
from adapters.kafka_log import Tail
from schemas.events import ItemUpdated, ProductEvent
from schemas.parsing import parse_event
from schemas.topics import BULK_LANE, LANE_HEADER

PRODUCTS, UPDATED = "catalog.products", "items.updated"
BULK = ((LANE_HEADER, BULK_LANE.encode()),)


@dataclass(frozen=True, slots=True)
class RunningStack:
    """Addresses of the stack, its folder, and the process."""

    kafka: str
    redis: str
    http: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def settings(self) -> KafkaSettings:
        """How to reach its broker."""
        return KafkaSettings(bootstrap_servers=self.kafka)

    def resident_bytes(self) -> int:
        """Memory of the stack's own process, without its children."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def embedded_stack(
    *, environment: dict[str, str] | None = None, ready_seconds: float = 120.0
) -> Iterator[RunningStack]:
    """Start it, wait until it is ready, stop it in order."""
    with tempfile.TemporaryDirectory(prefix="simstream-bench-") as scratch:
        folder = Path(scratch)
        with (folder / "stack.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "app.cli",
                    "up",
                    "--embedded",
                    "--data-dir",
                    str(folder),
                    "--port",
                    "0",
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "SIMSTREAM_LOG__LEVEL": "WARNING", **(environment or {})},
            )
        try:
            found = _wait_ready(process, folder, ready_seconds)
            yield RunningStack(found["kafka"], found["redis"], found["http"], folder, process)
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End it in order; its index folder is free afterwards. Again is harmless."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(process: subprocess.Popen[bytes], folder: Path, seconds: float) -> dict[str, str]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the stack did not start:\n{_tail(folder)}")
        if (folder / "stack.json").exists():
            addresses: dict[str, str] = json.loads((folder / "stack.json").read_text())
            return addresses
        time.sleep(0.05)
    raise RuntimeError(f"the stack was not ready after {seconds:.0f} s:\n{_tail(folder)}")


def _tail(folder: Path) -> str:
    return "\n".join((folder / "stack.log").read_text(errors="replace").splitlines()[-15:])


def publish(
    publisher: Publisher,
    events: Iterable[ProductEvent],
    *,
    headers: tuple[tuple[str, bytes], ...] = (),
    stamp: bool = True,
) -> int:
    """Put product events on the topic and wait for the broker; how many. `stamp` makes them happen now."""
    count = 0
    for event in events:
        now = (
            event.model_copy(update={"occurred_at": datetime.now(UTC), "revision": None}) if stamp else event
        )
        publisher.send(
            PRODUCTS,
            key=event.product_id,
            value=now.model_dump_json(exclude_none=True).encode(),
            headers=headers,
        )
        count += 1
    if publisher.flush(60.0):
        raise RuntimeError("the broker did not acknowledge everything")
    return count


class Updates:
    """What the index has taken, from items.updated."""

    def __init__(self, stack: RunningStack) -> None:
        self._tail = Tail(stack.settings, UPDATED)

    def poll(self, timeout_seconds: float = 0.1) -> list[ItemUpdated]:
        """Updates that have arrived since the last call."""
        records = self._tail.poll(timeout_seconds, limit=5_000)
        return [parse_event(record.value, ItemUpdated) for record in records if record.value is not None]

    def until(self, done: Callable[[ItemUpdated], bool], *, timeout_seconds: float) -> list[ItemUpdated]:
        """Everything up to the update for which `done` first says so. Raises TimeoutError."""
        seen: list[ItemUpdated] = []
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            for update in self.poll():
                seen.append(update)
                if done(update):
                    return seen
        raise TimeoutError(f"not served within {timeout_seconds:.0f} s; {len(seen)} updates came")

    def close(self) -> None:
        """Let go of the topic."""
        self._tail.close()


def import_catalogue(
    stack: RunningStack, publisher: Publisher, updates: Updates, products: Iterable[ProductEvent]
) -> None:
    """Publish on the bulk lane and wait until everything is searchable."""
    listed = list(products)
    waiting = {product.product_id for product in listed}
    publish(publisher, listed, headers=BULK)

    def done(update: ItemUpdated) -> bool:
        waiting.discard(update.product_id)
        return not waiting

    updates.until(done, timeout_seconds=60 + len(listed) / 50)
