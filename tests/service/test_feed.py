"""service/feed.py: who listens hears what comes, nobody holds up others, and an idle feed costs nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from queue import Empty, SimpleQueue

import pytest

from adapters.kafka import Record
from schemas.errors import Halt, Transient
from schemas.events import ItemUpdated, StageTimes
from service.errors import Busy
from service.feed import WAITING, UpdateFeed

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)


def update(
    item_id: str, *, calls: int = 0, collection: str = "items__r1__1", took_ms: int = 40
) -> ItemUpdated:
    """The index shows a change."""
    return ItemUpdated(
        product_id=item_id,
        collection=collection,
        dimensions=["content"] if calls else ["context"],
        encoder_calls=calls,
        revision=7,
        stages=StageTimes(occurred_at=NOW, searchable_at=NOW + timedelta(milliseconds=took_ms)),
    )


def record(value: bytes | None) -> Record:
    return Record("items.updated", "t", 0, 0, 0, None, value)


class Topic:
    """A source that the test fills. `fails` is raised by the next poll."""

    def __init__(self) -> None:
        self.arriving: SimpleQueue[Record] = SimpleQueue()
        self.fails: BaseException | None = None
        self.opened = 0
        self.closed = 0
        self.polls = 0

    def open(self) -> Topic:
        self.opened += 1
        return self

    def send(self, *updates: ItemUpdated) -> None:
        for one in updates:
            self.arriving.put(record(one.model_dump_json().encode()))

    def poll(self, timeout_seconds: float, *, limit: int = 1_000) -> list[Record]:
        """See the protocol."""
        self.polls += 1
        if self.fails is not None:
            error, self.fails = self.fails, None
            raise error
        found = []
        try:
            found.append(self.arriving.get(timeout=min(timeout_seconds, 0.02)))
            while len(found) < limit:
                found.append(self.arriving.get_nowait())
        except Empty:
            pass
        return found

    def close(self) -> None:
        """See the protocol."""
        self.closed += 1


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 10.0
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)


def followers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "update-feed"}


def feed_of(topic: Topic, *, most: int = 4, idle_seconds: float = 60.0) -> UpdateFeed:
    return UpdateFeed(opened=topic.open, most_listeners=most, idle_seconds=idle_seconds)


def test_everyone_who_listens_hears_every_change_and_only_from_then_on() -> None:
    topic = Topic()
    feed = feed_of(topic)

    async def listen() -> list[list[str]]:
        with feed.listening() as one, feed.listening() as two:
            topic.send(update("a"), update("b"))
            heard = []
            for listener in (one, two):
                found: list[ItemUpdated] = []
                while len(found) < 2:
                    more, passed_over = await listener.taken(5.0)
                    assert passed_over == 0
                    found += more
                heard.append([each.product_id for each in found])
            return heard

    assert asyncio.run(listen()) == [["a", "b"], ["a", "b"]]
    assert [each.product_id for each in feed.recent()] == ["a", "b"]
    feed.close()
    assert topic.opened == topic.closed == 1


def test_one_listener_too_many_is_told_so_and_a_place_comes_free_again() -> None:
    feed = feed_of(Topic(), most=1)

    async def listen() -> None:
        with feed.listening():
            with pytest.raises(Busy, match="1 listen already"), feed.listening():
                pass
        with feed.listening():
            pass

    asyncio.run(listen())
    feed.close()


def test_a_slow_listener_loses_the_oldest_and_hears_how_many() -> None:
    topic = Topic()
    feed = feed_of(topic)

    async def listen() -> tuple[list[ItemUpdated], int]:
        with feed.listening() as listener:
            topic.send(*(update(str(number)) for number in range(WAITING + 30)))
            await asyncio.to_thread(eventually, lambda: len(feed.recent()) == WAITING + 30)
            await asyncio.sleep(0.05)
            return await listener.taken(5.0)

    found, passed_over = asyncio.run(listen())
    feed.close()
    assert passed_over == 30
    assert [each.product_id for each in found] == [str(number) for number in range(30, WAITING + 30)]


def test_silence_is_an_empty_answer() -> None:
    feed = feed_of(Topic())

    async def listen() -> tuple[list[ItemUpdated], int]:
        with feed.listening() as listener:
            return await listener.taken(0.01)

    assert asyncio.run(listen()) == ([], 0)
    feed.close()


@pytest.mark.parametrize("error", [Transient("the broker is away"), Halt("no such topic")])
def test_a_broker_that_goes_away_is_said_and_asked_again(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.feed.RETRY_SECONDS", 0.05)
    topic = Topic()
    feed = feed_of(topic)
    feed.recent()
    eventually(lambda: topic.polls > 0)
    topic.fails = error
    eventually(lambda: topic.opened == 2)
    topic.send(update("after"))
    eventually(lambda: [each.product_id for each in feed.recent()] == ["after"])
    eventually(lambda: feed.away is None)
    feed.close()


def test_what_cannot_be_read_is_passed_over() -> None:
    topic = Topic()
    feed = feed_of(topic)
    topic.arriving.put(record(b"{}"))
    topic.arriving.put(record(None))
    topic.send(update("good"))
    eventually(lambda: [each.product_id for each in feed.recent()] == ["good"])
    feed.close()


def test_while_nobody_asks_nothing_runs_and_whoever_asks_starts_it_again() -> None:
    topic = Topic()
    # Feeds of other tests in this process may follow for a while yet.
    others = followers()
    feed = feed_of(topic, idle_seconds=0.05)
    assert topic.opened == 0
    feed.recent()
    eventually(lambda: topic.closed == 1)
    # The thread closes the topic before it ends.
    eventually(lambda: not followers() - others)
    feed.recent()
    eventually(lambda: topic.opened == 2)
    feed.close()
