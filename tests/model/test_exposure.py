"""model/exposure.py: who is shown how much over their share, how surely, and what the gate makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.evaluation import RetrievalSet
from model.examples import Labelled
from model.exposure import (
    NONE,
    OTHERS,
    ExposureSet,
    Grouping,
    Measured,
    ginis,
    groups_of,
    measured,
    nearest,
    parity,
    price_bands,
    ratio_of,
    shares_of,
)
from model.gate import judge
from model.learning_settings import ExposureSettings, GateSettings
from model.report import render
from model.run_files import load_prepared, save_prepared
from schemas.events import Product
from schemas.releases import Verdict
from tests.model.test_examples import SETTINGS as SMALL
from tests.model.test_examples import catalogue, prepared

SETTINGS = ExposureSettings(least_items=2, price_bands=4, most_groups=3)
GATE = GateSettings(samples=300)


def product(**fields: Any) -> Product:
    return Product.model_validate({"title": "A thing", **fields})


def test_groups_are_brands_bands_and_sellers_and_the_small_ones_are_one() -> None:
    products = [
        *[product(brand="Norda", seller_id="m1") for _ in range(3)],
        product(brand="NORDA", attributes={"seller": "M1"}),
        *[product(brand="Hoka", attributes={"seller": ["m2", "m3"]}) for _ in range(2)],
        product(brand="Alone"),
        product(brand=" ", attributes={"vendor": "m9"}),
    ]
    groups = groups_of(products, SETTINGS)
    assert set(groups) == {"brand", "seller"}  # no price, no bands
    brand = groups["brand"]
    assert brand.names == ["Norda", "Hoka", OTHERS, NONE]
    assert brand.group.tolist() == [0, 0, 0, 0, 1, 1, 2, 3]
    assert brand.shares().tolist() == [0.5, 0.25, 0.125, 0.125]
    assert groups["seller"].names == ["m1", "m2", NONE]
    named = groups_of(products, ExposureSettings(seller_attribute="vendor", least_items=1))["seller"]
    assert named.names == ["m1", "m9", NONE]
    few = groups_of(products, SETTINGS.model_copy(update={"most_groups": 1}))["brand"]
    assert few.names == ["Norda", OTHERS, NONE]


def test_price_bands_are_quantiles_of_each_currency_of_its_own() -> None:
    euros = [product(price=str(10 * 2**step), currency="EUR") for step in range(8)]
    yen = [product(price=str(1_000 * 2**step), currency="JPY") for step in range(8)]
    rest = [product(price="5"), product(price="0", currency="EUR"), product()]
    labels = price_bands([*euros, *yen, *rest], 4)
    assert [str(label).split(":")[0] for label in labels[:8]] == [
        f"EUR {band} of 4" for band in (1, 1, 2, 2, 3, 3, 4, 4)
    ]
    assert [str(label)[:3] for label in labels[8:16]] == ["JPY"] * 8
    assert len({*labels[8:16]}) == 4
    assert labels[16:] == ["no currency 1 of 2: to 5.00", None, None]


def test_a_place_counts_like_the_discount_of_dcg_and_every_list_the_same() -> None:
    grouping = Grouping(["a", "b"], np.array([0, 1, 0]))
    lists = np.array([[0, 1, 2], [1, -1, -1], [-1, -1, -1]])
    worth = 1 / np.log2([2, 3, 4])
    shares = shares_of(lists, grouping)
    assert shares[0] == pytest.approx([(worth[0] + worth[2]) / worth.sum(), worth[1] / worth.sum()])
    assert shares[1].tolist() == [0.0, 1.0]
    assert shares[2].tolist() == [0.0, 0.0]


def test_lists_drawn_by_chance_are_at_parity_and_one_that_favours_a_group_is_not() -> None:
    draw = np.random.default_rng(3)
    group = np.repeat([0, 1, 2], [600, 300, 100])
    groups = {"brand": Grouping(["a", "b", "c"], group)}
    chance = draw.integers(0, 1_000, (400, 10))
    fair = measured(chance, groups, seed=1, samples=500)["brand"]
    for number in range(3):
        ratio = ratio_of(fair, number, 0.95)
        assert ratio.low < 1.0 < ratio.high
    assert fair.gini() < 0.05
    # Half of all first places go to the smallest group.
    favours = chance.copy()
    favours[::2, 0] = draw.integers(900, 1_000, 200)
    biased = measured(favours, groups, seed=1, samples=500)["brand"]
    assert ratio_of(biased, 2, 0.95).low > 1.5
    assert ratio_of(biased, 0, 0.95).high < 1.0
    assert biased.gini() > fair.gini() + 0.05
    # What is no item any more gets nothing, and an empty list is not asked.
    empty = np.full((4, 10), -1)
    same = measured(np.concatenate([chance, empty]), groups, seed=1, samples=10)["brand"]
    assert same.ratios == pytest.approx(fair.ratios)


def test_the_gini_coefficient_is_that_of_the_definition() -> None:
    shares = np.array([0.5, 0.3, 0.2])
    ratios = np.array([[1.0, 1.0, 1.0], [0.4, 2.0, 1.0], [0.0, 0.0, 5.0]])
    for value, ratio in zip(ginis(ratios, shares).tolist(), ratios, strict=True):
        apart = np.abs(ratio[:, None] - ratio[None, :]) * shares[:, None] * shares[None, :]
        assert value == pytest.approx(apart.sum() / 2)  # mean absolute difference over twice the mean of 1
    assert ginis(ratios, shares)[0] == 0.0


def test_neighbours_are_the_nearest_without_the_item_and_its_variants() -> None:
    angle = np.linspace(0.0, 1.5, 40)
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    families = np.full(40, -1)
    families[[0, 1]] = 7
    found = nearest(vectors, ExposureSet([], np.array([0, 20]), {}, families))
    assert found.shape == (2, 10)
    assert found[0].tolist() == list(range(2, 12))
    assert set(found[1].tolist()) == {*range(15, 20), *range(21, 26)}
    few = nearest(vectors[:3], ExposureSet([], np.array([0]), {}, families[:3]))
    assert few[0].tolist() == [2] + [-1] * 9


# --- the gate -----------------------------------------------------------------------------------------


def a_shop(pull: float, *, seed: int = 2) -> NDArray[np.float32]:
    """300 items around 30 places; the last 60 are drawn by `pull` to the middle of others' places."""
    draw = np.random.default_rng(seed)
    places = draw.normal(size=(30, 8))
    points = np.repeat(places, 10, axis=0) + 0.4 * draw.normal(size=(300, 8))
    points[240:] = (1 - pull) * points[240:] + pull * places[np.arange(60) % 24]
    found: NDArray[np.float32] = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    return found


