"""Files of a shop as rows: JSON Lines, CSV, Parquet, each plain or gzipped, read in bounded memory.

Reads   one file or standard input
Writes  nothing
Never   drops a row silently: what cannot be read comes out as a row with its problem and its original text
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq

Format = Literal["jsonl", "csv", "tsv", "parquet"]
#: Longer than any record that a topic takes; what is longer is skipped without being held in memory.
MAX_LINE_BYTES = 16 * 1024 * 1024
_SUFFIXES: Mapping[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_PARQUET_BATCH_ROWS = 512


class UnreadableFile(ValueError):
    """The file as a whole cannot be read; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its values by column, or the `problem` that kept it from being read. `number` is its line."""

    number: int
    original: str
    values: Mapping[str, Any] | None = None
    problem: str | None = None


class Source:
    """One input. `position_bytes` moves while rows are read; `total_bytes` is None for a stream."""

    def __init__(
        self,
        path: Path | None,
        raw: BinaryIO,
        *,
        file_format: Format,
        delimiter: str | None = None,
        encoding: str = "utf-8",
    ) -> None:
        self.name = "standard input" if path is None else str(path)
        self.total_bytes = None if path is None else path.stat().st_size
        self._raw = raw
        self._format = file_format
        self._delimiter = delimiter or ("\t" if file_format == "tsv" else ",")
        self._encoding = encoding
        self._seekable = path is not None

    @property
    def is_stream(self) -> bool:
        """Whether nobody knows how much will come."""
        return self.total_bytes is None

    def position_bytes(self) -> int:
        """How much of the file has been read, compressed bytes for a gzipped one; 0 for a stream."""
        return self._raw.tell() if self._seekable and not self._raw.closed else 0

    def rows(self) -> Iterator[Row]:
        """Every row. Raises UnreadableFile where reading cannot go on."""
        readers: Mapping[Format, Callable[[BinaryIO], Iterator[Row]]] = {
            "jsonl": self._json_lines,
            "csv": self._separated,
            "tsv": self._separated,
            "parquet": self._parquet,
        }
        try:
            yield from readers[self._format](_unzipped(self._raw))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UnreadableFile(
                f"{self.name} is a damaged gzip file ({error}): what came before was read; get the file again"
            ) from error
        except OSError as error:
            raise UnreadableFile(
                f"{self.name} cannot be read on ({error.strerror or _first_line(error)}): "
                "what came before was read"
            ) from error
        except pa.ArrowException as error:
            raise UnreadableFile(
                f"{self.name} cannot be read as Parquet ({_first_line(error)}): "
                "is it complete, and the format right?"
            ) from error

    def _lines(self, file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
        """(line number, line without its end), None for a line that is too long to hold."""
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if number == 1:
                line = self._without_mark(line)
            if len(line) > MAX_LINE_BYTES:
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE_BYTES)
                yield number, None
            else:
                yield number, line.rstrip(b"\r\n")

    def _without_mark(self, line: bytes) -> bytes:
        """The first line without a UTF-8 byte order mark; UTF-16 is named as what it is."""
        if line.startswith((b"\xff\xfe", b"\xfe\xff")) and self._encoding.lower().startswith("utf-8"):
            raise UnreadableFile(
                f"{self.name} is UTF-16: save it as UTF-8 (iconv -f UTF-16 -t UTF-8), and publish that"
            )
        return line.removeprefix(b"\xef\xbb\xbf")

    def _text(self, line: bytes) -> tuple[str, str | None]:
        """The line as text, and its problem if it is not text."""
        try:
            return line.decode(self._encoding), None
        except UnicodeDecodeError as error:
            byte = f"0x{line[error.start]:02X}"
            return line.decode(self._encoding, errors="backslashreplace"), (
                f"byte {byte} at position {error.start + 1} is not {self._encoding.upper()}: "
                "save the file as UTF-8, or name its encoding with --encoding (gb18030, latin-1, cp1252, ...)"
            )

    def _json_lines(self, file: BinaryIO) -> Iterator[Row]:
        begun = False
        for number, line in self._lines(file):
            if line is None:
                yield _too_long(number)
                continue
            if not line.strip():
                continue
            if not begun and line.lstrip().startswith(b"["):
                raise UnreadableFile(
                    f"{self.name} is one JSON array, and one object per line is expected: "
                    "jq -c '.[]' makes lines of it"
                )
            begun = True
            text, problem = self._text(line)
            values: Mapping[str, Any] | None = None
            if problem is None:
                values, problem = _json_object(text)
            yield Row(number, text, values, problem)

    def _separated(self, file: BinaryIO) -> Iterator[Row]:
        lines = _Recorded(self, self._lines(file))
        limit = csv.field_size_limit(MAX_LINE_BYTES)
        try:
            reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
            header = self._header(reader, lines)
            while True:
                lines.forget()
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield Row(lines.first, lines.original(), problem=_csv_problem(error))
                    continue
                if lines.problem is not None:
                    yield Row(lines.first, lines.original(), problem=lines.problem)
                elif cells and len(cells) != len(header):
                    yield Row(lines.first, lines.original(), problem=_ragged(cells, header, self._delimiter))
                elif cells:
                    yield Row(lines.first, lines.original(), dict(zip(header, cells, strict=True)))
        finally:
            csv.field_size_limit(limit)

    def _header(self, reader: Iterator[list[str]], lines: _Recorded) -> list[str]:
        try:
            header = next((cells for cells in reader if cells), None)
        except csv.Error as error:
            raise UnreadableFile(f"{self.name}: the header cannot be read: {_csv_problem(error)}") from error
        if lines.problem is not None:
            raise UnreadableFile(f"{self.name}: the header cannot be read: {lines.problem}")
        if header is None:
            return []
        header = [name.strip() for name in header]
        if len(header) == 1:
            other = next((mark for mark in (";", "\t", "|", ",") if mark in header[0]), None)
            if other is not None:
                raise UnreadableFile(
                    f"{self.name}: the header has one column {header[0]!r}: "
                    f"if columns are separated by {other!r}, say --delimiter {other!r}"
                )
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise UnreadableFile(
                f"{self.name}: the header names {twice[0]!r} twice: rename one of the columns"
            )
        return header

    def _parquet(self, file: BinaryIO) -> Iterator[Row]:
        number = 0
        with _seekable(file) as whole:
            for batch in pq.ParquetFile(whole).iter_batches(batch_size=_PARQUET_BATCH_ROWS):
                found, problem = _python_rows(batch)
                for values in found:
                    number += 1
                    yield Row(number, json.dumps(values, default=str, ensure_ascii=False), values)
                if problem is not None:
                    raise UnreadableFile(
                        f"{self.name} cannot be read as Parquet beyond row {number}: "
                        f"in row {number + 1} {problem}"
                    )


class _Recorded:
    """Lines for csv.reader that remember what one row was read from, and what was wrong with it."""

    def __init__(self, source: Source, lines: Iterator[tuple[int, bytes | None]]) -> None:
        self._source = source
        self._lines = lines
        self._texts: list[str] = []
        self.first = 0
        self.problem: str | None = None

    def forget(self) -> None:
        """The next row begins."""
        self._texts = []
        self.first = 0
        self.problem = None

    def original(self) -> str:
        return "\n".join(self._texts)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        number, line = next(self._lines)
        self.first = self.first or number
        if line is None:
            self.problem = _too_long(number).problem
            return "\n"
        text, problem = self._source._text(line)  # noqa: SLF001 - one class in two parts
        self.problem = self.problem or problem
        self._texts.append(text)
        return text + "\n"


@contextmanager
def opened(
    name: str,
    *,
    file_format: Format | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    standard_input: BinaryIO,
) -> Iterator[Source]:
    """The input of this name; `-` is standard input. The format follows from the name where none is given.

    Raises UnreadableFile where there is no such file, or no telling what it is.
    """
    if name == "-":
        if file_format is None:
            raise UnreadableFile(
                "standard input has no name to tell its format by: say --format jsonl|csv|parquet"
            )
        yield Source(None, standard_input, file_format=file_format, delimiter=delimiter, encoding=encoding)
        return
    path = Path(name)
    chosen = file_format or format_of(path)
    try:
        raw: BinaryIO = path.open("rb")
    except OSError as error:
        raise UnreadableFile(f"{name} cannot be opened: {error.strerror}") from error
    with raw:
        yield Source(path, raw, file_format=chosen, delimiter=delimiter, encoding=encoding)


def format_of(path: Path) -> Format:
    """The format that a file's name tells, `.gz` aside. Raises UnreadableFile where it tells none."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    found = _SUFFIXES.get(suffixes[-1]) if suffixes else None
    if found is None:
        known = ", ".join(sorted(_SUFFIXES))
        raise UnreadableFile(f"{path} does not end in {known}: say --format jsonl|csv|tsv|parquet")
    return found


