"""model/mining.py: negatives out of an index's answers are near, and none of them is a false one."""

from __future__ import annotations

import numpy as np

from model.mining import with_nearest_negatives
from model.pairs import PairTable


def a_table(*, queries: int = 0) -> PairTable:
    """Items 0 to 39 in a row; a pair joins an item and the next, `related` the one after. Then queries."""
    count = 40
    anchors = [*range(30), *range(count, count + queries)]
    positives = [*range(1, 31), *range(queries)]
    return PairTable(
        texts=[f"text {number}" for number in range(count + queries)],
        groups=np.arange(count + queries, dtype=np.int64),
        anchors=np.array(anchors, dtype=np.int64),
        positives=np.array(positives, dtype=np.int64),
        weights=np.ones(len(anchors), dtype=np.float32),
        related=[(number, number + 2) for number in range(30)],
    )


def by_distance() -> dict[int, list[int]]:
    """What an index would answer if items lay on a line: the nearest first."""
    return {
        item: sorted(
            (other for other in range(40) if other != item), key=lambda other: (abs(other - item), other)
        )
        for item in range(40)
    }


def test_negatives_are_near_and_never_false() -> None:
    found = with_nearest_negatives(a_table(), by_distance(), count=2, seed=1, first=2, last=8)
    assert found.negatives is not None
    assert found.negatives.shape == (30, 2)
    for anchor, positive, negatives in zip(found.anchors, found.positives, found.negatives, strict=True):
        for negative in negatives:
            assert negative not in (anchor, positive)
            assert abs(negative - anchor) not in (1, 2), "a pair of its own, or related"
            assert abs(negative - anchor) <= 16
        assert len(set(negatives)) == 2
    # By chance they would lie a dozen places away.
    assert np.abs(found.negatives - found.anchors[:, None]).mean() < 7


def test_an_anchor_that_the_index_does_not_know_has_any_item_that_is_not_false() -> None:
    found = with_nearest_negatives(a_table(queries=5), {}, count=3, seed=1)
    assert found.negatives is not None
    assert found.negatives.shape == (35, 3)
    assert found.negatives.max() < 40, "a query is no negative"
    assert (found.negatives != found.positives[:, None]).all()
