"""`simstream publish products|reviews|events FILE...`: a shop's files onto Kafka.

Reads   JSON Lines, CSV, Parquet, plain or gzipped, or standard input
Writes  the topic; rejected rows to FILE.rejected.jsonl; progress to stderr, a report to stdout

Exit codes: 0 every row is confirmed; 2 some were rejected; 1 some were not confirmed; 130 Ctrl-C.
"""

from __future__ import annotations

import codecs
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from adapters.kafka import Publisher
from adapters.kafka_admin import ensure_topics, open_admin
from app.discovery import kafka_settings
from app.observability import start_tracing
from app.settings import Settings, load_settings
from producers.importers import Importer, Lane, Rejects, Tally, rejected_path, remove_stale
from producers.mapping import TARGETS, EventMaker, InvalidMapping, Target, mapping_of
from producers.rows import Source, UnreadableFile, check, opened
from schemas.errors import Halt, Transient
from schemas.topics import Topic

_PROGRESS_SECONDS = 0.1


class What(StrEnum):
    """What the rows are."""

    PRODUCTS = "products"
    REVIEWS = "reviews"
    EVENTS = "events"


class FileFormat(StrEnum):
    """How the rows are written."""

    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("publish")(publish)


def publish(
    what: Annotated[What, typer.Argument(help="What the rows are.")],
    files: Annotated[list[str], typer.Argument(help="Files; - is standard input.", metavar="FILE...")],
    file_format: Annotated[
        FileFormat | None, typer.Option("--format", help="By default told by the file's name; .gz is fine.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--map", help="FIELD=COLUMN, for example title=product_name; may be repeated."),
    ] = None,
    constants: Annotated[
        list[str] | None,
        typer.Option("--set", help="FIELD=VALUE for rows without it, for example currency=EUR."),
    ] = None,
    rest_as_attributes: Annotated[
        bool, typer.Option("--rest-as-attributes", help="Every column left over becomes an attribute.")
    ] = False,
    category_separator: Annotated[str, typer.Option(help="Between the levels of a category path.")] = ">",
    zone: Annotated[
        str | None, typer.Option(help="The zone of times that have none: UTC, Europe/Berlin, ...")
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="Between the columns of a CSV file.")] = None,
    encoding: Annotated[str, typer.Option(help="Of text files.")] = "utf-8",
    lane: Annotated[
        Lane, typer.Option(help="auto: more than 1,000 rows travel in the bulk lane and delay nothing live.")
    ] = Lane.AUTO,
    rejected: Annotated[
        Path | None, typer.Option(help="Where rejected rows go; by default FILE.rejected.jsonl.")
    ] = None,
    data_dir: Annotated[
        Path,
        typer.Option(help="Where `simstream up --embedded` keeps its data, and says where its broker is."),
    ] = Path("var"),
) -> None:
    """Publish files onto Kafka, each row validated, and confirmed by the broker."""
    target = TARGETS[what.value]
    settings = load_settings()
    start_tracing(settings.tracing, process="publish")
    topic: Topic = getattr(settings.named_topics(), what.value)
    try:
        maker = EventMaker(
            target,
            mapping_of(
                target,
                columns=columns or (),
                constants=constants or (),
                category_separator=category_separator,
                rest_as_attributes=rest_as_attributes,
                zone=_zone(zone),
            ),
            clock=lambda: datetime.now(UTC),
        )
    except InvalidMapping as error:
        fail(str(error))
    _check(files, file_format, rejected, delimiter, encoding)
    tallies = []
    with broker(settings, data_dir, topics=[topic]) as publisher:
        importer = Importer(publisher=publisher, topic=topic, target=target, maker=maker, lane=lane)
        for name in files:
            tally = _import(
                importer,
                name,
                rejected or rejected_path(name),
                file_format,
                delimiter,
                encoding,
                rejected is None,
            )
            print(report(name, tally, target))
            tallies.append(tally)
            if tally.interrupted:
                break
    raise typer.Exit(exit_code(tallies))


def report(name: str, tally: Tally, target: Target) -> str:
    """What became of one file, in words; the counts add up."""
    lines = [
        f"{'standard input' if name == '-' else name}: {tally.read:,} {target.name} read, "
        f"{tally.acknowledged:,} acknowledged by the broker, {tally.rejected:,} rejected, "
        f"{tally.failed:,} failed"
        + (f", {tally.unconfirmed:,} unconfirmed" if tally.unconfirmed else "")
        + (f", {tally.unsent:,} not sent" if tally.unsent else "")
        + (f" ({tally.bulk:,} in the bulk lane)" if tally.bulk else "")
    ]
    lines += [f"  {count:,} x {reason}" for reason, count in tally.reasons.most_common(5)]
    if tally.rejected_file is not None:
        lines.append(f"  rejected rows, with line number and reason: {tally.rejected_file}")
    if tally.unreadable:
        lines.append(f"  stopped: {tally.unreadable}")
    if tally.interrupted:
        lines.append("  interrupted: publishing the file again is safe, every event is applied once")
    return "\n".join(lines)


