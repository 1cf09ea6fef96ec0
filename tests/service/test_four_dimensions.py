"""Queries over all four dimensions, presets, diversity, freshness and sessions, over a real index."""

from __future__ import annotations

import math
from datetime import timedelta
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from schemas.api import Answer, Hit, QueryOptions, Seed, SimilarRequest
from schemas.vectors import BEHAVIOUR, CONTENT, LEXICAL, REVIEWS
from service.fusion import evidence
from service.settings import ServiceSettings
from service.timing import Timings
from tests.service.shop import COLLECTION, NOW, PRODUCTS, REVIEW_TEXTS, SHOPPERS, SHRINKAGE, Shop, product

BY_ID = {event.product_id: event for event in PRODUCTS}
SETTINGS = ServiceSettings()


def ask(shop: Shop, *seeds: str, settings: ServiceSettings | None = None, **body: Any) -> Answer:
    body.setdefault("limit", 20)
    body.setdefault("seeds", [{"item_id": seed} for seed in seeds])
    return shop.engine(settings).similar(SimilarRequest.model_validate(body), Timings())


def ids(answer: Answer) -> list[str]:
    return [hit.item_id for hit in answer.items]


def hit_of(answer: Answer, item_id: str) -> Hit:
    return next(hit for hit in answer.items if hit.item_id == item_id)


def shared_score(seed: str, hit: str) -> float:
    """What the two items' shoppers come to, from their numbers alone: 1 for an item with itself."""
    common, own, other = len(SHOPPERS[seed] & SHOPPERS[hit]), len(SHOPPERS[seed]), len(SHOPPERS[hit])
    cosine = common / math.sqrt((own + SHRINKAGE) * (other + SHRINKAGE))
    return cosine / (own / (own + SHRINKAGE))


def test_every_hit_has_an_exact_score_in_each_dimension_it_has_and_their_weighted_mean(shop: Shop) -> None:
    answer = ask(shop, "s1", filter={"group": "any"})
    assert set(ids(answer)) == set(BY_ID) - {"s1"}
    for hit in answer.items:
        has_reviews, has_shoppers = hit.item_id in REVIEW_TEXTS, hit.item_id in SHOPPERS
        expected = {CONTENT, LEXICAL} | ({REVIEWS} if has_reviews else set())
        assert set(hit.dimensions) == expected | {BEHAVIOUR}, hit.item_id
        if has_reviews:
            one, other = shop.encoder.encode([REVIEW_TEXTS["s1"], REVIEW_TEXTS[hit.item_id]])
            assert hit.dimensions[REVIEWS].score == pytest.approx(float(np.dot(one, other)), abs=1e-3)
        if has_shoppers:
            assert hit.dimensions[BEHAVIOUR].score == pytest.approx(
                min(1.0, shared_score("s1", hit.item_id)), abs=1e-3
            )
        else:
            assert hit.dimensions[BEHAVIOUR].score == 0
        counted = evidence(len(SHOPPERS["s1"]), SETTINGS.evidence_shoppers)
        assert hit.dimensions[BEHAVIOUR].weight == pytest.approx(counted, abs=1e-5)
        total = sum(one.weight for one in hit.dimensions.values())
        mean = sum(one.weight * one.score for one in hit.dimensions.values()) / total
        if all(one.score < 1 for one in hit.dimensions.values()):
            assert hit.score == pytest.approx(mean, abs=1e-4)
    assert [hit.score for hit in answer.items] == sorted((hit.score for hit in answer.items), reverse=True)


def test_an_item_scores_one_with_itself_in_every_dimension(shop: Shop) -> None:
    engine = shop.engine()
    points = shop.index.fetch(COLLECTION, ["s1"], vectors=True)
    answer = engine.neighbours(
        QueryOptions(limit=1),
        shop.target(),
        Timings(),
        seeds=[Seed(item_id="s1")],
        points=points,
        returnable={"s1"},
    )
    (hit,) = answer.items
    assert hit.item_id == "s1"
    assert {name: one.score for name, one in hit.dimensions.items()} == pytest.approx(
        dict.fromkeys((CONTENT, LEXICAL, REVIEWS, BEHAVIOUR), 1.0), abs=1e-3
    )


def test_no_shopper_in_common_and_no_shopper_at_all_are_zeros(shop: Shop) -> None:
    answer = ask(shop, "s1", filter={"group": "any"})
    assert hit_of(answer, "s7").dimensions[BEHAVIOUR].score == 0
    assert hit_of(answer, "s2").dimensions[BEHAVIOUR].score == 0


