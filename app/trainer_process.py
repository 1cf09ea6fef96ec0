"""The trainer in a process of its own: at its own priority, on its own device, beside a stack that serves.

Reads   settings, from its parent; whatever app/learning.py reads
Writes  what app/learning.py writes; tells its parent what it does, and how a run ended
Never   outlives its parent
"""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import REGISTRY, generate_latest

from adapters.child import be_nice, end_with, ended, parent_connection, start_child
from adapters.process_memory import show_own_memory
from app.observability import configure_logging
from app.settings import Settings
from schemas.errors import Halt, Transient

if TYPE_CHECKING:
    from model.candidate import Outcome

log = logging.getLogger(__name__)

#: A run in hand is dropped when the parent stops it: its checkpoints stay, and the next one goes on there.
STOP_SECONDS = 10.0
#: A trainer that ended by itself is started again after so long.
RESTART_SECONDS = 60.0
#: How often the schedule's child tells its metrics.
METRICS_SECONDS = 5.0


class Job(NamedTuple):
    """What a child is to do: one run, or the schedule for as long as it lives."""

    settings: Settings
    data_dir: Path
    scheduled: bool = False


class TrainerProcess:
    """One child and its end of the connection. Not thread-safe."""

    def __init__(self, job: Job) -> None:
        ours, theirs = socket.socketpair()
        self._connection = Connection(ours.detach())
        self._process: subprocess.Popen[bytes] = start_child(__name__, theirs)
        self._connection.send(job)
        #: Its metrics in Prometheus' text format, as it last told them.
        self.metrics = ""

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def next(self, timeout_seconds: float) -> tuple[str, Any] | None:
        """What it says next: ("said", sentence) or ("ended", Outcome); None if it says nothing meanwhile.

        What it tells of its metrics is kept.

        Raises Halt, with its sentence, when it has failed or was killed.
        """
        deadline, kind, content = time.monotonic() + timeout_seconds, "metrics", self.metrics
        try:
            while kind == "metrics":
                self.metrics = content
                if not self._connection.poll(max(0.0, deadline - time.monotonic())):
                    return None
                kind, content = self._connection.recv()
        except (EOFError, OSError):
            raise Halt(f"the trainer has ended (exit code {self._process.wait(STOP_SECONDS)})") from None
        if kind == "failed":
            raise Halt(f"the trainer has stopped: {content}")
        return kind, content

    def stop(self) -> None:
        """End it. No effect on one that has ended."""
        self._connection.close()
        ended(self._process, STOP_SECONDS)


class ScheduledTrainer:
    """Keeps one child with the schedule alive. It serves nobody, so its faults are logged and end nothing."""

    def __init__(self, settings: Settings, data_dir: Path) -> None:
        self._job = Job(settings, data_dir, scheduled=True)
        self._child: TrainerProcess | None = None
        self._stopped = threading.Event()

    def metrics(self) -> str:
        """The child's metrics, some seconds old; empty before it has told any."""
        return "" if self._child is None else self._child.metrics

    def run(self) -> None:
        """Until `stop`."""
        while not self._stopped.is_set():
            child = self._child = TrainerProcess(self._job)
            try:
                while not self._stopped.is_set():
                    child.next(0.5)
            except Halt as error:
                log.error("trainer_ended reason=%s", error)
            finally:
                child.stop()
            self._stopped.wait(RESTART_SECONDS)

    def stop(self) -> None:
        """End `run` and the child."""
        self._stopped.set()


# --- the child ---------------------------------------------------------------------------------------


def serve(connection: Connection) -> int:
    """Do what the parent names; the exit code."""
    job: Job = connection.recv()
    be_nice(job.settings.training.nice)
    configure_logging(job.settings.log)
    show_own_memory("trainer")
    telling = threading.Lock()

    def tell(kind: str, content: object) -> None:
        with telling:
            connection.send((kind, content))

    def tell_metrics() -> None:
        while True:
            tell("metrics", generate_latest(REGISTRY).decode())
            time.sleep(METRICS_SECONDS)

    end_with(connection)  # a killed run goes on at its last checkpoint
    if job.scheduled:
        threading.Thread(target=tell_metrics, daemon=True).start()

    def say(sentence: str) -> None:
        tell("said", sentence)

    try:
        outcome = work(job, say)
    except (Halt, Transient, ValueError) as error:
        tell("failed", str(error))
        return 1
    tell("ended", outcome)
    return 0


def work(job: Job, say: Callable[[str], None]) -> Outcome | None:
    """One run, or the schedule without an end."""
    settings = on_its_device(job.settings)
    if job.scheduled:
        from app.training_schedule import Schedule

        Schedule(settings, job.data_dir, say=say).run(threading.Event())
        return None
    from app.learning import one_run

    return one_run(settings, job.data_dir, say=say)


def on_its_device(settings: Settings) -> Settings:
    """The settings with the trainer's device in place of that of serving, where one is set."""
    if settings.training.device is None:
        return settings
    device = {"device": settings.training.device}
    return settings.model_copy(update={"model": settings.model.model_copy(update=device)})


if __name__ == "__main__":
    sys.exit(serve(parent_connection()))
