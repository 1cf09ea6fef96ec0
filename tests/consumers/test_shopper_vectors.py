"""consumers/shopper_vectors.py: one sketch's vector, its corrections and its norm, worked out by hand."""

from __future__ import annotations

import math

import pytest

from adapters.behaviour_state import Header
from consumers.interest import SCORE_STEPS, shopper_of
from consumers.shopper_vectors import VectorSettings, fingerprint, inclusion, vector_of
from schemas.vectors import SparseVector

SHOPPERS = [shopper_of(f"u{number}", b"key") for number in range(4)]
NAMES = {one.member.encode(): one.hash for one in SHOPPERS}
WEIGHTS = {one.member.encode(): 0.5 for one in SHOPPERS}


def header(*, tau: float, shoppers: int) -> Header:
    return Header(1, 7.0, tau, len(SHOPPERS), 0, shoppers, b"")


def made(tau: float, shoppers: int, **fields: float) -> dict[int, float]:
    """The vector of a sketch whose shoppers each had one event of weight 1."""
    sketch = [(one.member.encode(), one.rank * SCORE_STEPS) for one in SHOPPERS]
    settings = VectorSettings.model_validate({"shrinkage": 3.0, **fields})
    vector: SparseVector = vector_of(header(tau=tau, shoppers=shoppers), sketch, NAMES, WEIGHTS, settings)
    assert list(vector.indices) == sorted(vector.indices)
    return dict(zip(vector.indices, vector.values, strict=True))


def test_below_k_shoppers_an_entry_is_the_weight_over_the_shrunk_norm() -> None:
    values = made(math.inf, 4)
    assert set(values) == {int.from_bytes(one.hash[4:], "big") for one in SHOPPERS}
    assert list(values.values()) == pytest.approx([0.5 / math.sqrt(4 * 0.25 + 3.0)] * 4)


def test_above_k_shoppers_entries_are_scaled_up_by_how_likely_each_was_to_be_kept() -> None:
    tau = math.log(0.2) * SCORE_STEPS
    likely = 1 - math.exp(-0.2)
    assert inclusion(SHOPPERS[0].rank, SHOPPERS[0].rank * SCORE_STEPS, tau) == pytest.approx(likely)
    norm = math.sqrt(14 * 0.25 + 3.0)
    for x in (0.0, 0.5, 1.0):
        assert list(made(tau, 14, inclusion=x).values()) == pytest.approx([0.5 / likely**x / norm] * 4)


def test_no_shopper_stands_for_more_than_the_setting_allows() -> None:
    tau = math.log(0.001) * SCORE_STEPS
    norm = math.sqrt(14 * 0.25 + 3.0)
    assert list(made(tau, 14).values()) == pytest.approx([0.5 / 0.05 / norm] * 4)
    assert list(made(tau, 14, least_kept=0.5).values()) == pytest.approx([1 / norm] * 4)


def test_the_exponent_of_the_norm_is_a_setting_and_every_setting_is_in_the_fingerprint() -> None:
    assert list(made(math.inf, 14, norm_exponent=0.8).values()) == pytest.approx(
        [0.5 / (14 * 0.25 + 3.0) ** 0.8] * 4
    )
    settings = [
        VectorSettings(),
        VectorSettings(shrinkage=1.0),
        VectorSettings(inclusion=0.5),
        VectorSettings(least_kept=0.1),
        VectorSettings(norm_exponent=0.6),
        VectorSettings(weigh_shoppers=False),
    ]
    weights = list(WEIGHTS.values())
    marks = {fingerprint(header(tau=1.0, shoppers=9), weights, one.mark) for one in settings}
    assert len(marks) == len(settings)


def test_all_that_a_vector_is_made_from_is_in_its_fingerprint() -> None:
    plain = VectorSettings().mark
    marks = {
        fingerprint(header(tau=1.0, shoppers=9), [0.5, 0.5], plain),
        fingerprint(header(tau=2.0, shoppers=9), [0.5, 0.5], plain),
        fingerprint(header(tau=math.inf, shoppers=9), [0.5, 0.5], plain),
        fingerprint(header(tau=1.0, shoppers=8), [0.5, 0.5], plain),
        fingerprint(header(tau=1.0, shoppers=9), [0.5, 0.4], plain),
    }
    assert len(marks) == 5


def test_nobody_makes_an_empty_vector() -> None:
    empty = vector_of(header(tau=math.inf, shoppers=0), [], {}, {}, VectorSettings())
    assert empty == SparseVector((), ())
