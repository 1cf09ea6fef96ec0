"""adapters/archive.py: positions come from names, files are whole, folding loses and doubles no row."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from adapters.archive import Archive, session_numbers, topic_name
from schemas.errors import Halt

TOPIC = "AbC-123_xyz"


def row(offset: int, *, at_ms: int, shopper: str = "s1", session: str | None = None) -> dict[str, object]:
    return {
        "shopper": shopper,
        "session": session,
        "product": f"p{offset}",
        "category": "toys",
        "type": "view",
        "at_ms": at_ms,
        "position": None,
        "query": None,
        "offset": offset,
    }


def everything(table: pa.Table) -> pa.Table:
    return table


def products(table: pa.Table) -> list[str]:
    return sorted(table["product"].to_pylist())


def test_the_next_offset_is_the_largest_end_of_a_partition(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.write([row(0, at_ms=1)], part=(TOPIC, 0, 0, 5))
    archive.write([], part=(TOPIC, 0, 5, 9))
    archive.write([row(0, at_ms=1)], part=(TOPIC, 3, 0, 2))
    archive.write([row(0, at_ms=1)], part=("another", 0, 0, 77))
    assert archive.ends(TOPIC) == {0: 9, 3: 2}
    assert archive.ends("never read") == {}
    assert topic_name(TOPIC) == "AbC123xy"


def test_what_a_kill_left_half_written_is_no_file_of_the_archive(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.write([row(0, at_ms=1)], part=(TOPIC, 0, 0, 1))
    half = tmp_path / f".events-{topic_name(TOPIC)}-0-000000000001-000000000002.parquet"
    half.write_bytes(b"PAR1 half")
    assert archive.ends(TOPIC) == {0: 1}
    with archive.locked():
        assert not half.exists()
    assert archive.recent().num_rows == 1


def test_only_one_process_writes(tmp_path: Path) -> None:
    with Archive(tmp_path).locked(), pytest.raises(Halt, match="another process"), Archive(tmp_path).locked():
        pass


def test_folding_moves_old_rows_once_and_keeps_the_position(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.write([row(0, at_ms=10), row(1, at_ms=100)], part=(TOPIC, 0, 0, 2))
    archive.write([row(0, at_ms=20)], part=(TOPIC, 1, 0, 1))
    assert archive.fold(before_ms=50, reduce=everything) == 2
    assert [part.partition for part in archive.parts()] == [0]
    assert archive.ends(TOPIC) == {0: 2, 1: 1}
    assert products(archive.past()) == ["p0", "p0"]
    assert products(archive.recent()) == ["p1"]
    assert archive.fold(before_ms=50, reduce=everything) == 0
    # A late event, older than what was folded but read afterwards, is not lost.
    archive.write([row(2, at_ms=30)], part=(TOPIC, 0, 2, 3))
    assert products(archive.recent()) == ["p1", "p2"]
    assert archive.fold(before_ms=200, reduce=everything) == 2
    assert products(archive.past()) == ["p0", "p0", "p1", "p2"]
    assert archive.parts() == []
    assert archive.ends(TOPIC) == {0: 3, 1: 1}


def test_a_kill_between_the_sample_and_the_removal_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(tmp_path)
    archive.write([row(0, at_ms=10)], part=(TOPIC, 0, 0, 1))
    with monkeypatch.context() as killed:
        killed.setattr(Archive, "_drop_folded", lambda self: None)
        archive.fold(before_ms=50, reduce=everything)
    assert len(archive.parts()) == 1
    assert archive.recent().num_rows == 0
    assert archive.past().num_rows == 1
    with archive.locked():
        assert archive.parts() == []
    assert archive.past().num_rows == 1


def test_erasing_takes_rows_from_window_and_sample_and_no_position(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.write([row(0, at_ms=10, shopper="gone"), row(1, at_ms=10)], part=(TOPIC, 0, 0, 2))
    archive.fold(before_ms=50, reduce=everything)
    archive.write([row(2, at_ms=60, shopper="gone"), row(3, at_ms=70)], part=(TOPIC, 0, 2, 4))
    erased = archive.erase(lambda table: pc.not_equal(table["shopper"], "gone"))
    assert erased == 2
    assert products(archive.past()) == ["p1"]
    assert products(archive.recent()) == ["p3"]
    assert archive.ends(TOPIC) == {0: 4}
    assert archive.fold(before_ms=50, reduce=everything) == 0


def test_sessions_end_with_the_shopper_the_name_or_a_gap() -> None:
    rows = [
        row(0, at_ms=0),
        row(1, at_ms=5),
        row(2, at_ms=500),
        row(3, at_ms=505, session="x"),
        row(4, at_ms=9_000, session="x"),
        row(5, at_ms=0, shopper="s2"),
    ]
    table = pa.Table.from_pylist(rows)
    assert session_numbers(table, gap_ms=100).tolist() == [0, 0, 1, 2, 2, 3]
    assert len(session_numbers(table.slice(0, 0), gap_ms=100)) == 0