def test_a_cold_seed_is_judged_by_its_text(fresh_shop: Shop) -> None:
    # One shopper touched c2 and the shoe: by behaviour alone they are alike.
    alone = ask(fresh_shop, "c2", weights={"behaviour": 1})
    assert ids(alone)[0] in {"s5", "s1", "c1"}
    cold = ask(fresh_shop, "c2", weights={"content": 1, "behaviour": 1})
    assert ids(cold)[0] == "c1"
    assert hit_of(cold, "s5").dimensions[BEHAVIOUR].weight == pytest.approx(1 / 6, abs=1e-5)


def test_the_setting_says_how_many_shoppers_are_half_of_the_evidence(shop: Shop) -> None:
    trusting = ask(shop, "s1", settings=ServiceSettings(evidence_shoppers=0.1))
    wary = ask(shop, "s1", settings=ServiceSettings(evidence_shoppers=1_000))
    assert hit_of(trusting, "c1").dimensions[BEHAVIOUR].weight > 0.95
    assert hit_of(wary, "c1").dimensions[BEHAVIOUR].weight < 0.01
    assert ids(trusting).index("c1") < ids(wary).index("c1")


def test_a_disliked_seed_pushes_down_what_its_shoppers_touched(shop: Shop) -> None:
    weights = {"behaviour": 1}
    liked = ask(shop, "s1", weights=weights, filter={"group": "any"})
    mixed = ask(
        shop,
        seeds=[{"item_id": "s1"}, {"item_id": "c1", "weight": -0.7}],
        weights=weights,
        filter={"group": "any"},
    )
    assert hit_of(liked, "s5").dimensions[BEHAVIOUR].score > hit_of(mixed, "s5").dimensions[BEHAVIOUR].score
    assert hit_of(mixed, "s3").score > 0


# --- presets ---------------------------------------------------------------------------------------


def test_complements_are_what_the_same_shoppers_bought_from_another_shelf(shop: Shop) -> None:
    answer = ask(shop, "s1", preset="complements", explain=True)
    assert ids(answer)[0] == "c1"
    assert ids(ask(shop, "s1"))[0] != "c1"
    rules = {hit.item_id: hit.explanation.rules for hit in answer.items if hit.explanation is not None}
    assert (rules["c1"].preset, rules["c1"].same_category) == ("complements", None)
    assert rules["s5"].same_category == pytest.approx(0.3)


def test_substitutes_are_alike_and_at_the_same_price_and_say_so_where_there_is_no_price(shop: Shop) -> None:
    answer = ask(shop, "s1", preset="substitutes")
    assert set(ids(answer)) <= {"s3", "s4", "s5", "s8"}
    assert len(ids(answer)) == 3  # s3 and s4 are variants of one shoe
    priceless = ask(shop, "c1", preset="substitutes")
    assert priceless.notes == ["filter.price_ratio was ignored: no positive seed has a price"]


def test_the_same_product_shows_every_variant(shop: Shop) -> None:
    answer = ask(shop, "s1", preset="same_product", limit=3)
    assert ids(answer)[0] == "s2"
    assert all(set(hit.dimensions) == {CONTENT, LEXICAL} for hit in answer.items)


def test_discovery_shows_hits_unlike_each_other(shop: Shop) -> None:
    def alike(answer: Answer) -> float:
        vectors = [shop.encode(BY_ID[item_id]) for item_id in ids(answer)]
        return float(np.mean([np.dot(one, other) for one, other in combinations(vectors, 2)]))

    plain = ask(shop, "s1", preset="discovery", diversity=0, limit=4)
    varied = ask(shop, "s1", preset="discovery", limit=4)
    assert ids(plain)[0] == ids(varied)[0]
    assert alike(varied) < alike(plain)


def test_diversity_counts_what_a_hit_went_before(shop: Shop) -> None:
    varied = ask(shop, "s1", diversity=0.7, explain=True, limit=5)
    overtook = [hit.explanation.rules.diversity for hit in varied.items if hit.explanation is not None]
    assert overtook[0] == 0
    assert any(overtook)
    plain = ask(shop, "s1", explain=True, limit=1).items[0]
    assert plain.explanation is not None
    assert plain.explanation.rules.diversity is None


def test_a_brand_cap_says_how_many_it_left_out(shop: Shop) -> None:
    answer = ask(shop, "s1", explain=True, filter={"brand_cap": 1, "group": "any"})
    rules = {hit.item_id: hit.explanation.rules for hit in answer.items if hit.explanation is not None}
    assert answer.items[0].item.brand == "Norda"
    assert rules[ids(answer)[0]].brand_cap == 0
    assert (rules[ids(answer)[-1]].brand_cap or 0) >= 2
    assert rules[ids(answer)[0]].group is None


