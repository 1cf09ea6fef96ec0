"""A module of ours as a child process, with one connection between it and its parent.

Reads   nothing
Writes  nothing
Never   keeps a child alive: its end of the connection says when the parent has gone
"""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection

#: Whoever gives the interpreter's lock away, as a forward pass does some hundred times, may wait one interval
#: to get it back: with Python's 5 ms, 32 texts beside busy threads took 2 s instead of half a second.
GIL_SWITCH_SECONDS = 0.0005


def start_child(
    module: str, theirs: socket.socket, *, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Run `python -m module` with its end of a socket pair, which is closed here.

    It gets this process's environment, and what is in `environment` besides.
    """
    with theirs:
        # A process group of its own: Ctrl-C in a terminal is the parent's to handle.
        return subprocess.Popen(  # noqa: S603  our own interpreter and module
            [sys.executable, "-m", module, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
            process_group=0,
        )


def parent_connection() -> Connection:
    """The child's end, in the process that `start_child` has started; sets that process up."""
    sys.setswitchinterval(GIL_SWITCH_SECONDS)
    return Connection(int(sys.argv[1]))


def ended(process: subprocess.Popen[bytes], seconds: float) -> int:
    """The exit code of a child that is about to end; one that takes longer than that is killed."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def end_with(connection: Connection) -> None:
    """End this process, at once, when its parent has gone or lets go of the connection."""

    def listen() -> None:
        try:
            connection.recv()
        except (EOFError, OSError):
            pass
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()


def be_nice(level: int) -> None:
    """Lower this process's priority to that nice level, if it is not as low already."""
    if sys.platform != "win32":
        os.nice(max(0, level - os.nice(0)))


def calm_collector() -> None:
    """For a process that has many records in flight, none of them in a cycle.

    By default Python's collector walks all of them again and again: a third of a consumer's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
