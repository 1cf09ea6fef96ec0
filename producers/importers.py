"""Rows of a file onto a topic: validated, sent, and counted as the broker confirms them.

Reads   a producers/rows.py Source
Writes  events through the publisher; rejected rows to a file beside the input
Never   counts a record as done before the broker acknowledged it

A large import travels in the bulk lane (`simstream-lane: bulk`), so that it never delays a live change.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO

from adapters.kafka import Headers, Publisher
from producers.mapping import EventMaker, Target
from producers.rows import Row, Source, UnreadableFile
from schemas.parsing import InvalidEvent
from schemas.topics import BULK_LANE, LANE_HEADER, Topic

log = logging.getLogger(__name__)

#: More rows than this are an import, not a change.
BULK_ROWS = 1_000
#: A stream that brings more than BULK_ROWS rows within this time is an import too, for as long as it does.
BULK_WINDOW_SECONDS = 10.0
#: What a record takes besides key and value: headers, and the broker's own framing.
_RECORD_OVERHEAD_BYTES = 512
_BULK: Headers = ((LANE_HEADER, BULK_LANE.encode()),)


class Lane(StrEnum):
    """Which lane rows travel in. AUTO: bulk for more than 1,000 rows of a file, or a fast stream."""

    AUTO = "auto"
    LIVE = "live"
    BULK = "bulk"


@dataclass
class Tally:
    """Counts of one import: `read` = rejected + unsent + acknowledged + failed + unconfirmed."""

    read: int = 0
    rejected: int = 0
    sent: int = 0
    acknowledged: int = 0
    failed: int = 0
    bulk: int = 0
    interrupted: bool = False
    #: Why it ended before the input did: that cannot be read, or the file of rejects cannot be written.
    unreadable: str | None = None
    rejected_file: Path | None = None
    #: The most frequent reasons, by their first words.
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def unsent(self) -> int:
        """Read, and neither rejected nor sent: the row that Ctrl-C came upon, if any."""
        return self.read - self.rejected - self.sent

    @property
    def unconfirmed(self) -> int:
        """Sent, and neither acknowledged nor refused before the import gave up waiting."""
        return max(0, self.sent - self.acknowledged - self.failed)


class Rejects:
    """The file of what was not published: one JSON object per row, opened with the first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Why the file cannot be written; nothing more is.
        self.fault: str | None = None
        self._file: IO[str] | None = None
        self._closed = False
        self._lock = threading.Lock()

    def check(self) -> None:
        """See whether the file could be written, and leave it as it is."""
        try:
            new = not os.path.lexists(self.path)
            self.path.open("a").close()
            if new:
                self.path.unlink()
        except OSError as error:
            self._failed(error)

    def add(self, row: Row, reason: str) -> None:
        """Write one row with its line number and reason. Thread-safe; without effect once closed.

        Raises nothing, since the publisher's thread calls it too: `fault` says what went wrong.
        """
        entry = {"line": row.number, "reason": reason, "original": row.original}
        text = json.dumps(entry, ensure_ascii=False).encode("utf-8", errors="backslashreplace").decode()
        with self._lock:
            if self._closed or self.fault is not None:
                return
            try:
                if self._file is None:
                    self._file = self.path.open("w", encoding="utf-8")
                self._file.write(text + "\n")
            except OSError as error:
                self._failed(error)

    @property
    def written(self) -> bool:
        """Whether anything was rejected."""
        return self._file is not None

    def close(self) -> None:
        """Finish the file, if there is one."""
        with self._lock:
            self._closed = True
            if self._file is None:
                return
            try:
                self._file.close()
            except OSError as error:
                self._failed(error)

    def _failed(self, error: OSError) -> None:
        self.fault = self.fault or (
            f"{self.path} cannot be written ({error.strerror}): name another file with --rejected"
        )


