"""`simstream shop`: the synthetic shop as a bounded or endless stream, onto Kafka or into a file.

Reads   nothing: everything follows from the seed
Writes  products, reviews, user events to their topics, or all of them as JSON Lines to one file
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from adapters.kafka import Headers, Publisher
from app.commands.publish import broker, fail
from app.observability import start_tracing
from app.settings import load_settings
from producers.importers import BULK_ROWS
from producers.shop import Shop, ShopEvent
from schemas.events import ReviewPosted, UserEvent
from schemas.topics import BULK_LANE, LANE_HEADER, Topic, Topics

_BULK: Headers = ((LANE_HEADER, BULK_LANE.encode()),)
DEFAULT_RATE = 10.0
_FLUSH_SECONDS = 130.0
_PROGRESS_SECONDS = 0.1
#: What takes one event onward. The flag says whether it belongs to a large import.
Take = Callable[[ShopEvent, bool], None]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("shop")(shop)


def shop(
    products: Annotated[int, typer.Option(min=1, help="How many products the catalogue has.")] = 1_000,
    seed: Annotated[int, typer.Option(help="Another seed is another shop.")] = 7,
    shoppers: Annotated[
        int | None, typer.Option(min=1, help="How many shoppers it has; by default one for two products.")
    ] = None,
    history: Annotated[
        bool, typer.Option(help="Publish the reviews and shopper events of the last 30 days as well.")
    ] = True,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, help="Then go on live with so many events a second, until Ctrl-C."),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Go on live for so many events.")] = None,
    duration: Annotated[
        float | None,
        typer.Option(min=0.001, help="Go on live for so many seconds, 10 events each unless --rate says."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write JSON Lines to this file instead of Kafka; - is standard output."),
    ] = None,
    start: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S"],
            help="When the catalogue is published (UTC where no zone is given); by default now. "
            "The same seed and start write the same file.",
        ),
    ] = None,
    data_dir: Annotated[
        Path,
        typer.Option(help="Where `simstream up --embedded` keeps its data, and says where its broker is."),
    ] = Path("var"),
) -> None:
    """A synthetic shop: catalogue, history, and what happens from then on (--rate, --count, --duration)."""
    if duration is not None and rate is None and count is None:
        rate = DEFAULT_RATE
    live = rate is not None or count is not None or duration is not None
    opening = start or datetime.now(UTC)
    made = Shop(
        seed,
        products=products,
        shoppers=shoppers if shoppers is not None else max(20, products // 2),
        start=opening if opening.tzinfo is not None else opening.replace(tzinfo=UTC),
    )
    if out is not None and live and count is None and duration is None:
        fail("a file cannot take an endless stream: say --count or --duration")
    counts: Counter[str] = Counter()
    plan = _Plan(made, history=history, live=live, rate=rate, count=count, duration=duration, counts=counts)
    settings = load_settings()
    start_tracing(settings.tracing, process="shop")
    if out is not None:
        with _file(out) as file:
            interrupted = plan.run(lambda event, _: _write(file, event), wall_clock=start is None)
        print(f"{sum(counts.values()):,} events written: {_words(counts)}", file=sys.stderr)
        raise typer.Exit(130 if interrupted else 0)
    topics = settings.named_topics()
    with broker(settings, data_dir, topics=[topics.products, topics.reviews, topics.events]) as publisher:
        sender = _Sender(publisher, topics)
        interrupted = plan.run(sender.send, wall_clock=True)
        sender.wait(10.0 if interrupted else _FLUSH_SECONDS)
    print(
        f"{sender.sent:,} events sent, {sender.acknowledged:,} acknowledged by the broker, "
        f"{sender.sent - sender.acknowledged:,} not: {_words(counts)}"
    )
    if interrupted:
        raise typer.Exit(130)
    raise typer.Exit(0 if sender.acknowledged == sender.sent else 1)


class _Plan:
    """What is to come out, in which order: catalogue, history, then live events at a rate."""

    def __init__(
        self,
        made: Shop,
        *,
        history: bool,
        live: bool,
        rate: float | None,
        count: int | None,
        duration: float | None,
        counts: Counter[str],
    ) -> None:
        self._shop = made
        self._history = history
        self._live = live
        self._rate = rate
        self._count = count
        self._duration = duration
        self._counts = counts

    def run(self, take: Take, *, wall_clock: bool) -> bool:
        """Hand every event to `take`; whether Ctrl-C ended it. Live events carry the time they happen at."""
        try:
            self._catalogue(take)
            if self._live:
                self._go_on(take, wall_clock=wall_clock)
        except KeyboardInterrupt:
            return True
        return False

    def _catalogue(self, take: Take) -> None:
        total = len(self._shop.listings)
        with _bar("catalogue", total) as advance:
            for number, product in enumerate(self._shop.products(), start=1):
                self._one(take, product, bulk=total > BULK_ROWS)
                advance(number)
        if self._history:
            with _bar("history", None) as advance:
                for number, event in enumerate(self._past(), start=1):
                    self._one(take, event, bulk=True)
                    advance(number)

    def _past(self) -> Iterator[ShopEvent]:
        yield from self._shop.reviews()
        yield from self._shop.events()

    def _go_on(self, take: Take, *, wall_clock: bool) -> None:
        clock = (lambda: datetime.now(UTC)) if wall_clock else None
        begun = time.monotonic()
        with _bar("live", self._count) as advance:
            for number, event in enumerate(self._shop.stream(count=self._count, clock=clock), start=1):
                self._one(take, event, bulk=False)
                advance(number)
                now = time.monotonic()
                if self._duration is not None and now - begun >= self._duration:
                    return
                if self._rate is not None and number / self._rate > now - begun:
                    time.sleep(number / self._rate - (now - begun))

    def _one(self, take: Take, event: ShopEvent, *, bulk: bool) -> None:
        take(event, bulk)
        self._counts[type(event).__name__] += 1


class _Sender:
    """Sends each event to its topic under its key, and counts what the broker confirms."""

    def __init__(self, publisher: Publisher, topics: Topics) -> None:
        self._publisher = publisher
        self._topics = topics
        self._lock = threading.Lock()
        self.sent = 0
        self.acknowledged = 0

    def send(self, event: ShopEvent, bulk: bool) -> None:
        topic, key = self._where(event)
        self.sent += 1
        self._publisher.send(
            topic.name,
            key=key,
            value=event.model_dump_json(exclude_none=True).encode(),
            headers=_BULK if bulk else (),
            on_ack=self._answered,
        )

    def wait(self, seconds: float) -> None:
        """Until the broker has confirmed everything, or `seconds` have passed."""
        deadline = time.monotonic() + seconds
        while self._publisher.flush(0.2) and time.monotonic() < deadline:
            pass

    def _where(self, event: ShopEvent) -> tuple[Topic, str]:
        if isinstance(event, UserEvent):
            return self._topics.events, event.user_id
        if isinstance(event, ReviewPosted):
            return self._topics.reviews, event.product_id
        return self._topics.products, event.product_id

    def _answered(self, error: Exception | None) -> None:
        if error is None:
            with self._lock:
                self.acknowledged += 1


def _write(file: IO[bytes], event: ShopEvent) -> None:
    file.write(event.model_dump_json(exclude_none=True).encode() + b"\n")


@contextmanager
def _file(path: Path) -> Iterator[IO[bytes]]:
    """The file to write, under its name once it is done; `-` is standard output."""
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    beside = path.with_name(path.name + ".part")
    try:
        with beside.open("wb") as file:
            yield file
        os.replace(beside, path)
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}", code=1)


@contextmanager
def _bar(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    columns = [SpinnerColumn(), TextColumn("{task.description}")]
    if total is not None:
        columns += [BarColumn()]
    with Progress(
        *columns, MofNCompleteColumn(), TimeElapsedColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(name, total=total)
        last = 0.0

        def advance(number: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _PROGRESS_SECONDS:
                last = now
                bar.update(task, completed=number)

        yield advance


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in counts.most_common()) or "none"
