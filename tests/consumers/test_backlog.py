"""consumers/backlog.py: live records pass bulk ones, and bulk ones always move."""

from __future__ import annotations

import threading

from adapters.kafka import Record
from consumers.backlog import Backlog, Unread, is_bulk
from consumers.progress import Delivery, Progress
from schemas.topics import BULK_LANE, LANE_HEADER


def record(offset: int, *, bulk: bool = False) -> Record:
    headers = ((LANE_HEADER, BULK_LANE.encode()),) if bulk else ((LANE_HEADER, b"live"),)
    return Record("t", "id", 0, offset, 0, b"k", b"v", headers)


def live(*offsets: int) -> list[Delivery[str]]:
    return [Delivery("event", offset, Progress(None)) for offset in offsets]


def bulk(*offsets: int) -> list[Unread[str]]:
    return [Unread(record(one, bulk=True), Delivery(None, one, Progress(None))) for one in offsets]


def test_the_header_tells_the_lane() -> None:
    assert is_bulk(record(1, bulk=True))
    assert not is_bulk(record(1))


def test_a_live_record_passes_a_whole_catalogue() -> None:
    backlog: Backlog[str] = Backlog()
    backlog.put([], bulk(*range(10_000)))
    backlog.put(live(10_000), [])
    taken = backlog.take(100)
    assert taken is not None
    assert [one.offset for one in taken[0]] == [10_000]
    assert taken[1] == []


def test_bulk_records_get_every_tenth_take_while_live_ones_never_end() -> None:
    backlog: Backlog[str] = Backlog()
    backlog.put(live(*range(1_000)), bulk(*range(1_000)))
    takes = [backlog.take(10) for _ in range(40)]
    assert sum(1 for taken in takes if taken is not None and taken[1]) == 4
    assert all(len(taken[0]) + len(taken[1]) <= 10 for taken in takes if taken is not None)


def test_everything_is_taken_once_and_in_the_order_of_its_lane() -> None:
    backlog: Backlog[str] = Backlog()
    backlog.put(live(*range(100)), bulk(*range(100, 200)))
    seen_live: list[int] = []
    seen_bulk: list[int] = []
    while len(seen_live) + len(seen_bulk) < 200:
        taken = backlog.take(7)
        assert taken is not None
        seen_live += [one.offset for one in taken[0]]
        seen_bulk += [one.record.offset for one in taken[1]]
    assert seen_live == list(range(100))
    assert seen_bulk == list(range(100, 200))


def test_bulk_batches_are_small_for_a_second_after_a_live_record() -> None:
    clock = [100.0]
    backlog: Backlog[str] = Backlog(now=lambda: clock[0])
    backlog.put([], bulk(*range(1_000)))
    sizes = []
    for now, came in ((100.0, []), (101.0, live(1_000)), (101.9, []), (102.1, [])):
        clock[0] = now
        backlog.put(came, [])
        if came:
            backlog.take(100)
        taken = backlog.take(100)
        assert taken is not None
        sizes.append(len(taken[1]))
    assert sizes == [50, 10, 10, 50]


def test_how_many_bulk_records_wait_is_known_by_topic() -> None:
    backlog: Backlog[str] = Backlog()
    backlog.put([], bulk(*range(30)))
    assert backlog.bulk_waiting("t") == 30
    assert backlog.bulk_waiting("other") == 0
    backlog.take(20)
    assert backlog.bulk_waiting("t") == 20


def test_closing_wakes_whoever_waits_for_records() -> None:
    backlog: Backlog[str] = Backlog()
    answers: list[object] = []
    waiter = threading.Thread(target=lambda: answers.append(backlog.take(1)))
    waiter.start()
    backlog.close()
    waiter.join(5.0)
    assert answers == [None]
