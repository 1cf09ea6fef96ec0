"""benchmarks/tuning.py: it searches, and what is found is asked beside the default."""

from __future__ import annotations

from pathlib import Path

from benchmarks.continual_data import world
from benchmarks.tuning import Size, measure
from model.settings import ModelSettings
from tests.support.learning import QUICK
from tests.support.tiny_model import write_tiny_model
from tests.test_continual import PERIODS, purchases


def test_a_search_is_reported_with_the_default_beside_it(tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "tiny")
    settings = ModelSettings(name=str(base), device="cpu", dtype="fp32")
    one = world(purchases(), "weeks", baskets=300, queries=60, periods=PERIODS)
    quick = QUICK.model_copy(update={"epochs": 1.0, "evaluations": 1, "distil": 0.1})
    report = measure(one, base, settings, tmp_path / "out", Size(pairs=32, trials=2), default=quick)
    found = {figure.name: figure.value for figure in report.figures}
    assert found["trials"] == 2
    assert found["validation ndcg@10, found recipe"] >= found["validation ndcg@10, default recipe"]
    assert all(0 < found[f"hit@10, {name}"] < 1 for name in ("base model", "default recipe", "found recipe"))
    low, gain, high = (
        found[f"gain over the default{what}"] for what in (", lower 95 % bound", "", ", upper 95 % bound")
    )
    assert low <= gain <= high
    same = found["hit@10, found recipe"] - found["hit@10, default recipe"]
    assert abs(100 * same - gain) < 0.02
    assert str(report.settings["trial 0"]).startswith("trial 0, as it is")