def asked() -> ExposureSet:
    brands = Grouping(["big", "small"], np.repeat([0, 1], [240, 60]))
    everyone = np.arange(300)
    return ExposureSet([f"text {n}" for n in range(300)], everyone, {"brand": brands}, np.full(300, -1))


def compared(live: NDArray[np.float32], candidate: NDArray[np.float32], most: float | None) -> Any:
    settings = GATE.model_copy(update={"most_exposure_drift": most})
    return parity(asked(), before=live, after=candidate, settings=settings, seed=1)


def test_a_group_that_is_shown_more_than_before_is_reported_and_refused_where_it_is_asked_for() -> None:
    reported, none = compared(a_shop(0.0), a_shop(1.0), None)
    assert none == []
    (brand,) = reported
    big, small = brand.groups
    assert (small.group, small.items, small.share) == ("small", 60, 0.2)
    assert small.after > 1.5 * small.before
    assert small.low > 0.0 > big.high
    assert brand.low > 0.0
    assert brand.gini_after > brand.gini_before
    _, (reason,) = compared(a_shop(0.0), a_shop(1.0), 1.2)
    assert "brand 'small' moves away from its share by more than a factor of 1.2" in reason
    # A generous bound lets it pass, and so does the way back: towards its share is no harm.
    assert compared(a_shop(0.0), a_shop(1.0), 20.0)[1] == []
    assert compared(a_shop(1.0), a_shop(0.0), 1.2)[1] == []


