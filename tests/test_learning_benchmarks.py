"""benchmarks/learning*.py, training_rate.py and methods.py: what they choose by, and that they measure it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import craft, learning_choice, methods, training_rate
from benchmarks.continual_data import world
from benchmarks.learning import Size, measure
from benchmarks.learning_choice import chosen_share
from benchmarks.learning_sets import OTHER_SETS, Beauty, Matches, Split, pair_table, read_matches, split_items
from benchmarks.learning_vectors import Vectors
from benchmarks.training_rate import shop_pairs
from model.pairs import NegativeMask
from model.settings import ModelSettings
from tests.support.learning import QUICK
from tests.support.tiny_model import write_tiny_model
from tests.test_continual import PERIODS, purchases


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def unit(*degrees: float) -> Any:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


# --- sets --------------------------------------------------------------------------------------------


def test_a_cold_item_is_in_no_training_pair_and_not_seen_while_choosing() -> None:
    draw = np.random.default_rng(1)
    beauty = Beauty(
        [f"i{row}" for row in range(100)],
        [f"thing {row}" for row in range(100)],
        [draw.integers(0, 100, 8).tolist() for _ in range(300)],
    )
    split = split_items(beauty)
    table = pair_table(beauty, split, 500, {"distance": 3, "decay": 0.7, "popularity": 0.5})
    trained = {*table.anchors.tolist(), *table.positives.tolist()}
    assert trained
    assert not trained & {*split.cold, *split.validation}
    assert split.queries
    assert split.validation_queries
    assert {target for _, target in split.queries} <= set(split.cold)
    assert not {row for query in split.validation_queries for row in query} & set(split.cold)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)


def test_matches_are_recalled_among_the_other_shops_products_by_part(tmp_path: Path) -> None:
    for side, count in (("a", 2), ("b", 30)):
        rows = [{"product_id": f"{side}{row}", "title": f"{side} {row}"} for row in range(count)]
        write_rows(tmp_path / "shops" / f"products_{side}.jsonl.gz", rows)
    for part, pairs in {
        "train": [("a0", "b0", 1), ("a0", "b1", 0)],
        "valid": [],
        "test": [("a1", "b29", 1)],
    }.items():
        write_rows(
            tmp_path / "shops" / f"pairs_{part}.jsonl.gz",
            [{"a": one, "b": other, "label": label} for one, other, label in pairs],
        )
    found = read_matches(tmp_path, "shops")
    assert (len(found.texts), found.queries) == (32, 2)
    # Both ask from 0 degrees; the products of the other shop lie ever further away.
    vectors = unit(0, 0, *range(30))
    assert found.recalls(vectors, ("train", "valid")).tolist() == [1.0]
    assert found.recalls(vectors, ("test",)).tolist() == [0.0]
    assert found.recalls(vectors, ("train", "valid", "test")).tolist() == [1.0, 0.0]


def test_a_models_vectors_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def of(self: Vectors, model: Path, texts: Sequence[str]) -> Any:
        calls.append(model)
        return unit(*range(len(texts)))

    monkeypatch.setattr(Vectors, "of", of)
    sets = {"one": ["a", "b"], "other": ["c"]}
    for _ in range(2):
        encode = Vectors(tmp_path / "base", tmp_path / "kept", sets)
        found = encode(tmp_path / "base")
        assert {name: len(one) for name, one in found.items()} == {"one": 2, "other": 1}
    assert len(calls) == 1
    encode(tmp_path / "trained")
    Vectors(tmp_path / "base", tmp_path / "kept", {"one": ["a", "z"], "other": ["c"]})(tmp_path / "base")
    assert len(calls) == 3


# --- choosing ----------------------------------------------------------------------------------------


class Encoded:
    """Vectors by folder: the further the share, the nearer the wanted item, and the worse the other shop."""

    base = Path("share-0")

    def __call__(self, folder: Path) -> dict[str, Any]:
        share = float(folder.name.partition("-")[2])
        # 30 items from 0 degrees on; the wanted one starts behind them all.
        beauty = unit(0, *range(1, 30), 40 - 40 * share)
        # One product asks; its match is the nearest until it has been pushed behind ten others.
        away = 0 if share <= self.harmless else 50
        return {"beauty": beauty, "shop": unit(0, away, *range(1, 30))}

    def __init__(self, harmless: float) -> None:
        self.harmless = harmless


@pytest.mark.parametrize(("harmless", "share"), [(1.0, 1.0), (0.8, 0.8), (0.0, 1.0)])
def test_it_goes_as_far_as_the_loss_elsewhere_allows(
    monkeypatch: pytest.MonkeyPatch, harmless: float, share: float
) -> None:
    monkeypatch.setattr(learning_choice, "blended", lambda base, trained, share, folder: folder)
    split = Split([], [30], [], [(0, 30)])
    shop = Matches(["?"] * 31, 1, {"train": {0: frozenset({1})}, "valid": {}, "test": {}})
    encode: Any = Encoded(harmless)
    found, folder = chosen_share(
        split, {"shop": shop}, encode, Path("share-1"), Path("."), shares=(1.0, 0.8, 0.5)
    )
    # Where every share costs too much, the first of those that cost least.
    assert found == share
    assert folder.name in (f"share-{share}", "share-1")


def test_a_run_ends_with_gain_and_change_elsewhere_and_goes_on_from_its_folder(
    tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(2)
    beauty = tmp_path / "data" / "amazon-beauty"
    words = ("red", "blue", "steel", "running")
    write_rows(
        beauty / "products.jsonl.gz",
        [{"product_id": f"i{row}", "title": f"{words[row % 4]} {row}"} for row in range(120)],
    )
    # Shoppers stay with one word.
    histories = [[f"i{4 * int(row) + number % 4}" for row in draw.integers(0, 30, 8)] for number in range(80)]
    write_rows(beauty / "sequences.jsonl.gz", [{"product_ids": one} for one in histories])
    for name in OTHER_SETS:
        for side in "ab":
            rows = [{"product_id": f"{side}{row}", "title": f"lamp {row}"} for row in range(20)]
            write_rows(tmp_path / "data" / name / f"products_{side}.jsonl.gz", rows)
        for number, part in enumerate(("train", "valid", "test")):
            pairs = [{"a": f"a{row}", "b": f"b{row}", "label": 1} for row in range(number, 20, 3)]
            write_rows(tmp_path / "data" / name / f"pairs_{part}.jsonl.gz", pairs)
    size = Size(64, QUICK.model_copy(update={"distil": 0.5}), anchors=16, shares=(1.0, 0.5), judged=False)
    base = write_tiny_model(tmp_path / "tiny")
    report = measure(tmp_path / "data", base, tmp_path / "out", size)
    found = {f"{figure.name}, {figure.note}": figure.value for figure in report.figures}
    assert found["cold items, gain, 64 pairs"] > 0
    for title in OTHER_SETS.values():
        low, change, high = (
            found[f"{title}{what}, all pairs"]
            for what in (", lower 95 % bound", " recall@10, change", ", upper 95 % bound")
        )
        assert low <= change <= high
    assert report.settings["share of the way"] in (1.0, 0.5)
    # Again, in the same folder: nothing is trained or encoded anew.
    monkeypatch.setattr(Vectors, "of", lambda self, model, texts: unit(*range(len(texts))))
    again = measure(tmp_path / "data", base, tmp_path / "out", size)
    assert [figure.value for figure in again.figures] == [figure.value for figure in report.figures]


# --- rates and methods -------------------------------------------------------------------------------


def test_the_pairs_of_the_rate_have_false_negatives_to_mask() -> None:
    table = shop_pairs(64)
    hidden, back = NegativeMask(table).of_batch(np.arange(32), columns=1)
    assert hidden.sum() > 0
    assert back.sum() > 0


def test_both_sides_of_the_rate_train_and_end_as_weights(
    tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, table = write_tiny_model(tmp_path / "tiny"), shop_pairs(64)
    for side in (training_rate.ours, training_rate.theirs):
        weights = side(base, table, training_rate.RECIPE, tmp_path / side.__name__)
        assert list(weights.rglob("*.safetensors"))
    report = training_rate.measure(base, table, training_rate.RECIPE, 1, small=True)
    assert not [figure for figure in report.missed(small=True) if figure.kind == "count"]
    assert report.figures[0].value > 0


def test_lora_trains_fewer_weights_and_ends_as_a_release_of_the_same_size(
    tmp_path: Path, one_thread: None
) -> None:
    base = write_tiny_model(tmp_path / "tiny")
    settings = ModelSettings(name=str(base), device="cpu", dtype="fp32")
    one = world(purchases(), "weeks", baskets=300, queries=60, periods=PERIODS)
    found = {}
    for name in ("full", "LoRA"):
        recipe = methods.BASE.model_copy(update={**methods.METHODS[name], "learning_rate": 1e-3})
        found[name] = methods.trained(one, base, settings, recipe, 64, tmp_path / name)
    report = methods._report(  # noqa: SLF001
        {"full": found["full"], "LoRA": found["LoRA"], "top 2 layers": found["full"]}, 64
    )
    assert not [figure for figure in report.missed(small=True) if figure.kind == "count"]
    assert found["LoRA"]["trains"] < found["full"]["trains"]
    assert found["LoRA"]["release_mib"] == pytest.approx(found["full"]["release_mib"], rel=0.01)


def test_a_variant_is_compared_with_plain_training_query_by_query(
    tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_tiny_model(tmp_path / "tiny")
    settings = ModelSettings(name=str(base), device="cpu", dtype="fp32")
    one = world(purchases(), "weeks", baskets=300, queries=60, periods=PERIODS)

    def here(name: str, choice: int, pairs: int, *, small: bool) -> dict[str, Any]:
        recipe = methods.BASE.model_copy(update={"learning_rate": 1e-3, **craft.VARIANTS[name][choice]})
        found = methods.trained(one, base, settings, recipe, pairs, tmp_path / name)
        return found | {"choice": choice}

    monkeypatch.setattr(craft, "_apart", here)
    report = craft.run(small=True, data=None)
    found = {f"{figure.name}, {figure.note}": figure.value for figure in report.figures}
    (name,) = [name for name in craft.VARIANTS if f"over plain, {name}" in found]
    low, value, high = (
        found[f"over plain{which}, {name}"] for which in (", lower 95 % bound", "", ", upper 95 % bound")
    )
    assert low <= value <= high
    assert value == pytest.approx(
        100 * (found[f"hit@10, trained, {name}"] - found[f"hit@10, trained, {craft.PLAIN}"]), abs=0.02
    )
    assert not [figure for figure in report.missed(small=True) if figure.kind == "count"]
