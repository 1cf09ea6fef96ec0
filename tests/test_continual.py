"""benchmarks/continual*.py: what judges trains nothing, cut-off chains go on, and R is complete."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import continual
from benchmarks.continual import Size, measure
from benchmarks.continual_data import DEPARTMENTS, Basket, Judge, Purchases, World, world
from benchmarks.continual_updates import FIRST, VARIANTS, Chainer, Plan, updates_of
from model.evaluation import Floats
from model.learning_settings import PairSettings
from model.settings import ModelSettings
from schemas.events import Product
from tests.support.learning import QUICK
from tests.support.tiny_model import write_tiny_model

PERIODS = 2
WORDS = ("red", "blue", "steel", "running", "lamp", "shoe", "drill", "battery")


@pytest.fixture(scope="module")
def one_thread() -> Any:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def purchases() -> Purchases:
    """Two departments of 24 items; a basket has neighbours of both, in either period."""
    products = [
        Product(
            title=f"{WORDS[row % 8]} {row}", category=[sorted(DEPARTMENTS[row % 2])[0].capitalize(), "Things"]
        )
        for row in range(48)
    ]
    generator = np.random.default_rng(1)
    baskets, period = [], []
    for number in range(600):
        place = int(generator.integers(40))
        baskets.append(Basket(number, number % 50, 10**12 + number * 3_600_000, range(place, place + 8)))
        period.append(number * PERIODS // 600)
    return Purchases(products, baskets, period)


def small_world(sequence: str = "weeks") -> World:
    return world(purchases(), sequence, baskets=300, queries=100, periods=PERIODS)


def plan(**changes: Any) -> Plan:
    given: dict[str, Any] = {
        "pairs": 24,
        "baskets": 300,
        "queries": 60,
        "periods": PERIODS,
        "recipe": QUICK.model_copy(update={"epochs": 1, "distil": 0.5, "replay": 0.3}),
        "settings": PairSettings(candidates=20, max_queries=20),
    }
    return Plan(**(given | changes))


def settings(folder: Path) -> ModelSettings:
    return ModelSettings(name=str(write_tiny_model(folder / "tiny")), device="cpu", dtype="fp32")


# --- data --------------------------------------------------------------------------------------------


def test_a_basket_that_judges_trains_nothing() -> None:
    found = small_world()
    for period in found.periods:
        assert len(period.test.asks) > 20
        assert len(period.validation.asks) > 10
    trained = {name for period in found.periods for name in period.events["session"].to_pylist()}
    # Every basket is of one kind: of 600, what does not train judges or is for choosing.
    judged = sum(len(period.test.asks) + len(period.validation.asks) for period in found.periods)
    assert len(trained) + judged == 600


def test_with_drift_a_period_sells_what_was_never_sold_before() -> None:
    found = small_world("drift")
    sold = [set(period.events["product"].to_pylist()) for period in found.periods]
    assert sold[0]
    assert sold[1]
    assert not sold[0] & sold[1]
    asked = [set(period.test.asks.tolist()) for period in found.periods]
    assert all(item % 2 == place for place, items in enumerate(asked) for item in items)


def test_a_query_is_a_hit_where_any_other_item_of_its_basket_is_near() -> None:
    vectors = np.eye(30, dtype=np.float32)
    vectors[1] = vectors[0]
    judge = Judge(np.array([0, 2]), [[5, 1], [6, 7]], np.array([0, 1]))
    # Item 1 is at 0's place; 2 has nobody near, and all of its others are equally far.
    assert judge.hits(vectors).tolist() == [1.0, 0.0]


# --- chains ------------------------------------------------------------------------------------------


def means(chain: Sequence[Sequence[Floats]]) -> list[list[float]]:
    return [[float(hits.mean()) for hits in row] for row in chain]


def test_a_chain_that_was_cut_off_goes_on_and_makes_no_update_twice(
    tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, found = settings(tmp_path), small_world()
    first = Chainer(tmp_path / "work", plan(), model)
    first.update(found, "weeks", 1, FIRST, 1, first.base(found, "weeks"))
    assert first.made == 1
    # Another process, later.
    second = Chainer(tmp_path / "work", plan(), model)
    resumed = second.chain(found, "weeks", 1, "incremental")
    assert second.made == 1
    whole = Chainer(tmp_path / "whole", plan(), model).chain(found, "weeks", 1, "incremental")
    assert means(resumed) == means(whole)
    again = Chainer(tmp_path / "work", plan(), model)
    assert means(again.chain(found, "weeks", 1, "incremental")) == means(whole)
    assert again.made == 0
    # Only what a chain may start from is kept of the releases: the base model and the first update.
    assert len(list((tmp_path / "work" / "releases").glob("[!.]*"))) == 2


def test_updates_with_other_settings_are_not_gone_on_with(tmp_path: Path) -> None:
    Chainer(tmp_path, plan(), ModelSettings())
    with pytest.raises(ValueError, match="choose another folder"):
        Chainer(tmp_path, plan(pairs=25), ModelSettings())


def test_each_way_trains_on_as_many_pairs_and_only_some_on_old_ones(tmp_path: Path, one_thread: None) -> None:
    found, out = small_world(), tmp_path / "work"
    chainer = Chainer(out, plan(), settings(tmp_path))
    base = chainer.base(found, "weeks")
    first = chainer.update(found, "weeks", 1, FIRST, 1, base)
    counts = {
        variant: chainer.update(found, "weeks", 1, variant, 2, first).counts
        for variant in ("incremental", "without replay", "joint")
    }
    assert {one["pairs"] for one in counts.values()} == {24}
    assert counts["incremental"].get("past pairs") == 7
    assert counts["without replay"].get("past pairs", 0) == 0
    # Joint has both periods as new.
    assert counts["joint"].get("old sessions", 0) == 0
    assert counts["joint"]["sessions"] > 1.5 * counts["incremental"]["sessions"]


def test_the_report_counts_updates_and_cells_and_its_control_tells_vectors_apart(
    tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continual, "read_purchases", lambda periods, most: purchases())
    monkeypatch.setattr(continual, "RECIPE", plan().recipe)
    monkeypatch.setattr(continual, "PAIRING", plan().settings)
    size = Size(24, baskets=300, queries=60, periods=PERIODS, seeds={"drift": (1,)})
    report = measure(tmp_path / "work", size, settings(tmp_path), judged=False)
    counted = {figure.name: figure for figure in report.figures if figure.kind == "count"}
    assert counted["updates"].value == counted["updates"].target == 1 + len(VARIANTS)
    assert len(updates_of(tmp_path / "work")) == 1 + len(VARIANTS)
    assert counted["cells of R"].value == len(VARIANTS) * (PERIODS + 1) * PERIODS
    assert counted["periods that are found worse with the items' vectors exchanged"].value == PERIODS
    assert not report.missed(small=True)
    for variant in VARIANTS:
        matrix = json.loads(str(report.settings[f"R, drift, {variant}"]))
        assert np.shape(matrix) == (PERIODS + 1, PERIODS)
    wanted = {figure.name for figure in report.figures if figure.target is not None}
    assert wanted == set(counted)
