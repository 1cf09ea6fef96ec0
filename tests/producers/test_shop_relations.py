"""producers/shop_relations.py: planted pairs meet three times as often as chance, decoys as often as it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from producers.shop import Shop
from producers.shop_relations import LIFT, POPULAR, Visits, load, related

VISITS = 40_000
ITEMS = 120


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop(7, products=400, shoppers=5)


def baskets(visits: Visits, names: list[str], *, bought: bool) -> dict[str, set[int]]:
    rows = visits.bought if bought else np.ones(len(visits.item), dtype=bool)
    found: dict[str, set[int]] = {name: set() for name in names}
    for item, visit in zip(visits.item[rows].tolist(), visits.visit[rows].tolist(), strict=True):
        found[names[item]].add(visit)
    return found


def test_planted_pairs_meet_as_often_as_said_and_the_popular_are_in_none(shop: Shop) -> None:
    products, visits, planted = related(shop, visits=VISITS, items=ITEMS)
    names = [product.product_id for product in products]
    popular = sorted(names, key=lambda name: -int(np.count_nonzero(visits.item == names.index(name))))
    for pairs, bought in ((planted.complements, True), (planted.browsed, False)):
        assert pairs
        assert not set(popular[: POPULAR // 2]) & {name for pair in pairs for name in pair}
        held = baskets(visits, names, bought=bought)
        sizes = np.bincount([visit for those in held.values() for visit in those])
        chance = float((sizes * (sizes - 1.0)).sum()) / float(sizes.sum()) ** 2
        lifts = [
            len(held[one] & held[other]) / (len(held[one]) * len(held[other]) * chance)
            for one, other in pairs
        ]
        assert np.mean(lifts) == pytest.approx(LIFT, rel=0.1)


def test_complements_are_of_two_kinds_substitutes_of_one_and_no_variants(shop: Shop) -> None:
    products, _, planted = related(shop, visits=VISITS, items=ITEMS)
    kinds = {
        product.product_id: (listing.design.kind.noun, product.group_id)
        for product, listing in zip(products, shop.listings, strict=False)
    }
    assert all(kinds[one][0] != kinds[other][0] for one, other in planted.complements)
    assert all(kinds[one][0] == kinds[other][0] for one, other in planted.substitutes)
    grouped = [pair for pair in planted.substitutes if kinds[pair[0]][1] is not None]
    assert all(kinds[one][1] != kinds[other][1] for one, other in grouped)
    everything = [*planted.complements, *planted.substitutes, *planted.browsed]
    assert len(set(everything)) == len(everything)


def test_noise_moves_what_is_by_chance_alone(shop: Shop, tmp_path: Path) -> None:
    _, quiet, planted = related(shop, visits=VISITS, items=ITEMS, noise=0.5)
    _, usual, same = related(shop, visits=VISITS, items=ITEMS)
    assert planted == same
    by_chance = [np.count_nonzero(one.visit < VISITS) for one in (quiet, usual)]
    assert by_chance[1] == pytest.approx(2 * by_chance[0], rel=0.02)
    assert len(quiet.item) - by_chance[0] == len(usual.item) - by_chance[1]
    planted.save(tmp_path / "truth.json")
    assert load(tmp_path / "truth.json") == planted
