"""Resident memory of this process and of the children it watches, as metrics.

Reads   /proc (Linux; elsewhere everything is 0), the memory limit of this container
Writes  two gauges, read when somebody asks for them
"""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path

from adapters.metrics import PROCESS_MEMORY_BYTES, PROCESS_MEMORY_LIMIT_BYTES

#: Version 2 of control groups, then version 1, which says "no limit" with a number larger than any memory.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

_watched: dict[str, set[int]] = {}
_lock = threading.Lock()


def watch_memory(process: str, pid: int) -> None:
    """Show this process under that name; several under one name are added up."""
    with _lock:
        _watched.setdefault(process, set()).add(pid)
    PROCESS_MEMORY_BYTES.labels(process=process).set_function(partial(_resident_bytes, process))


def unwatch_memory(process: str, pid: int) -> None:
    """It has ended."""
    with _lock:
        _watched.get(process, set()).discard(pid)


def show_own_memory(process: str) -> None:
    """Show the exporting process, and what it and its children may use."""
    watch_memory(process, os.getpid())
    PROCESS_MEMORY_LIMIT_BYTES.labels(process=process).set(memory_limit_bytes())


def memory_limit_bytes(files: tuple[Path, ...] = _LIMITS) -> int:
    """The limit of this container; without one, the machine's memory."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in files:
        try:
            return min(machine, int(file.read_text()))
        except (OSError, ValueError):
            continue  # no such file, or `max`
    return machine


def _resident_bytes(process: str) -> float:
    with _lock:
        pids = list(_watched.get(process, ()))
    pages = 0
    for pid in pids:
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            continue  # it has ended, or this is no Linux
    return float(pages * os.sysconf("SC_PAGE_SIZE"))