class Importer:
    """Publishes sources of one target."""

    def __init__(
        self,
        *,
        publisher: Publisher,
        topic: Topic,
        target: Target,
        maker: EventMaker,
        lane: Lane = Lane.AUTO,
        flush_seconds: float = 130.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self._topic = topic
        self._target = target
        self._maker = maker
        self._lane = lane
        self._flush_seconds = flush_seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()

    def run(
        self, source: Source, rejects: Rejects, *, progress: Callable[[Tally], None] = lambda _: None
    ) -> Tally:
        """Publish every row; returns once the broker has confirmed them all, or gave up on some.

        Ctrl-C stops reading, waits for what is under way, and sets `interrupted`; a file of rejects that
        cannot be written does the same with `unreadable`, before anything is sent if it can be seen then.
        Raises Halt where the producer can never send again.
        """
        tally = Tally()
        rejects.check()
        if rejects.fault is not None:
            tally.unreadable = rejects.fault
            return tally
        try:
            for row, headers in self._laned(source):
                tally.read += 1
                self._one(row, headers, tally, rejects)
                progress(tally)
                if rejects.fault is not None:
                    break
        except KeyboardInterrupt:
            tally.interrupted = True
        except UnreadableFile as error:
            tally.unreadable = str(error)
        self._settle(tally, progress)
        rejects.close()
        tally.unreadable = tally.unreadable or rejects.fault
        tally.rejected_file = rejects.path if rejects.written else None
        return tally

    def _one(self, row: Row, headers: Headers, tally: Tally, rejects: Rejects) -> None:
        if row.values is None:
            self._reject(row, row.problem or "unreadable", tally, rejects)
            return
        try:
            event = self._maker.event(row.values)
            value = event.model_dump_json(exclude_none=True).encode()
        except (InvalidEvent, UnicodeEncodeError) as error:
            self._reject(row, str(error), tally, rejects)
            return
        key = str(getattr(event, self._target.key)).encode()
        size = len(key) + len(value) + _RECORD_OVERHEAD_BYTES
        if size > self._topic.max_message_bytes:
            self._reject(
                row,
                f"the event takes {size} bytes, and {self._topic.name} takes "
                f"{self._topic.max_message_bytes} at most: shorten its longest text",
                tally,
                rejects,
            )
            return
        self._publisher.send(
            self._topic.name,
            key=key,
            value=value,
            headers=headers,
            on_ack=partial(self._answered, row, tally, rejects),
        )
        # Only this thread counts what was sent. After the send: one that Ctrl-C stopped is not waited for.
        tally.sent += 1
        tally.bulk += 1 if headers else 0

    def _reject(self, row: Row, reason: str, tally: Tally, rejects: Rejects) -> None:
        tally.rejected += 1
        tally.reasons[_shortened(reason)] += 1
        rejects.add(row, reason)

    def _answered(self, row: Row, tally: Tally, rejects: Rejects, error: Exception | None) -> None:
        """The broker's answer, on the publisher's thread."""
        with self._lock:
            if error is None:
                tally.acknowledged += 1
                return
            tally.failed += 1
            tally.reasons[_shortened(f"the broker did not take it: {error}")] += 1
        rejects.add(row, f"the broker did not take it: {error}; publish this row again")

    def _settle(self, tally: Tally, progress: Callable[[Tally], None]) -> None:
        """Wait for the broker; a second Ctrl-C stops waiting."""
        try:
            deadline = self._monotonic() + (10.0 if tally.interrupted else self._flush_seconds)
            while tally.unconfirmed > 0 and self._monotonic() < deadline:
                self._publisher.flush(0.2)
                progress(tally)
        except KeyboardInterrupt:
            tally.interrupted = True

    def _laned(self, source: Source) -> Iterator[tuple[Row, Headers]]:
        """Each row with the headers of its lane."""
        rows = source.rows()
        if self._lane is not Lane.AUTO:
            headers = _BULK if self._lane is Lane.BULK else ()
            yield from ((row, headers) for row in rows)
        elif source.is_stream:
            yield from self._by_pace(rows)
        else:
            first: list[Row] = []
            failure: UnreadableFile | None = None
            try:
                for row in islice(rows, BULK_ROWS + 1):
                    first.append(row)
            except UnreadableFile as error:
                failure = error  # raised once the rows before it are on their way
            headers = _BULK if len(first) > BULK_ROWS else ()
            yield from ((row, headers) for row in chain(first, rows))
            if failure is not None:
                raise failure

    def _by_pace(self, rows: Iterator[Row]) -> Iterator[tuple[Row, Headers]]:
        """Nobody knows how long a stream is, so its pace decides: a trickle is live, a flood is an import."""
        seen: deque[float] = deque(maxlen=BULK_ROWS)
        for row in rows:
            now = self._monotonic()
            fast = len(seen) == BULK_ROWS and now - seen[0] < BULK_WINDOW_SECONDS
            seen.append(now)
            yield row, _BULK if fast else ()


def _shortened(reason: str) -> str:
    """What rows rejected alike have in common, short enough for a line."""
    common = reason.partition(" (got ")[0]
    return common if len(common) <= 120 else f"{common[:117]}..."


def rejected_path(name: str) -> Path:
    """Where the rejected rows of an input go unless told otherwise."""
    return Path("stdin.rejected.jsonl" if name == "-" else f"{name}.rejected.jsonl")


def remove_stale(path: Path) -> None:
    """Take away the rejects of an earlier run, so that the file always tells of the last one.

    Raises UnreadableFile where it cannot be taken away.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UnreadableFile(
            f"{path} is of an earlier run, and cannot be removed: {error.strerror}"
        ) from error
