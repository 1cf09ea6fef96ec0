"""A server as a child of this process: started, waited for, stopped, paused, killed, and never left behind.

Reads   nothing
Writes  the child's log, and a lock, into the folder it is given
Never   leaves an orphan: a child ends with its parent, also when that was killed with SIGKILL (Linux)
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import IO, Self

from adapters.process_memory import unwatch_memory, watch_memory
from schemas.errors import Halt

HOST = "127.0.0.1"
LOG_TAIL_LINES = 15
Process = subprocess.Popen[bytes]

# Runs in the child before the server does: asks the kernel for a signal when the parent ends, makes sure that
# it had not ended before, then becomes the server. (A preexec_fn would run Python between fork and exec of a
# process full of threads, which can deadlock.)
_DIE_WITH_PARENT = """
import ctypes, os, sys
signal_number, parent, *command = sys.argv[1:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(signal_number), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the parent has gone")
os.execv(command[0], command)
"""


@cache
def _spawner(process_id: int) -> SimpleQueue[tuple[Callable[[], Process], Future[Process]]]:
    """Hands work to one thread that starts all children of this process and lives as long as it does.

    The kernel sends the parent-death signal when the *thread* that forked ends, so a child started by a
    short-lived thread would be killed under its users.
    """
    orders: SimpleQueue[tuple[Callable[[], Process], Future[Process]]] = SimpleQueue()

    def work() -> None:
        while True:
            start, promise = orders.get()
            try:
                promise.set_result(start())
            except OSError as error:
                promise.set_exception(error)

    Thread(target=work, name=f"spawner-{process_id}", daemon=True).start()
    return orders


class Child(ABC):
    """A server that runs as a child process on a loopback port, with its log in `folder`.

    Raises Halt, with the last lines of the log, when the server does not become ready in time.
    """

    #: Names the log and the lock in the folder, and the server in messages.
    name: str
    start_timeout_seconds: float = 60.0
    stop_timeout_seconds: float = 10.0
    #: How long a folder may still be held by a child whose parent has just died.
    lock_timeout_seconds: float = 3.0
    stop_signal: signal.Signals = signal.SIGTERM
    #: What the kernel sends when the parent has died.
    death_signal: signal.Signals = signal.SIGKILL

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        self.folder = folder
        self._wanted_port = port
        self._reserved: socket.socket | None = None
        self._lock: IO[bytes] | None = None
        self._process: Process | None = None
        self._log_start = 0

    @abstractmethod
    def command(self) -> list[str]:
        """The command line; the first word is the full path of a program."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether this very child answers requests; False while it does not yet."""

    def prepare(self) -> None:  # noqa: B027 - most servers need nothing
        """Whatever has to be done before the first start, ports being known."""

    def environment(self) -> dict[str, str]:
        """The child's environment."""
        return dict(os.environ)

    @property
    def port(self) -> int:
        """The port, known from the first start on, and kept until `stop`."""
        if self._reserved is None:
            raise RuntimeError(f"{self.name} has no port before it is started")
        return int(self._reserved.getsockname()[1])

    @property
    def pid(self) -> int:
        """The child's process id. Raises RuntimeError when it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"{self.name} does not run")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the child lives (paused counts)."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_file(self) -> Path:
        """Where the child's output goes, appended start by start."""
        return self.folder / f"{self.name}.log"

    def start(self) -> Self:
        """Start the child and wait until it answers. Raises Halt when it does not."""
        if self.running:
            return self
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            if self._lock is None:
                self._lock = self._own_folder()
            if self._reserved is None:
                self._reserved = reserve_port(self._wanted_port, self.name)
            self.prepare()
            self._process = self._spawn(self._lock)
            watch_memory(self.name, self._process.pid)
            self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the child (its stop signal, then SIGKILL) and give its port and folder back. Safe to repeat."""
        try:
            self._end()
        finally:
            for held in (self._reserved, self._lock):
                if held is not None:
                    held.close()
            self._reserved = self._lock = None

    def kill(self) -> None:
        """SIGKILL, as a crash would; the port stays ours, so clients are refused, not answered by others."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """End the child if it runs, and start it again on the same port and folder."""
        self._end()
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _own_folder(self) -> IO[bytes]:
        """One server per folder. The child inherits the lock: it is free once both have ended."""
        lock = (self.folder / f"{self.name}.lock").open("ab")
        deadline = time.monotonic() + self.lock_timeout_seconds
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if time.monotonic() > deadline:
                    lock.close()
                    raise Halt(
                        f"another {self.name} runs in {self.folder}: stop it, or choose another folder"
                    ) from None
                time.sleep(0.05)

    def _spawn(self, lock: IO[bytes]) -> Process:
        parent = os.getpid()
        leash = [_DIE_WITH_PARENT, str(int(self.death_signal)), str(parent)]
        command = [sys.executable, "-I", "-S", "-c", *leash, *self.command()]
        with self.log_file.open("ab") as log:
            self._log_start = log.tell()

            # A process group of its own keeps Ctrl-C in the terminal for the parent to handle. Not a session
            # of its own: as part of ours, a paused child is woken by the kernel when we die, and ends too.
            def start() -> Process:
                return subprocess.Popen(  # noqa: S603 - a command line of ours, no input
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                    env=self.environment(),
                    pass_fds=(lock.fileno(),),
                    process_group=0,
                )

            promise: Future[Process] = Future()
            _spawner(parent).put((start, promise))
            return promise.result()

    def _wait_until_ready(self, process: Process) -> None:
        started = time.monotonic()
        while not self.ready():
            code = process.poll()
            if code is not None:
                raise Halt(f"{self.name} ended at once (exit code {code}); its last words:\n{self._tail()}")
            if time.monotonic() - started > self.start_timeout_seconds:
                raise Halt(
                    f"{self.name} did not answer on {HOST}:{self.port} "
                    f"within {self.start_timeout_seconds:g} s; its last words:\n{self._tail()}"
                )
            time.sleep(0.02)

    def _tail(self) -> str:
        with self.log_file.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:]) or "(it wrote nothing)"

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(self.stop_signal)
            process.send_signal(signal.SIGCONT)  # a paused process takes no notice of SIGTERM
            try:
                process.wait(self.stop_timeout_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
        unwatch_memory(self.name, process.pid)
        self._process = None


def reserve_port(port: int, name: str) -> socket.socket:
    """A bound socket that does not listen: it keeps the port from everybody but a server that we start.

    `port` 0 picks a free one. Servers bind with SO_REUSEADDR, so they may listen on it beside us; nobody else
    is given it, neither while we start the server nor while it is down. Raises Halt when the port is taken.
    """
    reserved = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        reserved.bind((HOST, port))
    except OSError as error:
        reserved.close()
        raise Halt(f"port {port} for {name} cannot be had: {error.strerror}; choose another one") from error
    return reserved
