"""The worklist: one entry per item, live before bulk, bulk with its share, nothing forgotten."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from consumers.assembly import Encoded, Wanted
from consumers.progress import Delivery, Progress
from consumers.work import BULK, LIVE, Entry, Hint, Worklist

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)


def hint(
    product_id: str, lane: int = LIVE, *, progress: Progress | None = None, at: datetime = NOW
) -> Delivery[Hint]:
    return Delivery(Hint(product_id, lane, at, None), 0, progress or Progress(None))


def wanted(text: str) -> Wanted:
    return Wanted(fingerprint=f"fp:{text}", text=text)


def vector_of(asked: Wanted) -> Encoded:
    return Encoded(fingerprint=asked.fingerprint, vector=[1.0])


def take(work: Worklist, limit: int = 100) -> list[tuple[Entry, int]]:
    return work.take_due(limit, 0.0)


def ids(taken: list[tuple[Entry, int]]) -> list[str]:
    return [entry.product_id for entry, _ in taken]


def queue_texts(work: Worklist, lane: int, count: int) -> None:
    work.add([hint(f"{lane}-{number}", lane) for number in range(count)])
    for entry, _ in take(work, 10_000):
        work.want(entry, (wanted(entry.product_id),))


def test_hints_for_one_item_are_served_by_one_comparison() -> None:
    work = Worklist()
    hints = [hint("a"), hint("b"), hint("a")]
    work.add(hints)
    assert len(work) == 2
    (first, count), (second, _) = take(work)
    assert (first.product_id, count, second.product_id) == ("a", 2, "b")
    work.served(first, count)
    assert [one.settled for one in hints] == [True, False, True]


def test_what_is_in_hand_tells_how_long_it_has_waited_and_where() -> None:
    work = Worklist()
    assert work.oldest_seconds(LIVE) == 0.0
    work.add([hint("a"), hint("b")])
    (first, count), (second, _) = take(work)
    first.since -= 50.0
    work.add([hint("c", BULK)])
    assert 50.0 <= work.oldest_seconds(LIVE) < 60.0
    assert work.oldest_seconds(BULK) < 10.0
    assert (work.waiting("due", LIVE), work.waiting("due", BULK)) == (0, 1)
    work.want(second, (wanted("t"),))
    assert (work.waiting("unencoded", LIVE), work.waiting("unencoded", BULK)) == (1, 0)
    # One that came while the first was served has not waited for as long.
    work.add([hint("a")])
    work.served(first, count)
    assert 0.0 < work.oldest_seconds(LIVE) < 10.0


def test_a_hint_that_came_after_the_reading_is_not_settled_by_it() -> None:
    work = Worklist()
    early, late = hint("a"), hint("a", at=NOW + timedelta(seconds=5))
    work.add([early])
    ((entry, count),) = take(work)
    work.add([late])  # while the writer reads the state
    work.served(entry, count)
    assert early.settled
    assert not late.settled
    ((again, count),) = take(work)
    assert (again.product_id, count) == ("a", 1)
    assert again.occurred_at == late.event.occurred_at
    work.served(again, count)
    assert late.settled
    assert len(work) == 0


def test_live_goes_first_and_bulk_keeps_a_tenth_of_the_places() -> None:
    work = Worklist()
    work.add([hint(f"bulk{number}", BULK) for number in range(50)])
    work.add([hint(f"live{number}") for number in range(50)])
    names = ids(take(work, 20))
    assert [name[:4] for name in names] == ["live"] * 18 + ["bulk"] * 2


@pytest.mark.parametrize(("live", "bulk"), [(0, 30), (30, 0), (3, 30)])
def test_places_that_one_lane_leaves_are_the_others(live: int, bulk: int) -> None:
    work = Worklist()
    work.add([hint(f"bulk{number}", BULK) for number in range(bulk)])
    work.add([hint(f"live{number}") for number in range(live)])
    assert len(take(work, 20)) == min(20, live + bulk)


def test_a_live_hint_promotes_an_item_that_waits_in_bulk() -> None:
    work = Worklist()
    work.add([hint(f"bulk{number}", BULK) for number in range(50)])
    work.add([hint("bulk40")])
    assert ids(take(work, 1 + 5))[0] == "bulk40"


def test_a_live_hint_promotes_a_text_that_waits_in_bulk() -> None:
    work = Worklist()
    queue_texts(work, BULK, 50)
    work.add([hint("1-40")])
    ((entry, _),) = take(work)
    work.want(entry, (wanted("1-40"),))
    assert [one.product_id for one, _ in work.take_unencoded(LIVE, 8, 0.0)] == ["1-40"]


def test_each_lane_has_its_own_texts_however_many_wait_in_the_other() -> None:
    work = Worklist()
    queue_texts(work, BULK, 40)
    queue_texts(work, LIVE, 40)
    for lane in (BULK, LIVE):
        batch = work.take_unencoded(lane, 16, 0.0)
        assert [entry.lane for entry, _ in batch] == [lane] * 16


def test_bulk_texts_go_in_long_batches_when_nothing_live_waits() -> None:
    work = Worklist()
    queue_texts(work, BULK, 100)
    assert len(work.take_unencoded(BULK, 64, 0.0)) == 64


def test_a_text_in_the_encoder_is_not_asked_for_again() -> None:
    work = Worklist()
    work.add([hint("a")])
    ((entry, _),) = take(work)
    work.want(entry, (wanted("t1"),))
    ((_, asked),) = work.take_unencoded(LIVE, 8, 0.0)
    work.add([hint("a")])  # a price change meanwhile
    ((entry, _),) = take(work)
    work.want(entry, (wanted("t1"),))
    assert work.take_unencoded(LIVE, 8, 0.0) == []
    work.encoded([(entry, vector_of(asked))], NOW)
    ((entry, count),) = take(work)
    assert (list(entry.encoded.values()), entry.encoder_calls, count) == ([vector_of(asked)], 1, 2)


def test_a_text_that_changes_while_it_is_encoded_goes_round_again() -> None:
    work = Worklist()
    work.add([hint("a")])
    ((entry, _),) = take(work)
    work.want(entry, (wanted("t1"),))
    ((_, first),) = work.take_unencoded(LIVE, 8, 0.0)
    work.add([hint("a")])
    ((entry, _),) = take(work)
    work.want(entry, (wanted("t2"),))
    work.encoded([(entry, vector_of(first))], NOW)
    ((_, second),) = work.take_unencoded(LIVE, 8, 0.0)
    assert second.fingerprint == "fp:t2"
    ((entry, _),) = take(work)
    work.want(entry, (wanted("t2"),))  # compared with the first vector only: still wanted, still running
    assert work.take_unencoded(LIVE, 8, 0.0) == []
    work.encoded([(entry, vector_of(second))], NOW)
    ((entry, _),) = take(work)
    assert entry.encoded[second.fingerprint] == vector_of(second)


def test_a_price_change_is_due_while_its_items_text_waits() -> None:
    work = Worklist()
    queue_texts(work, LIVE, 5)
    work.add([hint("0-3")])
    assert ids(take(work)) == ["0-3"]
    assert len(work.take_unencoded(LIVE, 8, 0.0)) == 5  # and its text has kept its place


def test_hints_whose_partition_went_elsewhere_are_dropped() -> None:
    work, gone = Worklist(), Progress(None)
    work.add([hint("a", progress=gone), hint("b"), hint("c", progress=gone), hint("c")])
    gone.abandon()
    assert ids(take(work)) == ["b", "c"]
    assert len(work) == 2


def test_texts_whose_partition_went_elsewhere_are_not_encoded() -> None:
    work, gone = Worklist(), Progress(None)
    work.add([hint("a", progress=gone), hint("b")])
    for entry, _ in take(work):
        work.want(entry, (wanted(entry.product_id),))
    gone.abandon()
    assert [entry.product_id for entry, _ in work.take_unencoded(LIVE, 8, 0.0)] == ["b"]
    assert len(work) == 1


def test_a_text_is_owed_once_its_point_was_rewritten_around_the_old_vector() -> None:
    """A paused owner that wakes up may have undone its successor's vector: it must encode all the same."""
    work, gone = Worklist(), Progress(None)
    work.add([hint("a", progress=gone)])
    ((entry, _),) = take(work)
    work.want(entry, (wanted("t2"),), rewritten=True)
    gone.abandon()
    ((_, asked),) = work.take_unencoded(LIVE, 8, 0.0)
    work.encoded([(entry, vector_of(asked))], NOW)
    ((again, count),) = take(work)
    assert again.encoded == {asked.fingerprint: vector_of(asked)}
    work.served(again, count)
    assert len(work) == 0


