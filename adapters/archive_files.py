"""The archive's files: what their names and footers say, how one is written, which of them count.

Reads, writes  files of the folder that adapters/archive.py describes
Never          changes a file: it is written aside, flushed and renamed, so it is there whole or not at all

Of two files of events of which one's offsets lie within the other's, the smaller one was merged into the
larger: it counts no more, and whoever writes the archive next removes it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

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


class Part(NamedTuple):
    """One file of events: the records of a partition from `start` up to, not including, `end`."""

    path: Path
    topic: str
    partition: int
    start: int
    end: int

    @property
    def of(self) -> str:
        """Its partition's name among positions."""
        return f"{self.topic}-{self.partition}"


class Folded(NamedTuple):
    """What the sample covers: rows before `before_ms` with an offset below their partition's end."""

    before_ms: int = 0
    ends: Mapping[str, int] = {}


class Listing(NamedTuple):
    """Files at one moment: events by partition and offset, those merged into others, samples by number."""

    parts: Sequence[Part]
    merged: Sequence[Part]
    pasts: Sequence[Path]

    def folded(self) -> Folded:
        """What the newest sample covers."""
        if not self.pasts:
            return Folded()
        with self.pasts[-1].open("rb") as file:
            found = json.loads(pq.read_schema(file).metadata[_FOLDED])
        return Folded(int(found["before_ms"]), {name: int(end) for name, end in found["ends"].items()})


class Footer(NamedTuple):
    """What a file of events says of itself: its rows, the earliest and the latest time; 0 without rows."""

    rows: int
    earliest_ms: int
    latest_ms: int


def topic_name(topic_id: str) -> str:
    """The part of a topic's id that file names carry."""
    return re.sub(r"[^0-9a-zA-Z]", "", topic_id)[:8] or "0"


def part_name(topic: str, partition: int, start: int, end: int) -> str:
    """The name of a file of events."""
    return f"events-{topic}-{partition}-{start:012d}-{end:012d}.parquet"


def listed(folder: Path) -> Listing:
    """What is in the folder now."""
    found, pasts = [], []
    for path in folder.glob("*.parquet"):
        if match := _EVENT_FILE.match(path.name):
            topic, *numbers = match.groups()
            found.append(Part(path, topic, *map(int, numbers)))
        elif match := _PAST_FILE.match(path.name):
            pasts.append((int(match[1]), path))
    parts: list[Part] = []
    merged: list[Part] = []
    for part in sorted(found, key=lambda part: (part.topic, part.partition, part.start, -part.end)):
        inside = bool(parts) and parts[-1].of == part.of and part.end <= parts[-1].end
        (merged if inside else parts).append(part)
    return Listing(parts, merged, [path for _, path in sorted(pasts)])


def read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A file's rows. Opened once: what replaces it meanwhile is not read."""
    with path.open("rb") as file:
        return pq.read_table(file, columns=EVENTS.names if columns is None else list(columns))


def footer(path: Path) -> Footer:
    """What a file of events says of itself; its rows are not read."""
    with path.open("rb") as file:
        found = pq.read_metadata(file)
    groups = [found.row_group(number) for number in range(found.num_row_groups)]
    times = [group.column(EVENTS.get_field_index("at_ms")).statistics for group in groups if group.num_rows]
    return Footer(
        int(found.num_rows),
        min((int(one.min) for one in times), default=0),
        max((int(one.max) for one in times), default=0),
    )


def unfolded(table: pa.Table, part: Part, folded: Folded) -> pa.Table:
    """Those rows of a part that the sample does not cover."""
    end = folded.ends.get(part.of, 0)
    if not table.num_rows or part.start >= end:
        return table
    covered = pc.and_(pc.less(table["at_ms"], folded.before_ms), pc.less(table["offset"], end))
    return table.filter(pc.invert(covered))


def put(table: pa.Table, folder: Path, name: str) -> Path:
    """Write a file, or replace it."""
    folder.mkdir(parents=True, exist_ok=True)
    aside, path = folder / f".{name}", folder / name
    with aside.open("wb") as file:
        pq.write_table(table, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return path


def put_past(table: pa.Table, folder: Path, folded: Folded) -> Path:
    """Write a sample under the next number."""
    pasts = listed(folder).pasts
    match = _PAST_FILE.match(pasts[-1].name) if pasts else None
    number = int(match[1]) + 1 if match else 1
    body = json.dumps({"before_ms": folded.before_ms, "ends": dict(folded.ends)}).encode()
    return put(table.replace_schema_metadata({_FOLDED: body}), folder, f"past-{number:06d}.parquet")


def mergeable(parts: Sequence[Part], rows: Mapping[Path, int], *, most_rows: int) -> list[list[Part]]:
    """Neighbours to write as one part of at most so many rows, each group in its order.

    From the newest back a part joins if those after it have as many rows as it has. So of n rows that arrive
    one by one about log2(n) parts stay, and each row is written about log2(n) times.
    """
    groups: list[list[Part]] = []
    together = 0
    for part in reversed(parts):
        group = groups[-1] if groups else []
        follows = bool(group) and (part.of, part.end) == (group[0].of, group[0].start)
        if follows and rows[part.path] <= together and together + rows[part.path] <= most_rows:
            group.insert(0, part)
            together += rows[part.path]
        else:
            groups.append([part])
            together = rows[part.path]
    return [group for group in groups if len(group) > 1]
