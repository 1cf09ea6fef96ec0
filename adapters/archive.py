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
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.errors import Halt

#: One row per event. `shopper` is the name of user.erasures (an HMAC): the user id is not here.
EVENTS = pa.schema(
    [
        ("shopper", pa.string()),
        ("session", pa.string()),
        ("product", pa.string()),
        ("category", pa.string()),
        ("type", pa.string()),
        ("at_ms", pa.int64()),
        ("position", pa.int32()),
        ("query", pa.string()),
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
    ]
)
_EVENT_FILE = re.compile(r"^events-([0-9a-zA-Z]{1,8})-(\d+)-(\d+)-(\d+)\.parquet$")
_PAST_FILE = re.compile(r"^past-(\d+)\.parquet$")
_FOLDED = b"simstream.folded"

Reduce = Callable[[pa.Table], pa.Table]


class Part(NamedTuple):
    """One file of events: the records of a partition from `start` up to, not including, `end`."""

    path: Path
    topic: str
    partition: int
    start: int
    end: int


class Folded(NamedTuple):
    """What the sample covers: rows before `before_ms` with an offset below their partition's end."""

    before_ms: int = 0
    ends: Mapping[str, int] = {}


def topic_name(topic_id: str) -> str:
    """The part of a topic's id that file names carry."""
    return re.sub(r"[^0-9a-zA-Z]", "", topic_id)[:8] or "0"


class Archive:
    """The files of one archive. One process writes at a time: `locked`."""

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

    def parts(self) -> list[Part]:
        """Files of events in the order of their partitions and offsets."""
        found = []
        for path in self.folder.glob("events-*.parquet"):
            match = _EVENT_FILE.match(path.name)
            if match:
                topic, *numbers = match.groups()
                found.append(Part(path, topic, *map(int, numbers)))
        return sorted(found, key=lambda part: (part.topic, part.partition, part.start))

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
        found = dict(self.folded().ends)
        for part in self.parts():
            name = f"{part.topic}-{part.partition}"
            found[name] = max(part.end, found.get(name, 0))
        return found

    def rows_since(self, positions: Mapping[str, int]) -> int:
        """How many events lie in files that begin at or after these positions, which `positions` gave before.

        Every event is in one file, so these are the new ones, less what has left the window whole.
        """
        return sum(
            int(pq.read_metadata(part.path).num_rows)
            for part in self.parts()
            if part.start >= positions.get(f"{part.topic}-{part.partition}", 0)
        )

    def write(self, rows: Sequence[Mapping[str, object]], *, part: tuple[str, int, int, int]) -> Path:
        """Add the rows of records [start, end) of (topic id, partition); all of them or none."""
        topic_id, partition, start, end = part
        topic = topic_name(topic_id)
        table = pa.Table.from_pylist(
            [{**row, "topic": topic, "partition": partition} for row in rows], schema=EVENTS
        )
        return self._put(table, f"events-{topic}-{partition}-{start:012d}-{end:012d}.parquet")

    def recent(self) -> pa.Table:
        """Every event of the window, in no order."""
        folded = self.folded()
        tables = [_unfolded(pq.read_table(part.path, schema=EVENTS), folded) for part in self.parts()]
        return pa.concat_tables([EVENTS.empty_table(), *tables])

    def past(self) -> pa.Table:
        """The sample of events that have left the window."""
        newest = self._newest_past()
        return EVENTS.empty_table() if newest is None else pq.read_table(newest).select(EVENTS.names)

    def folded(self) -> Folded:
        """What the sample covers."""
        newest = self._newest_past()
        if newest is None:
            return Folded()
        found = json.loads(pq.read_schema(newest).metadata[_FOLDED])
        return Folded(int(found["before_ms"]), {name: int(end) for name, end in found["ends"].items()})

    def fold(self, *, before_ms: int, reduce: Reduce) -> int:
        """Move rows older than `before_ms` into the sample; `reduce` chooses what stays of it. How many.

        `reduce` gets the old sample and the rows that leave the window as one table, and answers rows of it.
        """
        folded = self.folded()
        before_ms = max(before_ms, folded.before_ms)
        recent = self.recent()
        leaving = recent.filter(pc.less(recent["at_ms"], before_ms))
        if not leaving.num_rows:
            return 0
        ends = self.positions()
        kept = reduce(pa.concat_tables([self.past(), leaving]))
        self._put_past(kept, Folded(before_ms, ends))
        self._drop_folded()
        return int(leaving.num_rows)

    def erase(self, keep: Callable[[pa.Table], pa.ChunkedArray | pa.Array]) -> int:
        """Write anew every file with rows that `keep` does not mark; how many rows went."""
        gone = 0
        for part in self.parts():
            table = pq.read_table(part.path, schema=EVENTS)
            left = table.filter(keep(table))
            if left.num_rows < table.num_rows:
                # The same name with fewer rows: the offsets stay read.
                self._put(left, part.path.name)
                gone += table.num_rows - left.num_rows
        past = self.past()
        left = past.filter(keep(past))
        if left.num_rows < past.num_rows:
            self._put_past(left, self.folded())
            self._drop_folded()
            gone += past.num_rows - left.num_rows
        return int(gone)

    def _newest_past(self) -> Path | None:
        numbered = [
            (int(match[1]), path)
            for path in self.folder.glob("past-*.parquet")
            if (match := _PAST_FILE.match(path.name))
        ]
        return max(numbered)[1] if numbered else None

    def _put_past(self, table: pa.Table, folded: Folded) -> None:
        newest = self._newest_past()
        match = _PAST_FILE.match(newest.name) if newest is not None else None
        number = int(match[1]) + 1 if match else 1
        body = json.dumps({"before_ms": folded.before_ms, "ends": dict(folded.ends)}).encode()
        self._put(table.replace_schema_metadata({_FOLDED: body}), f"past-{number:06d}.parquet")

    def _drop_folded(self) -> None:
        """Remove what the newest sample has made superfluous."""
        newest, folded = self._newest_past(), self.folded()
        for path in self.folder.glob("past-*.parquet"):
            if path != newest:
                path.unlink()
        for part in self.parts():
            covered = part.end <= folded.ends.get(f"{part.topic}-{part.partition}", 0)
            if covered and not _unfolded(pq.read_table(part.path, schema=EVENTS), folded).num_rows:
                part.path.unlink()

    def _put(self, table: pa.Table, name: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        aside, path = self.folder / f".{name}", self.folder / name
        with aside.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return path


def _unfolded(table: pa.Table, folded: Folded) -> pa.Table:
    """The rows that the sample does not cover; all of a table are of one partition."""
    if not table.num_rows or not folded.ends:
        return table
    name = f"{table['topic'][0].as_py()}-{table['partition'][0].as_py()}"
    covered = pc.and_(
        pc.less(table["at_ms"], folded.before_ms), pc.less(table["offset"], folded.ends.get(name, 0))
    )
    return table.filter(pc.invert(covered))


def session_numbers(ordered: pa.Table, *, gap_ms: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A number per row of a table ordered by shopper and time; rows of one session share it.

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
