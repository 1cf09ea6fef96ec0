"""model/pairs.py and model/mining.py: what belongs together, what it weighs, and what is no negative."""

from __future__ import annotations

import numpy as np
import pytest

from model.mining import with_hard_negatives
from model.pairs import (
    NegativeMask,
    PairTable,
    bag_of_words,
    co_interactions,
    duplicate_groups,
    seen_weight,
)


def table(
    pairs: list[tuple[int, int]], *, groups: list[int], related: tuple[tuple[int, int], ...] = ()
) -> PairTable:
    rows = np.array(pairs, dtype=np.int64)
    return PairTable(
        texts=[f"text {number}" for number in range(len(groups))],
        groups=np.array(groups, dtype=np.int64),
        anchors=rows[:, 0],
        positives=rows[:, 1],
        weights=np.ones(len(pairs), dtype=np.float32),
        related=related,
    )


def test_a_pair_of_one_session_counts_by_distance_and_less_when_everybody_has_it() -> None:
    sessions = [[("a", 1.0), ("b", 1.0), ("c", 1.0)], [("a", 1.0), ("d", 1.0)]]
    weights = co_interactions(sessions, distance=2, decay=0.5, popularity=0.5)
    assert weights == {
        ("a", "b"): pytest.approx(1 / 2**0.5),
        ("b", "c"): pytest.approx(1.0),
        ("a", "c"): pytest.approx(0.5 / 2**0.5),
        ("a", "d"): pytest.approx(1 / 2**0.5),
    }


def test_an_item_met_twice_in_a_session_is_one_item_of_it() -> None:
    weights = co_interactions([[("a", 1.0), ("b", 1.0), ("a", 1.0), ("b", 1.0)]], popularity=0)
    assert weights == {("a", "b"): 1.0}


def test_what_was_found_far_down_a_list_counts_more_up_to_a_limit() -> None:
    assert [seen_weight(position) for position in (None, 0, 3, 1000)] == [1.0, 1.0, 2.0, 4.0]


def test_the_same_words_in_other_spelling_are_one_group_and_variants_are_too() -> None:
    groups = duplicate_groups(
        ["Red Lamp", "LAMP, red!", "blue lamp", "shoe 40", "shoe 41"], [None, None, None, "shoe", "shoe"]
    )
    assert groups[0] == groups[1] != groups[2]
    assert groups[3] == groups[4]
    assert len(set(groups.tolist())) == 3
    assert bag_of_words("!!!") == "!!!"


def test_the_mask_hides_what_shoppers_had_together_duplicates_and_nothing_else() -> None:
    # 0-1 and 2-3 are pairs; 4 is a duplicate of 1; 0 and 3 were seen together.
    pairs = table([(0, 1), (2, 3), (5, 4)], groups=[0, 1, 2, 3, 1, 5], related=((0, 3),))
    hidden, back = NegativeMask(pairs).of_batch(np.arange(3), columns=1)
    assert hidden.tolist() == [
        [False, True, True],  # 3 was seen with 0; 4 is what 1 is
        [False, False, False],
        [True, False, False],  # 1 is what 4 is
    ]
    assert back.tolist() == [[False, False, True], [True, False, False], [True, False, False]]


def test_without_relations_only_the_pairs_themselves_are_known() -> None:
    hidden, _ = NegativeMask(table([(0, 1), (2, 3)], groups=[0, 1, 2, 3])).of_batch(np.arange(2), columns=1)
    assert not hidden.any()


def test_hard_negatives_are_near_and_never_false() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(60, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = table(
        [(number, number + 30) for number in range(30)],
        groups=list(range(60)),
        related=tuple((number, 59 - number) for number in range(30)),
    )
    mined = with_hard_negatives(pairs, vectors, count=3, seed=1, first=0, last=20, below=1.5)
    assert mined.negatives is not None
    mask = NegativeMask(pairs)
    near, any_text = [], []
    for row in range(30):
        false = mask.related(pairs.anchors[[row]], mined.negatives[row])
        assert not false.any()
        near += (vectors[pairs.anchors[row]] @ vectors[mined.negatives[row]].T).tolist()
        any_text += (vectors[pairs.anchors[row]] @ vectors.T).tolist()
    assert np.mean(near) > np.mean(any_text)
