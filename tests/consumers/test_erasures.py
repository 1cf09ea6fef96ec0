"""An erasure is acknowledged once all that was read before it is done, or somebody else's."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime

from adapters.kafka import Record
from adapters.redis_client import RedisSettings, connect
from adapters.redis_nodes import RedisNodes
from adapters.redis_readers import ErasureReaders
from app.local import LocalRedis
from consumers.erasures import Erasures, OlderWork, Reached, erasure_key
from consumers.progress import Delivery, Progress
from schemas.errors import Halt, Transient
from schemas.events import UserErased

AT = datetime(2026, 11, 26, 8, tzinfo=UTC)
KEY = b"k"


def erased(user_id: str, *, partition: int = 0, offset: int = 0) -> Record:
    body = UserErased(erased_at=AT).model_dump_json().encode()
    return Record("e", "id", partition, offset, 1, erasure_key(user_id, KEY).encode(), body, ())


def in_hand(progress: Progress, count: int) -> list[Delivery[str]]:
    made = [Delivery("event", offset, progress) for offset in range(count)]
    progress.in_flight.extend(made)
    return made


def test_reached_grows_by_partition_and_never_goes_back() -> None:
    erasures = Erasures(key=KEY)
    assert erasures.reached == {}
    erasures.take([erased("u1", offset=4), erased("u2", partition=1, offset=2)])
    first = erasures.reached
    assert first == {0: 5, 1: 3}
    # Read again from the beginning, as the follower does after the start.
    erasures.take([erased("u1", offset=0)])
    assert erasures.reached is first
    erasures.take([erased("u1", offset=9)])
    assert erasures.reached == {0: 10, 1: 3}
    assert first == {0: 5, 1: 3}


def test_older_work_is_done_when_all_of_it_is_settled_and_not_when_most_of_it_is() -> None:
    progress = Progress(None)
    made = in_hand(progress, 3)
    older = OlderWork({0: 1}, [progress])
    made[2].settle()
    made[0].settle()
    assert not older.done()
    later = in_hand(progress, 1)[0]
    made[1].settle()
    assert older.done()
    assert not later.settled


def test_work_that_went_elsewhere_is_not_waited_for() -> None:
    progress = Progress(None)
    in_hand(progress, 2)
    older = OlderWork({0: 1}, [progress])
    assert not older.done()
    progress.abandon()
    assert older.done()


def test_a_follower_tells_what_was_acknowledged_and_goes_on_after_a_store_was_away() -> None:
    erasures, told = Erasures(key=KEY), list[Reached]()
    away = [Transient("away")]
    batches: list[list[Record]] = [[erased("u1")]]

    def poll(seconds: float) -> Iterable[Record]:
        time.sleep(0.01)
        return batches.pop() if batches else []

    def report(reached: Reached) -> None:
        if reached and away:
            raise away.pop()
        told.append(reached)

    released = threading.Event()
    erasures.follow(poll, release=released.set, report=report)
    deadline = time.monotonic() + 10
    while erasures.reached != {0: 1}:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    erasures.acknowledge(erasures.reached)
    while {0: 1} not in told:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    erasures.close()
    assert released.is_set()
    assert not away


def test_a_follower_that_dies_is_fatal_and_does_not_take_leave() -> None:
    """Events may be in hand that were read without the erasure: `forget` must not pass this process over."""
    erasures, released = Erasures(key=KEY), threading.Event()
    gone = Halt("user.erasures cannot be read")

    def poll(seconds: float) -> Iterable[Record]:
        raise gone

    assert erasures.fatal is None
    erasures.follow(poll, release=released.set)
    deadline = time.monotonic() + 10
    while erasures.fatal is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    erasures.close()
    assert erasures.fatal is gone
    assert not released.is_set()


def test_readers_stand_in_redis_until_they_leave_or_fall_silent(
    redis_server: LocalRedis, namespace: str
) -> None:
    nodes = RedisNodes(connect(RedisSettings(url=redis_server.url)))
    readers = ErasureReaders(nodes=nodes, namespace=namespace)
    assert readers.standing() == {}
    readers.report("one", {0: 3, 7: 1})
    readers.report("two", {})
    assert readers.standing() == {"one": {0: 3, 7: 1}, "two": {}}
    readers.leave("two")
    key = f"{namespace}erasures:readers"
    nodes.of(key).hset(key, "silent", '{"at": 1.0, "next": {"0": 9}}')
    assert readers.standing() == {"one": {0: 3, 7: 1}}
    assert nodes.of(key).hkeys(key) == [b"one"]
