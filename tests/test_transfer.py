"""benchmarks/transfer.py: R, transfer and gains from hits that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.transfer import Chains, share_of_gain
from model.evaluation import Floats

QUERIES = 400


def hits(share: float) -> Floats:
    """So many of QUERIES found."""
    return (np.arange(QUERIES) < round(share * QUERIES)).astype(np.float64)


def chains(*rows: list[float], seeds: int = 1) -> Chains:
    """R as given; every four queries are one household's."""
    made = [[hits(value) for value in row] for row in rows]
    return Chains([made] * seeds, [np.arange(QUERIES) % 100] * len(rows[0]))


LEARNS = chains([0.1, 0.2, 0.3], [0.4, 0.25, 0.3], [0.38, 0.5, 0.35], [0.3, 0.46, 0.6])


def test_transfer_and_gains_are_those_of_the_matrix() -> None:
    np.testing.assert_allclose(LEARNS.matrix()[1], [0.4, 0.25, 0.3])
    # (0.3 - 0.4) and (0.46 - 0.5); (0.25 - 0.2) and (0.35 - 0.3); (0.5 - 0.2) and (0.6 - 0.3).
    assert LEARNS.backward().difference.value == pytest.approx(-0.07)
    assert LEARNS.forward().difference.value == pytest.approx(0.05)
    assert LEARNS.learned().difference.value == pytest.approx(0.3)
    assert LEARNS.at_last().difference.value == pytest.approx((0.2 + 0.26 + 0.3) / 3)


def test_what_was_lost_lies_below_zero_and_what_was_kept_does_not() -> None:
    lost = LEARNS.backward().difference
    assert lost.low < lost.value < lost.high < 0
    kept = chains([0.1, 0.2], [0.4, 0.2], [0.4, 0.5]).backward().difference
    assert tuple(kept) == (0, 0, 0)


def test_a_share_of_the_gain_compares_with_what_the_other_learned() -> None:
    other = chains([0.1, 0.2, 0.3], [0.4, 0.2, 0.3], [0.4, 0.6, 0.3], [0.4, 0.6, 0.7])
    found = share_of_gain(LEARNS, other)
    assert found.value == pytest.approx(0.6 / 0.8)
    assert found.low < found.value < found.high
    assert share_of_gain(other, other) == (1, 1, 1)


def test_a_share_of_nothing_is_no_number() -> None:
    still = chains([0.1, 0.2], [0.1, 0.2], [0.1, 0.2])
    assert all(math.isnan(value) for value in share_of_gain(still, still))


def test_seeds_are_averaged_and_a_household_stays_one_under_all_of_them() -> None:
    one, three = (
        chains([0.1, 0.2], [0.4, 0.2], [0.3, 0.5]),
        chains([0.1, 0.2], [0.4, 0.2], [0.3, 0.5], seeds=3),
    )
    np.testing.assert_allclose(three.matrix(), one.matrix())
    # More seeds of the same make nothing surer.
    np.testing.assert_allclose(three.backward().difference, one.backward().difference)
