"""The training archive: what shoppers did, as Parquet files; a recent window whole, a sample of the past.

Reads, writes  `{folder}/events-{topic}-{partition}-{start}-{end}.parquet`: the records of one partition in
               [start, end), `topic` being the first eight letters and digits of the topic's id;
               `{folder}/past-{n}.parquet`: the sample; of several only the largest n counts
Never          changes a file: it is written aside, flushed and renamed, so it is there whole or not at all

The archive alone says what is in it. The next record to read is the largest end among a partition's files
and the sample, so a killed reader goes on where its last file ended and no record is in two files. Leftovers
of a kill begin with a dot.

What has left the window is folded into the sample, under the next number. Its metadata say up to which time
and offsets: a row that is older than both is folded and no longer read from its file, and a file with
nothing but such rows is removed. Between the renaming and the removal a kill changes nothing.

Small files of neighbouring offsets are merged: the larger one is renamed into place before they are removed,
and from then on they do not count. Who reads needs no lock: when a file has gone meanwhile, it begins anew.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from adapters.archive_files import (
    EVENTS,
    Folded,
    Listing,
    Part,
    footer,
    listed,
    mergeable,
    part_name,
    put,
    put_past,
    read,
    topic_name,
    unfolded,
)
from schemas.errors import Halt, Transient

__all__ = ["EVENTS", "Archive", "Folded", "Part", "session_numbers", "topic_name"]

T = TypeVar("T")
Reduce = Callable[[pa.Table], pa.Table]

#: How often a reader begins anew, and how long it waits before: a writer removes files for seconds at most.
_TRIES, _PAUSE_SECONDS = 20, 0.1


class Archive:
    """The files of one archive. One process writes at a time: `locked`. What reads raises Transient where
    files keep going."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only writer. Raises Halt when another process is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise Halt(f"another process writes the archive {self.folder}; wait for it") from error
            for left in self.folder.glob(".*.parquet"):
                left.unlink()
            self._drop_folded()
            yield

    # --- reading -------------------------------------------------------------------------------------

    def parts(self) -> list[Part]:
        """Files of events in the order of their partitions and offsets."""
        return self._steadily(lambda listing: list(listing.parts))

    def ends(self, topic_id: str) -> dict[int, int]:
        """The next offset of each partition that has been read."""
        topic = topic_name(topic_id)
        ends: dict[int, int] = {}
        for name, end in self.positions().items():
            of, _, number = name.partition("-")
            if of == topic:
                ends[int(number)] = end
        return ends

    def positions(self) -> dict[str, int]:
        """The next offset of each partition of each topic, by `{topic}-{partition}`."""
        return self._steadily(_positions)

    def rows_since(self, positions: Mapping[str, int]) -> int:
        """How many events lie at or after these positions, which `positions` gave before.

        Every event is in one file, so these are the new ones, less what has left the window.
        """

        def rows(listing: Listing) -> int:
            found = 0
            for part in listing.parts:
                start = positions.get(part.of, 0)
                if part.start >= start:
                    found += footer(part.path).rows
                elif part.end > start:  # merged since
                    found += int(
                        pc.sum(pc.greater_equal(read(part.path, ["offset"])["offset"], start)).as_py() or 0
                    )
            return found

        return self._steadily(rows)

    def extent(self) -> tuple[int, int | None]:
        """How many rows the files of events have, and the latest time of one; no rows are read."""
        found = self._steadily(lambda listing: [footer(part.path) for part in listing.parts])
        times = [one.latest_ms for one in found if one.rows]
        return sum(one.rows for one in found), max(times, default=None)

    def recent(self) -> pa.Table:
        """Every event of the window, in no order."""

        def window(listing: Listing) -> pa.Table:
            folded = listing.folded()
            tables = [unfolded(read(part.path), part, folded) for part in listing.parts]
            return pa.concat_tables([EVENTS.empty_table(), *tables])

        return self._steadily(window)

    def past(self) -> pa.Table:
        """The sample of events that have left the window."""
        return self._steadily(_past)

    def folded(self) -> Folded:
        """What the sample covers."""
        return self._steadily(Listing.folded)

    # --- writing -------------------------------------------------------------------------------------

    def write(self, rows: Sequence[Mapping[str, object]], *, part: tuple[str, int, int, int]) -> Path:
        """Add the rows of records [start, end) of (topic id, partition); all of them or none."""
        topic_id, partition, start, end = part
        topic = topic_name(topic_id)
        table = pa.Table.from_pylist(
            [{**row, "topic": topic, "partition": partition} for row in rows], schema=EVENTS
        )
        return put(table, self.folder, part_name(topic, partition, start, end))

    def fold(self, *, before_ms: int, reduce: Reduce) -> int:
        """Move rows older than `before_ms` into the sample; `reduce` chooses what stays of it. How many.

        `reduce` gets the old sample and the rows that leave the window as one table, and answers rows of it.
        """
        listing = listed(self.folder)
        folded = listing.folded()
        before_ms = max(before_ms, folded.before_ms)
        leaving = pa.concat_tables(
            [EVENTS.empty_table()]
            + [
                unfolded(read(part.path), part, folded).filter(pc.field("at_ms") < before_ms)
                for part in listing.parts
                if footer(part.path).earliest_ms < before_ms
            ]
        )
        if not leaving.num_rows:
            return 0
        kept = reduce(pa.concat_tables([_past(listing), leaving]))
        put_past(kept, self.folder, Folded(before_ms, _positions(listing)))
        self._drop_folded()
        return int(leaving.num_rows)

    def uncover(self, *, before_ms: int, latest_ms: int) -> bool:
        """Where the sample covers times up to later than `latest_ms`, let it cover those before `before_ms`.

        An event with a clock in the future had moved the window there, and all that arrives would leave it at
        once. What was folded too early stays in the sample. Whether that was so.
        """
        listing = listed(self.folder)
        folded = listing.folded()
        if folded.before_ms <= latest_ms:
            return False
        for part in listing.parts:
            table = read(part.path)
            left = unfolded(table, part, folded)
            if left.num_rows < table.num_rows:
                # First, or else what is in the sample would count as not folded.
                put(left, self.folder, part.path.name)
        put_past(_past(listing), self.folder, Folded(before_ms, folded.ends))
        self._drop_folded()
        return True

    def erase(self, keep: Callable[[pa.Table], pa.ChunkedArray | pa.Array]) -> int:
        """Write anew every file with rows that `keep` does not mark; how many rows went.

        `keep` gets the columns `shopper` and `at_ms`.
        """
        gone, listing = 0, listed(self.folder)
        for part in listing.parts:
            marks, table = _marked(part.path, keep)
            if table is not None:
                # The same name with fewer rows: the offsets stay read.
                left = table.filter(marks)
                put(left, self.folder, part.path.name)
                gone += table.num_rows - left.num_rows
        if listing.pasts:
            marks, past = _marked(listing.pasts[-1], keep)
            if past is not None:
                left = past.filter(marks)
                put_past(left, self.folder, listing.folded())
                self._drop_folded()
                gone += past.num_rows - left.num_rows
        return int(gone)

    def merge(self, *, most_rows: int) -> int:
        """Write neighbouring small parts as one of at most so many rows; how many fewer parts there are."""
        listing, gone = listed(self.folder), 0
        folded = listing.folded()
        rows = {part.path: footer(part.path).rows for part in listing.parts}
        for group in mergeable(listing.parts, rows, most_rows=most_rows):
            first = group[0]
            table = pa.concat_tables([unfolded(read(part.path), part, folded) for part in group])
            put(table, self.folder, part_name(first.topic, first.partition, first.start, group[-1].end))
            # Killed about here, these count no more: they lie within the one that is there.
            for part in group:
                part.path.unlink()
            gone += len(group) - 1
        return gone

    def _drop_folded(self) -> None:
        """Remove what the newest sample, or a merged file, has in place of it."""
        listing = listed(self.folder)
        folded = listing.folded()
        for path in (*listing.pasts[:-1], *(part.path for part in listing.merged)):
            path.unlink()
        for part in listing.parts:
            if part.end <= folded.ends.get(part.of, 0):
                found = footer(part.path)
                if not found.rows or found.latest_ms < folded.before_ms:
                    part.path.unlink()

    def _steadily(self, look: Callable[[Listing], T]) -> T:
        """What is seen in files that are all there, though another process may write."""
        for _ in range(_TRIES):
            listing = listed(self.folder)
            # While a folder is listed, a file may come where was looked already, and those it replaces go.
            if listing == listed(self.folder):
                with suppress(FileNotFoundError):
                    return look(listing)
            time.sleep(_PAUSE_SECONDS)
        raise Transient(f"files of the archive {self.folder} keep changing while they are read")


