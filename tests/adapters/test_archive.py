"""adapters/archive.py: positions come from names, files are whole, folding loses and doubles no row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from adapters import archive as module
from adapters import archive_files
from adapters.archive import Archive, session_numbers, topic_name
from schemas.errors import Halt, Transient

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


def grown(folder: Path, parts: int = 8) -> Archive:
    """So many parts of one row, neighbours."""
    archive = Archive(folder)
    for offset in range(parts):
        archive.write([row(offset, at_ms=100 + offset)], part=(TOPIC, 0, offset, offset + 1))
    return archive


def ranges(archive: Archive) -> list[tuple[int, int]]:
    return [(part.start, part.end) for part in archive.parts()]


def test_small_neighbours_become_one_file_of_bounded_size_with_every_row_once(tmp_path: Path) -> None:
    archive = grown(tmp_path, 10)
    archive.write([row(10, at_ms=1)], part=(TOPIC, 0, 11, 12))  # not a neighbour
    archive.write([row(0, at_ms=1)], part=(TOPIC, 1, 0, 1))  # another partition
    before = products(archive.recent())
    assert archive.merge(most_rows=4) == 7
    assert ranges(archive) == [(0, 2), (2, 6), (6, 10), (11, 12), (0, 1)]
    assert products(archive.recent()) == before
    assert archive.ends(TOPIC) == {0: 12, 1: 1}
    assert archive.merge(most_rows=4) == 0


def test_a_row_is_written_few_times_however_many_rounds_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, files, written = Archive(tmp_path), 0, 0

    def put(table: pa.Table, folder: Path, name: str) -> Path:
        nonlocal written
        written += table.num_rows
        return archive_files.put(table, folder, name)

    monkeypatch.setattr(module, "put", put)
    for offset in range(64):
        archive.write([row(offset, at_ms=offset)], part=(TOPIC, 0, offset, offset + 1))
        archive.merge(most_rows=1_000)
        files = max(files, len(archive.parts()))
    assert files <= 6
    assert ranges(archive) == [(0, 64)]
    # A power of two is merged by and by: each row once more for each of log2(64).
    assert written <= 64 * (1 + 6)


@pytest.mark.parametrize("removed", range(9))
def test_a_kill_while_files_are_merged_loses_nothing_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: int
) -> None:
    archive = grown(tmp_path)
    before, count = products(archive.recent()), removed
    whole = Path.unlink

    class Killed(BaseException):
        pass

    def unlink(path: Path, missing_ok: bool = False) -> None:
        nonlocal count
        if not count:
            raise Killed
        count -= 1
        whole(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        if removed < 8:
            with pytest.raises(Killed):
                archive.merge(most_rows=100)
        else:
            archive.merge(most_rows=100)
    assert len(list(tmp_path.glob("events-*"))) == 9 - removed
    assert ranges(archive) == [(0, 8)]
    assert products(archive.recent()) == before
    assert archive.rows_since({}) == 8
    with archive.locked():
        assert len(list(tmp_path.glob("events-*"))) == 1
    assert products(archive.recent()) == before


def test_what_is_new_is_counted_in_a_file_that_was_merged_since(tmp_path: Path) -> None:
    archive = grown(tmp_path, 5)
    seen = archive.positions()
    for offset in range(5, 8):
        archive.write([row(offset, at_ms=offset)], part=(TOPIC, 0, offset, offset + 1))
    archive.write([row(0, at_ms=1)], part=(TOPIC, 1, 0, 1))
    assert archive.rows_since(seen) == 4
    archive.merge(most_rows=100)
    assert ranges(archive) == [(0, 8), (0, 1)]
    assert archive.rows_since(seen) == 4
    assert archive.rows_since(archive.positions()) == 0


def test_rows_of_the_sample_do_not_come_back_by_merging(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.write([row(0, at_ms=10), row(1, at_ms=100)], part=(TOPIC, 0, 0, 2))
    archive.write([row(2, at_ms=20), row(3, at_ms=110)], part=(TOPIC, 0, 2, 4))
    assert archive.fold(before_ms=50, reduce=everything) == 2
    archive.write([row(4, at_ms=30)], part=(TOPIC, 0, 4, 5))  # late, and not folded
    archive.merge(most_rows=100)
    assert products(archive.past()) == ["p0", "p2"]
    assert products(archive.recent()) == ["p1", "p3", "p4"]
    assert archive.fold(before_ms=50, reduce=everything) == 1
    assert products(archive.recent()) == ["p1", "p3"]


@pytest.mark.parametrize("written", ["merged", "folded"])
def test_a_reader_begins_anew_when_a_file_has_gone_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    archive, other = grown(tmp_path), Archive(tmp_path)
    whole, reads = archive_files.read, 0

    def read(path: Path, *given: Any) -> pa.Table:
        nonlocal reads
        reads += 1
        if reads == 4:  # three parts are read, and the rest go
            monkeypatch.setattr(module, "read", whole)
            if written == "merged":
                other.merge(most_rows=100)
            else:
                other.fold(before_ms=106, reduce=everything)
        return whole(path, *given)

    monkeypatch.setattr(module, "read", read)
    found = products(archive.recent())
    assert reads == 4
    assert found == [f"p{offset}" for offset in (range(8) if written == "merged" else (6, 7))]
    assert products(pa.concat_tables([archive.recent(), archive.past()])) == [f"p{n}" for n in range(8)]


def test_a_reader_that_finds_files_going_again_and_again_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = grown(tmp_path, 2)
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.0)

    def gone(path: Path, *given: object) -> pa.Table:
        raise FileNotFoundError(path)

    monkeypatch.setattr(module, "read", gone)
    with pytest.raises(Transient, match="keep changing"):
        archive.recent()


def test_a_listing_that_a_merge_has_torn_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = grown(tmp_path)
    archive.merge(most_rows=100)
    whole = archive_files.listed(tmp_path)
    # The merged file came where was looked already, and the small ones had gone where was not yet.
    seen = iter([whole._replace(parts=[])])
    monkeypatch.setattr(module, "listed", lambda folder: next(seen, whole))
    assert archive.recent().num_rows == 8


def test_nothing_is_read_to_see_which_files_are_folded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = grown(tmp_path)
    archive.fold(before_ms=104, reduce=everything)

    def never(path: Path, *given: object) -> pa.Table:
        pytest.fail(f"{path} was read")

    with monkeypatch.context() as patch:
        patch.setattr(module, "read", never)
        with archive.locked():
            assert archive.extent() == (4, 107)
    assert archive.recent().num_rows == 4


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