def exit_code(tallies: list[Tally]) -> int:
    """130 interrupted, 1 not everything was confirmed or readable, 2 rows were rejected, else 0."""
    if any(tally.interrupted for tally in tallies):
        return 130
    if any(tally.failed or tally.unconfirmed or tally.unreadable for tally in tallies):
        return 1
    return 2 if any(tally.rejected for tally in tallies) else 0


def fail(sentence: str, code: int = 2) -> NoReturn:
    """Say what is wrong on standard error, and leave."""
    print(f"simstream: {sentence}", file=sys.stderr)
    raise typer.Exit(code)


@contextmanager
def broker(settings: Settings, data_dir: Path, *, topics: list[Topic]) -> Iterator[Publisher]:
    """A publisher on topics that exist; leaves with a sentence where the broker is away or refuses."""
    kafka = kafka_settings(settings, data_dir)
    wanted = {topic.name for topic in topics} | {topic.dead_letters for topic in topics}
    try:
        ensure_topics(
            open_admin(kafka),
            (topic for topic in settings.named_topics().declared() if topic.name in wanted),
            partitions=kafka.partitions,
            replication_factor=kafka.replication_factor,
        )
    except (Transient, Halt) as error:
        fail(
            f"no Kafka at {kafka.bootstrap_servers} ({error}): start it, or set "
            "SIMSTREAM_KAFKA__BOOTSTRAP_SERVERS",
            code=1,
        )
    publisher = Publisher(kafka, client_id="simstream-publish")
    try:
        yield publisher
    finally:
        publisher.close()


def _check(
    files: list[str],
    file_format: FileFormat | None,
    rejected: Path | None,
    delimiter: str | None,
    encoding: str,
) -> None:
    """Refuse what cannot be meant, before anything is sent."""
    if rejected is not None and len(files) > 1:
        fail("--rejected names one file, and there are several inputs: publish one by one, or leave it out")
    if rejected is not None and any(Path(name).resolve() == rejected.resolve() for name in files):
        fail(f"--rejected {rejected} is the input itself: name another file")
    if files.count("-") > 1:
        fail("standard input can be read once: give - once")
    if delimiter is not None and len(delimiter) != 1:
        fail(f"--delimiter takes one character (got {delimiter!r}); a tab is $'\\t' in most shells")
    try:
        "".encode(encoding)
    except LookupError:
        fail(f"--encoding {encoding!r} is unknown: utf-8, gb18030, latin-1, cp1252, ...")
    if codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")):
        fail(f"--encoding {encoding} cannot be read line by line: run iconv -f {encoding} -t UTF-8 first")
    try:
        for name in files:
            check(name, file_format.value if file_format is not None else None)
    except UnreadableFile as error:
        fail(str(error))


def _zone(name: str | None) -> tzinfo | None:
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        fail(f"--zone {name!r} is unknown: write UTC, Europe/Berlin, America/New_York, ...")


def _import(
    importer: Importer,
    name: str,
    rejected: Path,
    file_format: FileFormat | None,
    delimiter: str | None,
    encoding: str,
    is_default: bool,
) -> Tally:
    """One file, with its progress on standard error."""
    try:
        with opened(
            name,
            file_format=file_format.value if file_format is not None else None,
            delimiter=delimiter,
            encoding=encoding,
            standard_input=sys.stdin.buffer,
        ) as source:
            if is_default:
                remove_stale(rejected)
            with _progress(source) as advance:
                return importer.run(source, Rejects(rejected), progress=advance)
    except UnreadableFile as error:
        return Tally(unreadable=str(error))


@contextmanager
def _progress(source: Source) -> Iterator[Callable[[Tally], None]]:
    """A bar over the bytes of a file, or a count where nobody knows how much will come."""
    columns = [SpinnerColumn(), TextColumn("{task.description}")]
    if not source.is_stream:
        columns += [BarColumn(), DownloadColumn()]
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(source.name, total=source.total_bytes)
        last = 0.0

        def advance(tally: Tally) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last < _PROGRESS_SECONDS:
                return
            last = now
            bar.update(
                task,
                completed=source.position_bytes(),
                description=f"{source.name}: {tally.acknowledged:,} of {tally.read:,} acknowledged"
                + (f", {tally.rejected:,} rejected" if tally.rejected else ""),
            )

        yield advance