def _positions(listing: Listing) -> dict[str, int]:
    found = dict(listing.folded().ends)
    for part in listing.parts:
        found[part.of] = max(part.end, found.get(part.of, 0))
    return found


def _past(listing: Listing) -> pa.Table:
    return read(listing.pasts[-1]) if listing.pasts else EVENTS.empty_table()


def _marked(
    path: Path, keep: Callable[[pa.Table], pa.ChunkedArray | pa.Array]
) -> tuple[pa.ChunkedArray | pa.Array, pa.Table | None]:
    """The marks of a file's rows, and the rows where not all are marked."""
    found = read(path, ["shopper", "at_ms"])
    marks = keep(found)
    return marks, read(path) if found.filter(marks).num_rows < found.num_rows else None


def session_numbers(ordered: pa.Table, *, gap_ms: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A number per row of a table ordered by shopper, session and time; rows of one session share it.

    A new one begins with another shopper, another named session, or after a gap without an event.
    """
    rows = ordered.num_rows
    if not rows:
        return np.zeros(0, dtype=np.int64)
    shoppers = np.asarray(ordered["shopper"].to_pylist(), dtype=object)
    named = np.asarray([name or "" for name in ordered["session"].to_pylist()], dtype=object)
    times = ordered["at_ms"].to_numpy()
    new = np.ones(rows, dtype=bool)
    new[1:] = (
        (shoppers[1:] != shoppers[:-1])
        | (named[1:] != named[:-1])
        | ((named[1:] == "") & (np.diff(times) > gap_ms))
    )
    return np.cumsum(new) - 1
