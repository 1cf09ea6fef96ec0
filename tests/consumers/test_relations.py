"""consumers/baskets.py, consumers/relations.py: baskets, chance, sure pairs, what shuffling leaves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pytest

from adapters.archive import EVENTS
from consumers.baskets import Interactions, RelationSettings, occasions, read_archive
from consumers.relations import Found, counted, lifts, mine

HOUR_MS = 3_600_000
SETTINGS = RelationSettings()


def interactions(rows: Iterable[Sequence[object]]) -> Interactions:
    """From (shopper, item, hour, type, session or None)."""
    table = [
        {
            "shopper": who,
            "product": item,
            "at_ms": round(float(str(hour)) * HOUR_MS),
            "type": kind,
            "session": visit,
        }
        for who, item, hour, kind, visit in rows
    ]
    filled = [{**dict.fromkeys(EVENTS.names), **row} for row in table]
    return read_archive(pa.Table.from_pylist(filled, schema=EVENTS))


def shop(baskets: int = 4_000, *, planted: int = 120, seed: int = 1) -> Interactions:
    """Baskets of three of forty items by chance; a0 and b0 together in `planted` more, a0 first."""
    draw = np.random.default_rng(seed)
    item = draw.integers(0, 40, (baskets, 3)).ravel()
    basket = np.repeat(np.arange(baskets), 3)
    item = np.concatenate([item, np.tile([0, 1], planted)])
    basket = np.concatenate([basket, baskets + np.repeat(np.arange(planted), 2)])
    names = ["a0", "b0", *(f"i{number}" for number in range(2, 40))]
    return Interactions(
        items=names,
        item=item,
        shopper=basket // 4,
        at_ms=basket * 24 * HOUR_MS + np.arange(len(item)) % 7 * 1_000 + item,
        visit=np.full(len(item), -1),
        bought=np.ones(len(item), dtype=bool),
    )


def pairs(found: Found) -> set[frozenset[str]]:
    return {
        frozenset((item, partner.item_id))
        for item, mined in found.mined.items()
        for partner in mined.partners
        if partner.bought is not None and partner.bought.sure
    }


def test_a_planted_pair_is_found_with_its_evidence_and_shuffled_baskets_have_none() -> None:
    events = shop()
    found = mine(events, SETTINGS)
    assert pairs(found) == {frozenset(("a0", "b0"))}
    (partner,) = found.mined["a0"].partners
    evidence = partner.bought
    assert evidence is not None
    n = {name: found.mined[name].baskets for name in ("a0", "b0")}
    assert evidence.other == n["b0"]
    # Chance, from its definition: every basket's pairs, over all pairs that its items could make.
    assert evidence.together == pytest.approx(120 + n["a0"] * n["b0"] / found.baskets * 0.5, rel=0.2)
    assert evidence.lift > evidence.lift_low > SETTINGS.least_lift
    shuffled = events._replace(item=np.random.default_rng(2).permutation(events.item))
    assert pairs(mine(shuffled, SETTINGS)) == set()


def test_what_is_expected_is_what_shuffling_the_baskets_comes_to() -> None:
    events = shop()
    settings = RelationSettings(surety=0, least_lift=1, kept=40, least_shoppers=2, shrinkage=1e-6)
    expected = mine(events, settings).mined["a0"].partners
    (of_b0,) = [one.bought for one in expected if one.item_id == "b0"]
    assert of_b0 is not None
    met = []
    for seed in range(20):
        shuffled = events._replace(item=np.random.default_rng(seed).permutation(events.item))
        held = occasions(shuffled, 12 * HOUR_MS, settings, named=False)
        baskets = [set(held.occasion[held.item == number].tolist()) for number in (0, 1)]
        met.append(len(baskets[0] & baskets[1]))
    assert of_b0.expected == pytest.approx(np.mean(met), rel=0.15)


def test_large_baskets_and_popular_items_explain_what_they_can() -> None:
    """Everybody buys the decoy, and some buy everything: neither makes a pair."""
    draw = np.random.default_rng(3)
    rows: list[tuple[int, int]] = []
    for basket in range(3_000):
        size = 12 if basket % 10 == 0 else 2
        rows += [(basket, item) for item in draw.choice(400, size, replace=False, p=_popular(400))]
    basket, item = np.array(rows).T
    nobody = np.full(len(item), -1)
    everything = np.ones(len(item), dtype=bool)
    events = Interactions(
        [f"i{number}" for number in range(400)], item, basket, basket * HOUR_MS, nobody, everything
    )
    assert pairs(mine(events, SETTINGS)) == set()
    # As if all baskets were of one size, many of them would be sure.
    found = counted(occasions(events, 1, SETTINGS, named=False), 400, SETTINGS)
    often = np.bincount(item, minlength=400)
    naive = often[found.key // 400] * often[found.key % 400] / 3_000
    _, low = lifts(found.together, naive, SETTINGS)
    assert np.count_nonzero(low[found.together >= SETTINGS.least_shoppers] >= SETTINGS.least_lift) > 5


def _popular(size: int) -> np.ndarray:
    weights = 1.0 / (1 + np.arange(size))
    found: np.ndarray = weights / weights.sum()
    return found


def test_rare_pairs_do_not_shout_and_lifts_are_drawn_towards_one() -> None:
    together, expected = np.array([2, 5, 50, 500]), np.array([0.001, 0.01, 10.0, 100.0])
    lift, low = lifts(together, expected, SETTINGS)
    assert lift[0] < 2.1  # two thousand times chance, and next to nothing known
    assert lift == pytest.approx((together + 2) / (expected + 2))
    assert (low < lift).all()
    assert (low >= 0).all()
    # The more is known, the nearer the bound.
    assert low[3] / lift[3] > low[2] / lift[2] > low[1] / lift[1]
    assert low[0] < 1
    # Of a gamma distribution with this shape and rate: 0.135 % lie below three standard deviations.
    drawn = np.random.default_rng(1).gamma(52, 1 / 12, 200_000)
    assert np.mean(drawn < low[2]) == pytest.approx(0.00135, abs=0.0005)


def test_one_shopper_makes_no_pair_however_often_and_several_do() -> None:
    def bought(shoppers: int) -> Interactions:
        alone = [(f"x{n}", f"i{n % 30}", n, "purchase", None) for n in range(600)]
        both = [
            (f"u{n % shoppers}", item, 48 * n, "purchase", None) for n in range(80) for item in ("a", "b")
        ]
        return interactions([*alone, *both])

    assert pairs(mine(bought(1), SETTINGS)) == set()
    assert pairs(mine(bought(SETTINGS.least_shoppers - 1), SETTINGS)) == set()
    assert pairs(mine(bought(SETTINGS.least_shoppers), SETTINGS)) == {frozenset("ab")}


def test_a_basket_ends_with_a_pause_and_a_visit_with_its_session() -> None:
    events = interactions(
        [
            ("u", "a", 0, "view", "s1"),
            ("u", "b", 5, "view", "s1"),  # a session goes on as long as the shop says so
            ("u", "c", 5.1, "view", "s2"),
            ("u", "d", 6, "view", None),
            ("u", "e", 6.4, "view", None),
            ("u", "f", 7, "view", None),  # half an hour's pause
            ("v", "f", 7, "view", None),
            ("u", "a", 6, "purchase", None),
            ("u", "b", 17, "purchase", None),
            ("u", "b", 18, "purchase", None),
            ("u", "c", 31, "purchase", None),
        ]
    )

    def sets(named: bool, chosen: Interactions, gap_hours: float) -> list[set[str]]:
        held = occasions(chosen, round(gap_hours * HOUR_MS), SETTINGS, named=named)
        found: dict[int, set[str]] = {}
        for number, item in zip(held.occasion.tolist(), held.item.tolist(), strict=True):
            found.setdefault(number, set()).add(events.items[item])
        assert held.total == len(found)
        return sorted(found.values(), key=sorted)

    looks = events.rows(~events.bought)
    assert sets(True, looks, 0.5) == [{"a", "b"}, {"c"}, {"d", "e"}, {"f"}, {"f"}]
    assert sets(False, events.rows(events.bought), 12) == [{"a", "b"}, {"c"}]


def test_resellers_and_the_oldest_baskets_of_a_shopper_are_left_out() -> None:
    settings = RelationSettings(most_items=3, most_occasions=2)
    events = interactions(
        [
            *(("robot", f"i{n}", 0, "purchase", None) for n in range(4)),
            *(("u", f"j{n}", 24 * n, "purchase", None) for n in range(4)),
        ]
    )
    held = occasions(events, 12 * HOUR_MS, settings, named=False)
    assert {events.items[item] for item in held.item.tolist()} == {"j2", "j3"}


def test_which_is_bought_first_is_told_from_both_sides() -> None:
    found = mine(shop(), SETTINGS)
    (to_b,), (to_a,) = found.mined["a0"].partners, found.mined["b0"].partners
    assert to_b.later is not None
    assert to_a.later is not None
    assert to_b.later > 0.5 > to_a.later
    assert to_b.later + to_a.later == pytest.approx(1, abs=1e-3)


def test_three_that_are_bought_together_are_a_bundle_and_pairs_alone_are_none() -> None:
    def bought(*sets: tuple[str, ...]) -> Found:
        alone = [(f"x{n}", f"i{n % 30}", n, "purchase", None) for n in range(900)]
        rows = [
            (f"u{number}-{place}", item, number, "purchase", None)
            for place, items in enumerate(sets)
            for number in range(40)
            for item in items
        ]
        return mine(interactions([*alone, *rows]), SETTINGS)

    whole = bought(("a", "b", "c"))
    (bundle,) = whole.mined["a"].bundles
    assert (set(bundle.items), bundle.together) == ({"b", "c"}, 40)
    assert bought(("a", "b"), ("b", "c"), ("a", "c")).mined["a"].bundles == ()


def test_looks_and_purchases_are_told_apart_and_nothing_is_no_fault() -> None:
    looked = [(f"u{n}", item, n, "view", f"s{n}") for n in range(60) for item in ("a", "b")]
    alone = [(f"x{n}", f"i{n % 30}", n, "purchase", None) for n in range(600)]
    (partner,) = mine(interactions([*looked, *alone]), SETTINGS).mined["a"].partners
    assert partner.bought is None
    assert partner.seen is not None
    assert partner.seen.sure
    assert partner.later is None
    empty = read_archive(EVENTS.empty_table())
    assert mine(empty, SETTINGS).mined == {}


def test_the_order_of_the_rows_changes_nothing() -> None:
    events = shop(1_500, planted=80)
    order = np.random.default_rng(5).permutation(len(events.item))
    assert mine(events.rows(order), SETTINGS) == mine(events, SETTINGS)