def test_what_was_forgotten_is_not_put_back() -> None:
    work, gone = Worklist(), Progress(None)
    work.add([hint("a", progress=gone)])
    ((entry, _),) = take(work)
    work.want(entry, (wanted("t1"),))
    work.add([hint("a", progress=gone)])
    taken = take(work)
    gone.abandon()
    assert work.take_unencoded(LIVE, 8, 0.0) == []  # the encoder finds nobody waiting while the writer works
    work.put_back([one for one, _ in taken])
    work.want(entry, (wanted("t1"),))
    assert take(work) == []
    assert work.take_unencoded(LIVE, 8, 0.0) == []
    work.add([hint("a")])
    assert ids(take(work)) == ["a"]


def test_hints_that_came_since_an_entry_was_forgotten_are_not_forgotten_with_it() -> None:
    """Its partition goes while both threads have the item in hand, and comes back."""
    work, gone = Worklist(), Progress(None)
    work.add([hint("a", progress=gone)])
    ((entry, _),) = take(work)
    work.want(entry, (wanted("t1"),))
    work.add([hint("a", progress=gone)])
    ((same, count),) = take(work)
    assert same is entry
    gone.abandon()
    assert work.take_unencoded(LIVE, 8, 0.0) == []
    work.add([hint("a")])
    work.served(entry, count)
    assert ids(take(work)) == ["a"]


