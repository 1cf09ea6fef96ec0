"""producers/shop_prices.py: prices are planted as the page says, and nobody but the scorer can know which."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from statistics import fmean, stdev

import pytest

from producers.shop import Shop
from producers.shop_prices import OUTLIERS, PACK_ATTRIBUTE, PACKS, load, precision_and_recall, priced

ROOT = Path(__file__).parents[2]
SHOP = Shop(3, products=1_500, shoppers=20)


def test_prices_are_log_normal_within_a_kind_and_outliers_far_from_it() -> None:
    for noise in (1.0, 2.0):
        products, truth = priced(SHOP, noise=noise)
        off = {
            one.product_id: math.log(float(one.price or 0) / truth.expected[one.product_id])
            for one in products
        }
        usual = [value for name, value in off.items() if name not in truth.outliers]
        assert fmean(usual) == pytest.approx(0.0, abs=0.04 * noise)
        assert stdev(usual) == pytest.approx(0.25 * noise, rel=0.08)
        wrong = [abs(off[name]) for name in truth.outliers]
        assert min(wrong) >= math.log(1.79)
        assert max(wrong) <= math.log(4.01)
        assert len(truth.outliers) / len(products) == pytest.approx(OUTLIERS, abs=0.03)
        assert len(truth.packs) / len(products) == pytest.approx(PACKS, abs=0.03)


def test_packs_say_so_and_outliers_do_not() -> None:
    products, truth = priced(SHOP)
    plain, other = priced(SHOP, noise=2.0)
    assert (truth.outliers, truth.packs) == (other.outliers, other.packs)
    for product, again in zip(products, plain, strict=True):
        said = product.attributes.get(PACK_ATTRIBUTE)
        assert said == (str(truth.packs[product.product_id]) if product.product_id in truth.packs else None)
        # But for the price, a product is the same at every noise: no text tells of it.
        assert product.model_copy(update={"price": None}) == again.model_copy(update={"price": None})


def test_a_factor_on_top_of_the_own_draw_hides_some(tmp_path: Path) -> None:
    products, truth = priced(SHOP, on_top=True)
    off = {
        one.product_id: math.log(float(one.price or 0) / truth.expected[one.product_id]) for one in products
    }
    assert min(abs(off[name]) for name in truth.outliers) < math.log(1.5)
    truth.save(tmp_path / "truth.json")
    assert load(tmp_path / "truth.json") == truth


def test_precision_and_recall_count_what_was_found() -> None:
    true = {"a": 1, "b": 1}
    assert precision_and_recall(["a", "c"], true) == (0.5, 0.5)
    assert precision_and_recall([], true) == (1.0, 0.0)


def test_whoever_finds_outliers_never_imports_the_shop() -> None:
    watched = [
        path
        for package in ("schemas", "adapters", "consumers", "model", "service")
        for path in (ROOT / package).rglob("*.py")
    ]
    assert len(watched) > 100

    def imports_the_shop(source: str) -> bool:
        names = [
            name
            for node in ast.walk(ast.parse(source))
            for name in (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else []
            )
        ]
        return any(name.partition(".")[0] == "producers" for name in names)

    assert not [path for path in watched if imports_the_shop(path.read_text())]
    assert imports_the_shop("def f():\n    from producers.shop_prices import priced")
