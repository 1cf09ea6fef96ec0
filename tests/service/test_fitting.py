"""service/fitting.py: it finds weights that were planted, and its fusion is the service's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from service.fitting import Question, Questions, fitted
from service.fusion import fused
from service.judging import judged

DIMENSIONS = ("content", "lexical", "reviews", "behaviour")
PRESENT = {"content": 1.0, "lexical": 1.5, "reviews": 0.5, "behaviour": 1.0}
CANDIDATES = 60


def planted(weights: Mapping[str, float], count: int, *, seed: int, noise: float = 0.01) -> list[Question]:
    """Queries whose relevant item is the one that these weights rank first, but for a little noise."""
    rng = np.random.default_rng(seed)
    wanted = np.array([weights[name] for name in DIMENSIONS])
    questions = []
    for _ in range(count):
        scores = rng.uniform(0, 1, (CANDIDATES, len(DIMENSIONS)))
        scores[rng.uniform(size=CANDIDATES) < 0.3, 2] = np.nan
        evidence = np.array([1.0, 1.0, 1.0, rng.uniform(0.2, 1.0)])
        has = ~np.isnan(scores)
        total = (np.nan_to_num(scores) * wanted * evidence).sum(axis=1) / (has * wanted * evidence).sum(
            axis=1
        )
        best = int(np.argmax(total + rng.normal(0, noise, CANDIDATES)))
        questions.append(Question(scores, evidence, [best], 1))
    return questions


def ndcg(questions: list[Question], weights: Mapping[str, float]) -> float:
    held = np.array([weights.get(name, 0.0) for name in DIMENSIONS])
    return float(Questions(questions, k=10).ndcg(held).mean())


@pytest.mark.parametrize(
    "optimum",
    [
        {"content": 0.2, "lexical": 0.1, "reviews": 0.6, "behaviour": 1.0},
        {"content": 1.0, "lexical": 0.3, "reviews": 0.05, "behaviour": 0.15},
    ],
)
def test_planted_weights_are_found_and_hold_on_queries_that_the_fit_never_saw(
    optimum: dict[str, float],
) -> None:
    found = fitted(planted(optimum, 200, seed=1), DIMENSIONS, PRESENT, k=10, seed=2)
    check = planted(optimum, 200, seed=3)
    assert ndcg(check, found) >= ndcg(check, optimum) - 0.02
    assert ndcg(check, found) >= ndcg(check, PRESENT) + 0.1
    largest = max(optimum, key=optimum.__getitem__)
    assert found[largest] == 1.0
    assert all(abs(found[name] - optimum[name]) <= 0.15 for name in DIMENSIONS), found


def test_where_nothing_is_better_the_present_weights_stay() -> None:
    only = Question(np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]), np.ones(4), [0], 1)
    assert fitted([only], DIMENSIONS, PRESENT, k=10, seed=1) == pytest.approx(
        {name: weight / 1.5 for name, weight in PRESENT.items()}, abs=0.001
    )


def test_the_fusion_over_arrays_is_that_of_the_service() -> None:
    rng = np.random.default_rng(7)
    for number in range(30):
        scores = rng.uniform(-0.2, 1, (20, 4))
        scores[rng.uniform(size=(20, 4)) < 0.3] = np.nan
        scores[:, 0] = np.nan_to_num(scores[:, 0])
        evidence = np.array([1.0, 1.0, 1.0, rng.uniform()])
        weights = dict(zip(DIMENSIONS, rng.uniform(0.1, 1, 4).tolist(), strict=True))
        applied = {name: weights[name] * evidence[place] for place, name in enumerate(DIMENSIONS)}
        totals = [
            fused(
                {name: row[place] for place, name in enumerate(DIMENSIONS) if not np.isnan(row[place])},
                applied,
            )
            for row in scores
        ]
        order = [str(place) for place in sorted(range(20), key=lambda place: (-totals[place], place))]
        relevant = {int(place) for place in rng.choice(20, 3, replace=False)}
        question = Question(scores, evidence, sorted(relevant), 4)
        ours = Questions([question], k=10).ndcg(np.array([weights[name] for name in DIMENSIONS]))[0]
        theirs = judged(order, {str(place) for place in relevant} | {"not proposed"}, 10)["ndcg"]
        assert ours == pytest.approx(theirs), number


def test_nothing_to_fit_on_is_said() -> None:
    with pytest.raises(ValueError, match="nothing to fit"):
        fitted([], DIMENSIONS, PRESENT, k=10, seed=1)
