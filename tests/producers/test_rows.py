from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from producers.rows import MAX_LINE_BYTES, Format, Row, UnreadableFile, check, format_of, opened


def rows(path: Path | str, stdin: bytes = b"", **options: Any) -> list[Row]:
    with opened(str(path), standard_input=io.BytesIO(stdin), **options) as source:
        return list(source.rows())


def keep(found: Iterator[Row], seen: list[Row]) -> None:
    """Remember each row as it comes, so that those before an error count."""
    for row in found:
        seen.append(row)


def written(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_json_lines_keep_their_line_numbers_across_blank_lines_byte_order_mark_and_crlf(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, "a.jsonl", '\ufeff{"a": 1}\r\n\r\n   \n{"a": 2}')
    assert [(row.number, row.values) for row in rows(path)] == [(1, {"a": 1}), (4, {"a": 2})]


def test_numbers_with_a_fraction_stay_as_they_were_written(tmp_path: Path) -> None:
    (row,) = rows(written(tmp_path, "a.jsonl", '{"price": 12345678901.12345678}'))
    assert row.values == {"price": "12345678901.12345678"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"a": 1, "a": 2}', "field 'a' stands twice in the same object"),
        (b'{"x": {"a": 1, "a": 2}}', "field 'a' stands twice in the same object"),
        (b'{"a": NaN}', "NaN is not JSON: leave the field out"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": "\\ud83d"}', "half a character"),
        (b'{"a": 1', "not JSON: Expecting ',' delimiter at column 8"),
        (b"nonsense", "not JSON: Expecting value at column 1"),
        (b'"text"', "expected one JSON object per line, got str"),
        (b'{"a": "caf\xe9"}', "byte 0xE9 at position 11 is not UTF-8"),
        (b'{"a": ' + b"9" * 5000 + b"}", "thousands of digits"),
        (b'{"a": ' + b"[" * 50_000 + b"}", "nested too deeply"),
    ],
)
def test_a_bad_line_comes_out_with_its_problem_and_its_text_and_the_next_is_read(
    tmp_path: Path, line: bytes, said: str
) -> None:
    before, bad, after = rows(written(tmp_path, "a.jsonl", b'{"a": 0}\n' + line + b'\n{"a": 3}\n'))
    assert said in (bad.problem or "")
    assert bad.values is None
    assert bad.number == 2
    assert bad.original.startswith(line[:5].decode())
    assert (before.values, after.values) == ({"a": 0}, {"a": 3})


