"""consumers/archive.py: every event once, bounded, and without those who asked to be forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters import archive, archive_files
from adapters.archive import Archive
from adapters.kafka import Record
from consumers import archive as module
from consumers.archive import DAY_MS, Archiver
from consumers.archive_settings import ArchiveSettings
from consumers.erasures import Erasures, erasure_key
from schemas.events import UserErased, UserEvent

NOW = datetime(2026, 11, 25, tzinfo=UTC)
KEY = b"a key"


class Log:
    """A topic in memory."""

    topic_id = "topic"

    def __init__(self) -> None:
        self.records: list[Record] = []

    def add(self, user: str, product: str, *, partition: int = 0, at: datetime = NOW, **fields: Any) -> None:
        event = UserEvent(
            event_id=str(len(self.records)),
            type=fields.pop("type", "view"),
            user_id=user,
            product_id=product,
            occurred_at=at,
            **fields,
        )
        self.put(event.model_dump_json().encode(), partition=partition, at=at)

    def put(self, value: bytes | None, *, partition: int = 0, at: datetime = NOW) -> None:
        offset = sum(record.partition == partition for record in self.records)
        stamp = round(at.timestamp() * 1000)
        self.records.append(Record("user.events", self.topic_id, partition, offset, stamp, b"k", value))

    def read_on(self, ends: Mapping[int, int]) -> Iterable[Record]:
        for record in self.records:
            if record.offset >= ends.get(record.partition, 0):
                yield record


def archiver(
    folder: Path,
    erasures: Erasures | None = None,
    *,
    now: datetime = NOW + timedelta(days=1),
    **settings: Any,
) -> Archiver:
    return Archiver(
        archive=Archive(folder),
        settings=ArchiveSettings(folder=str(folder), **settings),
        erasures=erasures or Erasures(key=KEY),
        erasures_key=KEY,
        categories=lambda items: {item: "toys" for item in items},
        good_rating=3.5,
        now=lambda: now,
    )


def products(archive: Archive) -> list[str]:
    return sorted(archive.recent()["product"].to_pylist() + archive.past()["product"].to_pylist())


def test_each_round_reads_on_and_no_event_is_there_twice(tmp_path: Path) -> None:
    log = Log()
    for number in range(10):
        log.add(f"u{number}", f"p{number}", partition=number % 3)
    first = archiver(tmp_path).run(log)
    assert (first.records, first.added) == (10, 10)
    assert archiver(tmp_path).run(log).records == 0
    log.add("u", "p10")
    assert archiver(tmp_path).run(log).records == 1
    assert products(Archive(tmp_path)) == sorted(f"p{number}" for number in range(11))


@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_a_kill_between_two_files_loses_nothing_and_doubles_nothing(
    tmp_path: Path, killed_after: int
) -> None:
    log = Log()
    for number in range(12):
        log.add("u", f"p{number:02}", partition=number % 2)

    class Killed(BaseException):
        pass

    written = 0
    whole = Archive.write

    def write(self: Archive, rows: Any, *, part: Any) -> Path:
        nonlocal written
        if written == killed_after:
            raise Killed
        written += 1
        return whole(self, rows, part=part)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Archive, "write", write)
        with pytest.raises(Killed):
            archiver(tmp_path, file_records=2).run(log)
    redone = archiver(tmp_path, file_records=2).run(log)
    assert 0 < redone.records < 12
    assert products(Archive(tmp_path)) == [f"p{number:02}" for number in range(12)]


def test_no_user_id_no_session_id_and_nothing_that_is_no_interest_is_kept(tmp_path: Path) -> None:
    log = Log()
    log.add("somebody", "seen", type="impression")
    log.add("somebody", "bad", type="rate", value=2)
    log.add(
        "somebody", "good", type="rate", value=5, session_id="their-session", query="red lamp", position=3
    )
    log.put(b"not json")
    log.put(None)
    found = archiver(tmp_path).run(log)
    assert (found.records, found.added, found.unreadable) == (5, 1, 1)
    (row,) = Archive(tmp_path).recent().to_pylist()
    assert row["product"] == "good"
    assert (row["query"], row["position"], row["category"]) == ("red lamp", 3, "toys")
    for path in tmp_path.glob("*.parquet"):
        body = path.read_bytes()
        assert b"somebody" not in body
        assert b"their-session" not in body


def test_a_position_beyond_what_the_archive_keeps_does_not_stop_it(tmp_path: Path) -> None:
    log = Log()
    for number, position in enumerate((3_000_000_000, 10**30, 2**31 - 1, 0)):
        log.add("u", f"p{number}", position=position)
    assert archiver(tmp_path).run(log).added == 4
    rows = sorted(Archive(tmp_path).recent().to_pylist(), key=lambda row: row["offset"])
    assert [row["position"] for row in rows] == [2**31 - 1, 2**31 - 1, 2**31 - 1, 0]


def test_who_asked_to_be_forgotten_is_neither_written_nor_kept(tmp_path: Path) -> None:
    log = Log()
    log.add("gone", "before")
    log.add("stays", "other")
    archiver(tmp_path).run(log)
    erased = UserErased(erased_at=NOW + timedelta(hours=1)).model_dump_json().encode()
    erasures = Erasures(key=KEY)
    erasures.take([Record("user.erasures", "t", 0, 0, 0, erasure_key("gone", KEY).encode(), erased)])
    log.add("gone", "late", at=NOW + timedelta(minutes=30))
    log.add("gone", "after", at=NOW + timedelta(hours=2))
    assert archiver(tmp_path, erasures).run(log).erased == 1
    assert products(Archive(tmp_path)) == ["after", "other"]


def test_the_past_is_a_sample_of_shoppers_whenever_it_was_folded(tmp_path: Path) -> None:
    log = Log()
    start = NOW - timedelta(days=50)
    for user in range(40):
        for step in range(3):
            log.add(f"u{user}", f"p{user}-{step}", at=start + timedelta(hours=user, minutes=step))
    settings: dict[str, Any] = {"window_days": 1.0, "shoppers_per_cell": 5, "period_days": 1000.0}
    # In one go, and in steps of ten records with a newest event that moves the window on.
    log_steps = Log()
    for record in log.records:
        log_steps.records.append(record)
        if len(log_steps.records) % 10 == 0:
            archiver(tmp_path / "steps", **settings).run(log_steps)
    for one in (log, log_steps):
        one.add("newest", "newest", at=NOW)
    archiver(tmp_path / "steps", **settings).run(log_steps)
    archiver(tmp_path / "once", **settings).run(log)
    once, steps = (Archive(tmp_path / name).past() for name in ("once", "steps"))
    assert once.num_rows == 15
    assert sorted(once["product"].to_pylist()) == sorted(steps["product"].to_pylist())
    assert Archive(tmp_path / "once").recent()["product"].to_pylist() == ["newest"]


def test_a_window_of_too_many_events_is_cut_at_its_older_end(tmp_path: Path) -> None:
    log = Log()
    for number in range(20):
        log.add(f"u{number}", f"p{number:02}", at=NOW + timedelta(minutes=number))
    archiver(tmp_path, window_events=5).run(log)
    assert sorted(Archive(tmp_path).recent()["product"].to_pylist()) == [f"p{n}" for n in range(15, 20)]


@pytest.mark.parametrize("ahead", [timedelta(days=365), timedelta(days=20)])
def test_an_event_of_a_clock_ahead_neither_moves_the_window_nor_stays_in_it_for_good(
    tmp_path: Path, ahead: timedelta
) -> None:
    log = Log()
    for number in range(20):
        log.add(f"u{number}", f"p{number:02}", at=NOW - timedelta(days=20 - number))
    # The broker takes the producer's time over.
    log.add("ahead", "ahead", at=NOW + ahead)
    archiver(tmp_path, now=NOW).run(log)
    assert Archive(tmp_path).recent().num_rows == 21
    row = next(row for row in Archive(tmp_path).recent().to_pylist() if row["product"] == "ahead")
    assert row["at_ms"] == round((NOW + timedelta(minutes=5)).timestamp() * 1000)
    tomorrow = NOW + timedelta(days=1)
    for number in range(20, 40):
        log.add(f"u{number}", f"p{number:02}", at=tomorrow)
    assert archiver(tmp_path, now=tomorrow).run(log).folded == 0
    assert Archive(tmp_path).recent().num_rows == 41
    later = NOW + timedelta(days=40)
    log.add("later", "later", at=later)
    assert archiver(tmp_path, now=later).run(log).folded == 41
    assert Archive(tmp_path).recent()["product"].to_pylist() == ["later"]


def test_a_window_that_an_earlier_version_let_run_ahead_is_brought_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log()
    for number in range(20):
        log.add(f"u{number}", f"p{number:02}", at=NOW - timedelta(days=20 - number))
    log.add("ahead", "ahead", at=NOW + timedelta(days=365))
    with monkeypatch.context() as unheeded:
        unheeded.setattr(module, "AHEAD_MS", 400 * DAY_MS)
        archiver(tmp_path, now=NOW + timedelta(days=365), shoppers_per_cell=3).run(log)
    archive = Archive(tmp_path)
    sampled = products(archive)
    assert archive.recent()["product"].to_pylist() == ["ahead"]
    for number in range(20, 40):
        log.add(f"u{number}", f"p{number:02}", at=NOW)
    for _ in range(2):  # what was folded too early is there once, and what arrived since is not folded
        archiver(tmp_path, now=NOW).run(log)
        assert archive.recent().num_rows == 21
        assert products(archive) == sorted([*sampled, *(f"p{number}" for number in range(20, 40))])
    log.add("later", "later", at=NOW + timedelta(days=40))
    assert archiver(tmp_path, now=NOW + timedelta(days=40)).run(log).folded == 20


def test_the_number_of_files_does_not_grow_with_the_rounds_and_a_quiet_round_reads_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log()
    for number in range(64):
        log.add("u", f"p{number:02}", partition=number % 2, at=NOW + timedelta(minutes=number))
        archiver(tmp_path, file_records=10).run(log)
    held = Archive(tmp_path)
    assert products(held) == [f"p{number:02}" for number in range(64)]
    # 32 rows of a partition: three times the ten that go into a file, or a power of two, and the rest.
    assert len(held.parts()) <= 2 * 6
    assert held.ends(log.topic_id) == {0: 32, 1: 32}
    whole, looked = archive_files.read, []

    def read(path: Path, *given: Any) -> Any:
        looked.append(path)
        return whole(path, *given)

    monkeypatch.setattr(archive, "read", read)
    archiver(tmp_path, file_records=10).run(log)
    assert len(looked) == len(held.parts())