# --- freshness and sessions ------------------------------------------------------------------------


def test_of_two_equal_items_the_newer_comes_first_when_freshness_is_asked_for(fresh_shop: Shop) -> None:
    old, new = (
        product(name, "Norda 003 trail running shoe", category=["Sport", "Shoes"]) for name in ("a", "b")
    )
    past = NOW - timedelta(days=90)
    fresh_shop.upsert(
        [
            fresh_shop.point(old.model_copy(update={"occurred_at": past}), updated_at=past),
            fresh_shop.point(new),
        ]
    )
    plain = ask(fresh_shop, "s1")
    assert hit_of(plain, "a").score == hit_of(plain, "b").score
    assert ids(plain).index("a") < ids(plain).index("b")
    fresh = ask(fresh_shop, "s1", freshness=0.5, explain=True)
    assert ids(fresh).index("b") < ids(fresh).index("a")
    assert hit_of(fresh, "b").score == hit_of(plain, "b").score
    why = hit_of(fresh, "a").explanation
    assert why is not None
    factor = 0.5 + 0.5 * 0.5 ** (90 / 14)
    assert why.rules.freshness == pytest.approx(factor, abs=1e-4)
    assert hit_of(fresh, "a").score == pytest.approx(hit_of(plain, "a").score * factor, abs=1e-4)


def test_a_session_is_near_what_was_looked_at_last(shop: Shop) -> None:
    def session(shoe_age: int, coffee_age: int, **options: Any) -> list[str]:
        seeds = [
            {"item_id": item_id, "occurred_at": (NOW - timedelta(hours=age)).isoformat()}
            for item_id, age in (("s1", shoe_age), ("c1", coffee_age))
        ]
        return ids(ask(shop, seeds=seeds, weights={"content": 1}, filter={"group": "any"}, **options))

    assert session(0, 100).index("s3") < session(0, 100).index("c2")
    assert session(100, 0).index("c2") < session(100, 0).index("s3")
    # A long half-life makes both count alike, whichever came last.
    assert session(100, 0, half_life_seconds=1e9) == session(0, 100, half_life_seconds=1e9)


# --- explanations ----------------------------------------------------------------------------------


def test_an_explanation_counts_shoppers_in_common_and_the_distance_of_categories(shop: Shop) -> None:
    answer = ask(shop, "s1", explain=True, filter={"group": "any"})
    shared = {hit.item_id: hit.explanation.shared for hit in answer.items if hit.explanation is not None}
    assert (shared["c1"].shoppers, shared["s3"].shoppers, shared["s7"].shoppers) == (8, 5, 0)
    assert shared["s2"].shoppers is None
    assert (shared["s3"].category_distance, shared["c1"].category_distance) == (0, 2)
    assert shared["z1"].category_distance is None
    # Known of the items whatever the query weighs.
    text = ask(shop, "s1", explain=True, weights={"content": 1})
    assert hit_of(text, "c1").explanation.shared.shoppers == 8  # type: ignore[union-attr]


def test_a_hit_of_several_seeds_names_those_that_it_owes_to_and_is_compared_with_the_first_of_them(
    shop: Shop,
) -> None:
    answer = ask(shop, "s1", "c1", explain=True, filter={"group": "any"})
    for hit in answer.items:
        assert hit.explanation is not None
        shares = [one.share for one in hit.explanation.seeds]
        assert sum(shares) == pytest.approx(1.0, abs=1e-3)
        assert shares == sorted(shares, reverse=True)
    shoe, grinder = hit_of(answer, "s2").explanation, hit_of(answer, "c2").explanation
    assert shoe is not None
    assert grinder is not None
    assert (shoe.seeds[0].seed, shoe.seeds[0].item_id) == (0, "s1")
    assert (grinder.seeds[0].seed, grinder.seeds[0].item_id) == (1, "c1")
    assert "Norda" in shoe.shared.terms
    assert (grinder.shared.brand, grinder.shared.category) == ("Gaggia", ["Home", "Kitchen"])
    assert "Espresso" in grinder.shared.terms


def test_a_single_seed_is_owed_everything_and_not_named(shop: Shop) -> None:
    why = ask(shop, "s1", explain=True).items[0].explanation
    assert why is not None
    assert why.seeds == []
    assert sum(abs(share) for share in why.shares.values()) == pytest.approx(1.0, abs=1e-3)
