"""A partition's progress: only the contiguous prefix counts, and only once it is old enough."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from consumers.progress import Delivery, Progress, settle_all


def fill(progress: Progress, *offsets: int) -> list[Delivery[object]]:
    deliveries: list[Delivery[object]] = [Delivery(None, offset, progress) for offset in offsets]
    progress.in_flight.extend(deliveries)
    return deliveries


def test_only_the_prefix_before_the_first_open_record_may_be_committed() -> None:
    progress = Progress(None)
    first, second, third = fill(progress, 10, 11, 12)
    third.settle()
    progress.collect(0.0)
    assert progress.due(0.0, 0.0) is None
    first.settle()
    progress.collect(1.0)
    assert progress.due(1.0, 0.0) == 11
    second.settle()
    progress.collect(2.0)
    assert progress.due(2.0, 0.0) == 13
    assert progress.reached == 13


def test_one_past_the_last_record_is_committed_across_gaps_that_compaction_left() -> None:
    progress = Progress(5)
    for delivery in fill(progress, 7, 19, 400):
        delivery.settle()
    progress.collect(0.0)
    assert progress.due(0.0, 0.0) == 401


def test_a_commit_trails_the_effect_by_the_delay() -> None:
    progress = Progress(0)
    first, second = fill(progress, 0, 1)
    first.settle()
    progress.collect(10.0)
    second.settle()
    progress.collect(12.0)
    assert progress.due(12.9, 3.0) is None
    assert progress.due(13.0, 3.0) == 1  # the second is 1 s old and waits
    assert progress.due(14.9, 3.0) is None
    assert progress.due(15.0, 3.0) == 2
    assert progress.due(99.0, 3.0) is None  # each offset is due once


def test_a_failed_commit_is_due_again_unless_a_later_one_covers_it() -> None:
    progress = Progress(0)
    for delivery in fill(progress, 0, 1):
        delivery.settle()
    progress.collect(0.0)
    progress.committed = progress.due(0.0, 0.0)
    progress.commit_again(1)  # an older commit's failure: 2 is on its way
    assert progress.due(0.0, 0.0) is None
    progress.commit_again(2)
    assert progress.due(0.0, 0.0) == 2


def test_an_abandoned_stay_commits_nothing_and_its_deliveries_say_so() -> None:
    progress = Progress(0)
    (delivery,) = fill(progress, 0)
    delivery.settle()
    progress.collect(0.0)
    progress.committed = 1
    progress.abandon()
    progress.commit_again(1)
    assert delivery.abandoned
    assert progress.due(99.0, 0.0) is None
    late = fill(progress, 1)[0]
    assert late.abandoned


def test_settling_twice_is_harmless() -> None:
    progress = Progress(0)
    (delivery,) = fill(progress, 0)
    delivery.settle()
    delivery.settle()
    progress.collect(0.0)
    progress.collect(0.0)
    assert progress.due(0.0, 0.0) == 1
    assert not progress.in_flight


def test_what_is_settled_behind_an_open_record_is_no_work_to_be_done() -> None:
    progress = Progress(0)
    first, second, third = fill(progress, 0, 1, 2)
    second.settle()
    third.settle()
    third.settle()
    progress.collect(0.0)
    assert (len(progress.in_flight), progress.unsettled) == (3, 1)
    first.settle()
    progress.collect(0.0)
    assert (len(progress.in_flight), progress.unsettled) == (0, 0)


def test_many_threads_that_settle_the_same_records_count_each_once() -> None:
    progress = Progress(0)
    deliveries = fill(progress, *range(2_000))

    def settle_all() -> None:
        for delivery in deliveries[1:]:
            delivery.settle()

    with ThreadPoolExecutor(4) as threads:
        for _ in range(4):
            threads.submit(settle_all)
    assert progress.unsettled == 1


def test_an_event_is_let_go_only_once_it_is_settled() -> None:
    progress = Progress(0)
    (delivery,) = fill(progress, 0)
    delivery.event = "event"
    delivery.let_go()
    assert delivery.event == "event"
    delivery.settle()
    delivery.let_go()
    assert delivery.event is None


def test_many_records_of_several_partitions_are_settled_at_once_and_each_counts_once() -> None:
    first, second = Progress(0), Progress(0)
    ones, twos = fill(first, 0, 1, 2), fill(second, 0, 1)
    ones[1].settle()
    settle_all([ones[0], ones[1], twos[0], ones[2]])
    assert (first.unsettled, second.unsettled) == (0, 1)
    first.collect(0.0)
    second.collect(0.0)
    assert (first.reached, second.reached) == (3, 1)
