"""service/price_bands.py: the bulk of prices, packs and conditions, and where one price stands."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np
import pytest

from schemas.items import attribute_terms
from service.price_bands import LEAST_SPREAD, Offer, Standing, bulk, comparable, pack_of, standing


def prices(number: int, sigma: float = 0.25, centre: float = 20.0, seed: int = 1) -> list[float]:
    draw = Random(seed)
    return [centre * math.exp(draw.gauss(0, sigma)) for _ in range(number)]


def among(offer: Offer[str], others: list[Offer[str]], **more: Any) -> Standing[str] | None:
    wanted = {"least": 8, "usual_spread": 0.3, "usual_weight": 0.0, "currency": "EUR", **more}
    return standing(offer, others, **wanted)


def offers(values: list[float], **fields: Any) -> list[Offer[str]]:
    return [Offer(f"{fields}{place}", value, **fields) for place, value in enumerate(values)]


def test_the_bulk_of_log_prices_has_their_centre_and_spread() -> None:
    centre, spread = bulk(np.log(prices(5_000)))
    assert math.exp(centre) == pytest.approx(20.0, rel=0.02)
    assert spread == pytest.approx(0.25, rel=0.05)


def test_wrong_prices_among_them_move_neither_much() -> None:
    values = prices(900) + [20.0 * 3] * 100
    centre, spread = bulk(np.log(values))
    assert math.exp(centre) == pytest.approx(20.0, rel=0.03)
    assert spread < 0.3
    # The control: plain mean and deviation are moved.
    assert np.log(values).std() > 0.38
    assert math.exp(np.log(values).mean()) > 21.9


def test_equal_prices_have_a_spread_all_the_same() -> None:
    assert bulk([1.0] * 10) == (1.0, LEAST_SPREAD)


def test_a_price_stands_where_its_distance_says() -> None:
    found = among(Offer("me", 60.0), offers(prices(200)))
    assert found is not None
    assert found.ratio == pytest.approx(3.0, rel=0.05)
    assert found.score == pytest.approx(math.log(3) / 0.25, rel=0.12)
    assert found.position == 1.0
    band = found.band
    assert band.low < band.quarter < band.median < band.three_quarters < band.high < 60
    cheap = among(Offer("me", 20 / 3), offers(prices(200)))
    assert cheap is not None
    assert cheap.score < -3
    assert cheap.position == 0.0


def test_too_few_prices_say_nothing() -> None:
    assert among(Offer("me", 60.0), offers(prices(7))) is None
    assert among(Offer("me", 60.0), offers(prices(8))) is not None


def test_a_few_prices_are_drawn_towards_the_usual_spread() -> None:
    others = offers([20.0, 20.1, 19.9, 20.0, 20.2, 19.8, 20.0, 20.0])
    plain, drawn = among(Offer("me", 25.0), others), among(Offer("me", 25.0), others, usual_weight=30.0)
    assert plain is not None
    assert drawn is not None
    assert plain.score > 8
    assert drawn.score < 1.0


def test_a_pack_is_held_to_packs_of_its_size_or_else_to_the_price_of_one() -> None:
    singles, sixes = offers(prices(30)), offers([6 * price for price in prices(8, seed=2)], pack=6)
    six = Offer("me", 120.0, pack=6)
    same = among(six, [*singles, *sixes])
    assert same is not None
    assert (same.basis, same.band.items) == ("same pack, same condition", 8)
    unit = among(six, [*singles, *sixes[:7]])
    assert unit is not None
    assert (unit.basis, unit.band.items) == ("unit price, same condition", 37)
    assert abs(unit.score) < 1
    assert unit.band.median == pytest.approx(120, rel=0.1)
    # The control: taken for one, it would be six times too dear.
    wrong = among(Offer("me", 120.0), singles)
    assert wrong is not None
    assert wrong.score > 6


def test_used_items_are_held_to_used_ones_where_there_are_enough() -> None:
    new, used = offers(prices(20)), offers(prices(8, centre=8.0), condition="used")
    me = Offer("me", 8.0, condition="Used")
    basis, against = comparable(me, [*new, *used], 8)
    assert (basis, against) == ("same pack, same condition", used)
    basis, against = comparable(me, [*new, *used[:7]], 8)
    assert (basis, len(against)) == ("unit price, any condition", 27)
    # What is not said is new.
    assert comparable(Offer("me", 8.0, condition="new"), [*new, *used], 8)[1] == new


@pytest.mark.parametrize(
    ("attributes", "pack"),
    [
        ({"pack size": "6"}, 6),
        ({"Pack": "10 pieces"}, 10),
        ({"multipack": "pack of 3"}, 3),
        ({"pack size": "many"}, 1),
        ({"pack size": "0"}, 1),
        ({"pack size": "100000"}, 1),
        ({"pieces": "1000"}, 1),
        ({}, 1),
    ],
)
def test_a_pack_says_how_many_it_holds(attributes: dict[str, str | list[str]], pack: int) -> None:
    assert pack_of({"attributes": attribute_terms(attributes)}) == pack