def test_a_line_longer_than_any_record_is_skipped_without_being_held(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"a": "')
        for _ in range(5 * MAX_LINE_BYTES // (1 << 20)):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n{"a": 2}\n')
    tracemalloc.start()
    long, short = rows(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "longer than" in (long.problem or "")
    assert short.number == 2
    assert short.values == {"a": 2}
    assert peak < 4 * MAX_LINE_BYTES


def test_one_json_array_is_named_as_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"one JSON array.*jq -c"):
        rows(written(tmp_path, "a.json", '[\n {"a": 1}\n]'))


def test_csv_rows_have_their_columns_by_name_and_the_line_they_start_on(tmp_path: Path) -> None:
    text = '\ufeffid, name \r\n1,"a ""b"", c"\r\n\r\n2,"two\r\nlines"\r\n3,x\r\n'
    assert [(row.number, dict(row.values or {})) for row in rows(written(tmp_path, "a.csv", text))] == [
        (2, {"id": "1", "name": 'a "b", c'}),
        (4, {"id": "2", "name": "two\nlines"}),
        (6, {"id": "3", "name": "x"}),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("3", "1 columns, fewer than the header's 2"),
        ("3,a,b,c", "4 columns, more than the header's 2"),
        ('3,"a"b', "not CSV"),
    ],
)
def test_a_ragged_or_broken_csv_row_is_a_problem_of_that_row_alone(
    tmp_path: Path, line: str, said: str
) -> None:
    before, bad, after = rows(written(tmp_path, "a.csv", f"id,name\n1,x\n{line}\n4,y\n"))
    assert said in (bad.problem or "")
    assert (bad.number, bad.original) == (3, line)
    assert before.values == {"id": "1", "name": "x"}
    assert after.values == {"id": "4", "name": "y"}


def test_a_quote_that_is_never_closed_is_reported_with_the_line_it_opened_on(tmp_path: Path) -> None:
    good, bad = rows(written(tmp_path, "a.csv", 'id,name\n1,x\n2,"y\n3,z\n'))
    assert good.values == {"id": "1", "name": "x"}
    assert bad.number == 3
    assert "close every quote" in (bad.problem or "")


def test_a_csv_cell_that_is_not_utf_8_names_byte_and_option_and_the_option_reads_it(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "id,name\n1,caf\xe9\n".encode("latin-1"))
    (bad,) = rows(path)
    assert "--encoding" in (bad.problem or "")
    (good,) = rows(path, encoding="latin-1")
    assert good.values == {"id": "1", "name": "caf\xe9"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id;name\n1;x\n", "say --delimiter ';'"),
        ("id,name,id\n", "names 'id' twice"),
        ("id,name\n".encode("utf-16"), "is UTF-16"),
    ],
)
def test_a_header_that_cannot_be_meant_stops_the_file(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    with pytest.raises(UnreadableFile, match=said):
        rows(written(tmp_path, "a.csv", content))


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    assert rows(written(tmp_path, "a.csv", "")) == []
    assert rows(written(tmp_path, "b.jsonl", "")) == []
    assert rows(written(tmp_path, "c.csv", "id,name\n")) == []


def test_tabs_and_other_delimiters_are_read(tmp_path: Path) -> None:
    assert rows(written(tmp_path, "a.tsv", "id\tname\n1\tx\n"))[0].values == {"id": "1", "name": "x"}
    assert rows(written(tmp_path, "a.csv", "id;n\n1;x\n"), delimiter=";")[0].values == {"id": "1", "n": "x"}


def parquet(tmp_path: Path, name: str = "a.parquet") -> Path:
    path = tmp_path / name
    table = pa.table({"id": [1, 2], "tags": [["a"], None], "price": [1.5, float("nan")]})
    pq.write_table(table, path)
    return path


def test_parquet_rows_keep_their_types_and_come_from_standard_input_too(tmp_path: Path) -> None:
    path = parquet(tmp_path)
    first, second = rows(path)
    assert (first.number, first.values) == (1, {"id": 1, "tags": ["a"], "price": 1.5})
    assert second.number == 2
    streamed = rows("-", path.read_bytes(), file_format="parquet")
    assert streamed[0] == first


def test_a_damaged_parquet_file_says_so(tmp_path: Path) -> None:
    content = parquet(tmp_path).read_bytes()
    with pytest.raises(UnreadableFile, match="cannot be read as Parquet"):
        rows(written(tmp_path, "b.parquet", content[:-10]))


def test_a_parquet_value_that_python_has_none_for_stops_the_file_and_is_named(tmp_path: Path) -> None:
    days = pa.array([0] * 599 + [3_000_000, 0], pa.int32()).cast(pa.date32())
    offsets, text = pa.array([0, 1, 3], pa.int32()).buffers()[1], pa.py_buffer(b"a\xe9\xff")
    broken = pa.Array.from_buffers(pa.string(), 2, [None, offsets, text])
    for column, before, said in (
        (days, 599, r"beyond row 599: in row 600 column 'x' holds no date32.*out of range"),
        (broken, 1, r"beyond row 1: in row 2 column 'x' holds no string.*can't decode byte 0xe9"),
    ):
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"id": list(range(len(column))), "x": column}), path)
        seen: list[Row] = []
        with opened(str(path), standard_input=io.BytesIO()) as source:
            with pytest.raises(UnreadableFile, match=said):
                keep(source.rows(), seen)
        assert [row.number for row in seen] == list(range(1, before + 1))


def test_a_disk_that_fails_while_reading_stops_the_file(tmp_path: Path) -> None:
    class Failing(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, _: Any) -> int:
            raise OSError(5, "Input/output error")

    standard_input: Any = io.BufferedReader(Failing())
    with opened("-", file_format="jsonl", standard_input=standard_input) as source:
        with pytest.raises(UnreadableFile, match=r"standard input cannot be read on \(Input/output error\)"):
            list(source.rows())


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl"])
def test_a_gzipped_file_is_read_whatever_its_name(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, gzip.compress(b'{"a": 1}\n'))
    assert [row.values for row in rows(path)] == [{"a": 1}]


def test_a_cut_gzip_file_gives_its_rows_and_then_says_that_it_is_damaged(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"a": n, "salt": hash(str(n))}) + "\n" for n in range(5_000)).encode()
    content = gzip.compress(lines)
    path = written(tmp_path, "a.jsonl.gz", content[: len(content) // 2])
    seen: list[Row] = []
    with opened(str(path), standard_input=io.BytesIO()) as source:
        with pytest.raises(UnreadableFile, match="damaged"):
            keep(source.rows(), seen)
    assert 100 < len(seen) < 5_000


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.JSONL", "jsonl"),
        ("a.b.csv.gz", "csv"),
        ("a.ndjson", "jsonl"),
        ("a.pq", "parquet"),
        ("a.tsv", "tsv"),
    ],
)
def test_the_name_of_a_file_tells_its_format(name: str, expected: Format) -> None:
    assert format_of(Path(name)) == expected


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.csv", "cannot be opened"),
        ("thing.docx", "say --format"),
        ("-", "say --format"),
        ("noend", "say --format"),
    ],
)
def test_an_input_that_cannot_be_is_refused_before_anything_is_read(name: str, said: str) -> None:
    with pytest.raises(UnreadableFile, match=said):
        check(name, None)


def test_reading_holds_a_bounded_part_of_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("w") as file:
        file.write("id,text\n")
        for number in range(40_000):
            file.write(f"{number},{'x' * 500}\n")
    tracemalloc.start()
    with opened(str(path), standard_input=io.BytesIO()) as source:
        count = sum(1 for _ in source.rows())
        assert source.position_bytes() == source.total_bytes
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 40_000
    assert peak < 2_000_000 < path.stat().st_size
