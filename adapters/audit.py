"""The audit log: who did what that needs to be answered for, when, and what came of it.

Reads   nothing
Writes  one JSON object a line, appended and fsynced, to the file that settings name; the same to the log
Never   changes or removes a line; never takes a secret or a raw user id: callers hand in what may be read

An action is written before it begins and once more when it has ended, under one id: a process that is killed
in between leaves the first line. Where the file cannot be written nothing is begun.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schemas.errors import Halt
from schemas.events import Frozen

log = logging.getLogger(__name__)

_MODE = 0o640


class AuditSettings(Frozen):
    """Where admin actions are written down, beside the log of the process. None: the log alone."""

    file: Path | None = None


class Action:
    """An action in hand; what is noted becomes part of its last line."""

    def __init__(self) -> None:
        self.noted: dict[str, Any] = {}

    def note(self, **found: Any) -> None:
        """What came of it: counts and names."""
        self.noted.update(found)


class Audit:
    """Writes down actions. Lines of several processes do not mix: each is one append."""

    def __init__(
        self, settings: AuditSettings, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._file = settings.file
        self._clock = clock

    @contextmanager
    def acting(self, action: str, *, hidden: str = "", **what: Any) -> Iterator[Action]:
        """Around an action of whoever runs this process; `hidden` is cut out of what an error says.

        Raises Halt, before anything is done, where the file cannot be written.
        """
        marks = {"id": uuid.uuid4().hex, "action": action, "by": _user(), "host": socket.gethostname()}
        self._write({**marks, "what": what, "result": "begun"})
        act = Action()
        try:
            yield act
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            if hidden:
                reason = reason.replace(hidden, "...")
            self._write({**marks, "what": {**what, **act.noted}, "result": "failed", "reason": reason})
            raise
        self._write({**marks, "what": {**what, **act.noted}, "result": "done"})

    def done(self, action: str, *, by: str, **what: Any) -> None:
        """Something has happened already. Never raises: that it cannot be written is an error of the log."""
        marks = {"id": uuid.uuid4().hex, "action": action, "by": by, "host": socket.gethostname()}
        try:
            self._write({**marks, "what": what, "result": "done"})
        except Halt as error:
            log.error("audit_not_written action=%s reason=%s", action, error)

    def _write(self, line: dict[str, Any]) -> None:
        line = {"time": self._clock().isoformat(), **line}
        log.info("admin_action action=%s by=%s result=%s", line["action"], line["by"], line["result"])
        if self._file is None:
            return
        try:
            descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _MODE)
            try:
                os.write(descriptor, json.dumps(line, default=str).encode() + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise Halt(f"the audit log {self._file} cannot be written: {error.strerror}") from None


def _user() -> str:
    """The operating system's name of who runs this process; the number, where it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