def check(name: str, file_format: Format | None) -> None:
    """Raises UnreadableFile where `opened` would, without opening anything for long."""
    with opened(name, file_format=file_format, standard_input=io.BytesIO()):
        return


def _unzipped(raw: BinaryIO) -> BinaryIO:
    """The stream, decompressed if it starts as gzip does, whatever its name."""
    buffered = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast(Any, raw))
    if buffered.peek(2)[:2] == b"\x1f\x8b":
        return cast(BinaryIO, gzip.GzipFile(fileobj=cast("IO[bytes]", buffered)))
    return cast(BinaryIO, buffered)


@contextmanager
def _seekable(file: BinaryIO) -> Iterator[BinaryIO]:
    """Parquet is read from its end: what cannot seek cheaply goes through a temporary file on disk."""
    if isinstance(file, io.BufferedReader) and file.seekable():
        yield file
        return
    with tempfile.TemporaryFile() as copy:
        while block := file.read(1024 * 1024):
            copy.write(block)
        copy.seek(0)
        yield cast(BinaryIO, copy)


def _python_rows(batch: pa.RecordBatch) -> tuple[list[dict[str, Any]], str | None]:
    """Rows up to the first that Python has no values for (a date beyond the year 9999), and its problem."""
    try:
        return batch.to_pylist(), None
    except (OverflowError, ValueError):
        for place in range(batch.num_rows):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                try:
                    column[place].as_py()
                except (OverflowError, ValueError) as error:
                    problem = f"column {name!r} holds no {column.type} ({_first_line(error)})"
                    return batch.slice(0, place).to_pylist(), problem
        raise


