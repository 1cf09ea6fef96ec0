"""benchmarks/labels.py: labels are bought unseen, from one pool, and chosen ones are worth more."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import labels
from benchmarks.labels import BUDGETS, Pairs, curves, judged, report_of
from model.pair_features import FEATURES, Floats
from model.suggestions import fitted


def planted(count: int, *, seed: int) -> Pairs:
    """A twentieth are matches: those of which a hidden mix of two features is high; the others are plain."""
    generator = np.random.default_rng(seed)
    features = np.zeros((count, len(FEATURES)))
    features[:, :2] = generator.normal(size=(count, 2))
    mixed = features[:, 0] + 0.5 * features[:, 1] + generator.normal(scale=0.1, size=count)
    return Pairs(
        np.stack([np.arange(count), count + np.arange(count)], axis=1),
        features,
        mixed > np.quantile(mixed, 0.95),
    )


def test_chosen_labels_are_worth_more_where_matches_are_rare_and_lie_beyond_a_border() -> None:
    sets = {"abt-buy": {"train": planted(1_500, seed=1), "test": planted(800, seed=2)}}
    report = report_of(sets, 3)
    found = {(figure.name, figure.note): figure.value for figure in report.figures}
    for budget in BUDGETS[1:]:
        gain = found["Abt-Buy F1, gain", f"{budget} labels"]
        assert gain > 0
        assert found["Abt-Buy F1, gain, lower 95 % bound", f"{budget} labels"] <= gain
    matches = {how: found[f"Abt-Buy, matches among {BUDGETS[-1]} labels", how] for how in labels.HOW}
    assert matches["chosen"] > 2 * matches["drawn"]
    assert found["Abt-Buy F1, every label", ""] > 0.8


def test_no_label_is_seen_before_it_is_bought(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = planted(1_000, seed=1)
    fits: list[int] = []

    def counted(features: Floats, marks: NDArray[np.bool_], **options: float) -> object:
        fits.append(len(marks))
        return fitted(features, marks, **options)

    monkeypatch.setattr(labels, "fitted", counted)
    (curve,) = curves(pool, planted(200, seed=3), "chosen", 1)
    assert len(curve) == len(BUDGETS)
    assert max(fits) == BUDGETS[-1]
    assert set(fits) == set(range(25, 201, 25))
    # Labels that are not bought change nothing: here all that are not are turned over.
    first = curves(pool, pool, "drawn", 1)[0][0]
    draw = np.random.default_rng(1)
    part = np.sort(draw.permutation(1_000)[:800])
    bought = part[draw.choice(np.arange(800), 25, replace=False)]
    turned = ~pool.labels
    turned[bought] = pool.labels[bought]
    again = curves(pool._replace(labels=turned), pool, "drawn", 1)[0][0]
    assert first == again


def test_without_a_match_nothing_is_found_and_pairs_are_ranked_by_likeness() -> None:
    asked = planted(400, seed=4)
    known = asked.part(np.flatnonzero(~asked.labels)[:25])
    score = judged(known, asked)
    assert score.f1 == 0
    assert score.precision > asked.labels.mean()