def test_a_candidate_that_moves_nobody_is_at_rest() -> None:
    reported, reasons = compared(a_shop(0.0), a_shop(0.0), 1.01)
    assert reasons == []
    assert all(one.low == one.high == 0.0 for one in reported[0].groups)
    # Other noise, the same shop: a bound that noise alone would break is not broken surely.
    assert compared(a_shop(0.0), a_shop(0.0, seed=4), 1.2)[1] == []


def test_the_gate_encodes_each_text_once_and_says_who_is_shown_how_much() -> None:
    texts = asked().texts
    queries = np.arange(0, 300, 2)
    sets = [
        RetrievalSet(name="new window", texts=texts[:200], queries=queries[:90], targets=queries[:90] + 1)
    ]
    calls: list[Sequence[str]] = []

    def encode(vectors: NDArray[np.float32]) -> Any:
        def texts_to_vectors(given: Sequence[str]) -> NDArray[np.float32]:
            calls.append(given)
            return vectors[[int(text.split()[1]) for text in given]]

        return texts_to_vectors

    settings = GATE.model_copy(update={"least_queries": 50, "most_exposure_drift": 1.2})
    found = judge(
        sets,
        live=encode(a_shop(0.0)),
        candidate=encode(a_shop(1.0)),
        settings=settings,
        seed=1,
        exposure=asked(),
    )
    assert [len(given) for given in calls] == [300, 300]
    assert all(len(set(given)) == len(given) for given in calls)
    assert [one.kind for one in found.exposure] == ["brand"]
    assert any("moves away from its share" in reason for reason in found.reasons)
    assert Verdict.model_validate_json(found.model_dump_json()) == found
    page = render(run="r", parent="p", verdict=found)
    assert "By brand" in page
    assert "Gini" in page
    assert "Nothing was looked at." in render(run="r", parent="p", verdict=Verdict(passed=True))


# --- from the catalogue to the gate -------------------------------------------------------------------


def test_what_is_looked_at_is_encoded_for_the_sets_in_any_case_and_kept_for_a_resume(
    tmp_path: Path,
) -> None:
    told = [
        {"brand": "Norda" if number % 4 else "Hoka", "price": 10.0 + number, "group_id": f"g{number // 2}"}
        for number in range(60)
    ]
    shop = {
        name: item._replace(product=item.product.model_copy(update=more))
        for (name, item), more in zip(catalogue().items(), told, strict=True)
    }
    made = prepared(
        catalogue=shop,
        golden=[Labelled("i1", "i2"), Labelled("i1", "i3", 0.0)],
        settings=SMALL.model_copy(update={"max_queries": 25}),
        exposure=SETTINGS,
    )
    shown = made.exposure
    assert shown is not None
    assert set(shown.texts) <= {text for one in made.sets for text in one.texts}
    assert (len(shown.texts), len(shown.queries)) == (60, 25)
    assert set(shown.groups) == {"brand", "price band"}
    assert shown.groups["brand"].names == ["Norda", "Hoka"]
    assert len(set(shown.families.tolist())) == 30
    save_prepared(made, tmp_path)
    again = load_prepared(tmp_path)
    assert again.exposure is not None
    assert again.exposure.texts == shown.texts
    assert again.exposure.queries.tolist() == shown.queries.tolist()
    assert again.exposure.families.tolist() == shown.families.tolist()
    for kind, grouping in shown.groups.items():
        assert again.exposure.groups[kind].names == list(grouping.names)
        assert again.exposure.groups[kind].group.tolist() == grouping.group.tolist()
    # What is to stay apart must not become what is wanted on the way over the disk.
    assert [(one.name, one.apart) for one in again.sets] == [(one.name, one.apart) for one in made.sets]
    assert any(one.apart for one in again.sets)


def test_a_measure_knows_its_own_samples() -> None:
    grouping = Grouping(["a", "b"], np.array([0, 1]))
    one = Measured(grouping, np.array([1.5, 0.5]), np.array([[1.5, 0.5], [1.0, 1.0]]))
    assert one.gini() == pytest.approx(0.25)
    assert one.drawn_ginis().tolist() == pytest.approx([0.25, 0.0])