def test_what_nobody_waits_for_any_more_leaves_nothing_behind() -> None:
    work, gone = Worklist(), Progress(None)
    work.add([hint("a", progress=gone)])
    ((entry, _),) = take(work)
    gone.abandon()
    work.want(entry, (wanted("t1"),))
    assert len(work) == 0
    assert work.oldest_seconds(LIVE) == 0.0


def test_a_vector_that_comes_after_its_item_was_served_is_dropped() -> None:
    work = Worklist()
    work.add([hint("a")])
    ((entry, _),) = take(work)
    work.want(entry, (wanted("t1"),))
    ((_, asked),) = work.take_unencoded(LIVE, 8, 0.0)
    work.add([hint("a")])
    ((entry, count),) = take(work)
    work.served(entry, count)  # the title went back to what the point shows
    work.encoded([(entry, vector_of(asked))], NOW)
    assert len(work) == 0
    assert take(work) == []


def test_a_comparison_that_failed_is_due_again() -> None:
    work = Worklist()
    work.add([hint("a"), hint("b", BULK)])
    taken = take(work)
    assert take(work) == []
    work.put_back([entry for entry, _ in taken])
    assert ids(take(work)) == ["a", "b"]


def test_work_that_arrives_wakes_both_waiters_at_once() -> None:
    work = Worklist()
    woken: dict[str, float] = {}

    def writer() -> None:
        for entry, _ in work.take_due(10, 30.0):
            woken["due"] = time.monotonic()
            work.want(entry, (wanted("t"),))

    def encoder() -> None:
        if work.take_unencoded(LIVE, 8, 30.0):
            woken["unencoded"] = time.monotonic()
        else:  # woken by `add`, before the writer was through
            encoder()

    threads = [threading.Thread(target=one, daemon=True) for one in (writer, encoder)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    started = time.monotonic()
    work.add([hint("a")])
    for thread in threads:
        thread.join(5.0)
    assert set(woken) == {"due", "unencoded"}
    assert max(woken.values()) - started < 5.0  # the negative control is the waiters' own 30 s


def test_closing_wakes_whoever_waits() -> None:
    work = Worklist()
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(work.take_due(10, 30.0)), daemon=True)
    thread.start()
    time.sleep(0.02)
    work.close()
    thread.join(5.0)
    assert answers == [[]]


def test_no_hint_is_lost_between_the_loop_the_writer_and_both_encoders() -> None:
    """Adds, comparisons and encodes race; at the end every hint is settled and the list is empty."""
    work = Worklist()
    hints = [hint(f"p{number % 40}", number % 2) for number in range(4_000)]
    stop = threading.Event()

    def writer() -> None:
        while not stop.is_set():
            for entry, count in work.take_due(16, 0.01):
                if not entry.encoded and int(entry.product_id[1:]) % 3 == 0:
                    work.want(entry, (wanted(entry.product_id),))
                else:
                    work.served(entry, count)

    def encoder(lane: int) -> None:
        while not stop.is_set():
            batch = work.take_unencoded(lane, 4, 0.01)
            work.encoded([(entry, vector_of(asked)) for entry, asked in batch], NOW)

    threads = [threading.Thread(target=writer, daemon=True)] + [
        threading.Thread(target=encoder, args=(lane,), daemon=True) for lane in (LIVE, BULK)
    ]
    for thread in threads:
        thread.start()
    for start in range(0, len(hints), 20):
        work.add(hints[start : start + 20])
    deadline = time.monotonic() + 20.0
    while len(work) and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join(5.0)
    assert sum(not one.settled for one in hints) == 0
    assert len(work) == 0