class _Unacceptable(ValueError):
    """A JSON document that some readers accept and Kafka's readers should never see."""


def _json_object(text: str) -> tuple[Mapping[str, Any] | None, str | None]:
    """The object of one line, numbers with a fraction left as text so that amounts stay exact."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=str)
        whole = "\\u" not in text or not _has_surrogate(value)
    except _Unacceptable as error:
        return None, str(error)
    except json.JSONDecodeError as error:
        return None, f"not JSON: {error.msg} at column {error.colno}; each line must be one JSON object"
    except ValueError:
        return None, "holds a whole number of thousands of digits: write it as text, in quotes"
    except RecursionError:
        return None, "nested too deeply: an event holds texts, numbers and flat lists"
    if not whole:
        return (
            None,
            "not text: holds half a character (a lone surrogate such as \\ud83d); write the whole one",
        )
    if not isinstance(value, dict):
        return None, f"expected one JSON object per line, got {type(value).__name__}: {text[:40]!r}"
    return value, None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Unacceptable(f"field '{twice}' stands twice in the same object: keep one of them")
    return values


def _no_constant(name: str) -> Any:
    raise _Unacceptable(f"{name} is not JSON: leave the field out, or write null")


def _has_surrogate(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _too_long(number: int) -> Row:
    return Row(
        number, "", problem=f"the line is longer than {MAX_LINE_BYTES} bytes: no topic takes such a record"
    )


def _ragged(cells: list[str], header: list[str], delimiter: str) -> str:
    more = "more" if len(cells) > len(header) else "fewer"
    return (
        f"{len(cells)} columns, {more} than the header's {len(header)}: "
        f"put text that holds {delimiter!r} or a line end in double quotes"
    )


def _csv_problem(error: csv.Error) -> str:
    return f"not CSV: {error}; write a quote inside quotes twice, and close every quote"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
