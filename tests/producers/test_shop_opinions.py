"""producers/shop_opinions.py: reviews say what was planted, and the two halves share no phrase."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.aspects import read_aspects
from producers.shop import Shop
from producers.shop_opinions import CONTRARY, Planted, load, opinionated
from producers.shop_reviews import ASPECTS
from schemas.events import ReviewPosted

ITEMS = [f"p{number}" for number in range(120)]


@pytest.fixture(scope="module")
def halves() -> dict[bool, tuple[list[ReviewPosted], Planted]]:
    shop = Shop(7, products=10, shoppers=5)
    return {seen: opinionated(shop, items=ITEMS, seen=seen) for seen in (True, False)}


def said(planted: Planted) -> set[str]:
    return {one.text for opinions in planted.said.values() for one in opinions}


def test_no_phrase_of_one_half_is_one_of_the_other(
    halves: dict[bool, tuple[list[ReviewPosted], Planted]],
) -> None:
    known, asked = (said(halves[seen][1]) for seen in (True, False))
    assert min(len(known), len(asked)) > 200
    assert not known & asked
    written = " ".join(one.text or "" for one in halves[True][0])
    assert not [phrase for phrase in asked if phrase in written]


def test_reviews_say_what_was_planted_and_agree_with_it_but_for_a_part(
    halves: dict[bool, tuple[list[ReviewPosted], Planted]],
) -> None:
    reviews, planted = halves[False]
    agreeing = []
    for review in reviews:
        for opinion in planted.said[review.review_id]:
            assert opinion.text.rstrip(".!")[1:] in (review.text or "")
            agreeing.append(planted.items[review.product_id][opinion.aspect] == opinion.pole)
    assert abs(sum(agreeing) / len(agreeing) - (1 - CONTRARY)) < 0.03
    good = [one.rating for one in reviews if all(o.pole > 0 for o in planted.said[one.review_id])]
    bad = [one.rating for one in reviews if all(o.pole < 0 for o in planted.said[one.review_id])]
    assert min(rating or 0 for rating in good) > max(2, min(rating or 0 for rating in bad))


def test_the_same_seed_plants_the_same_and_the_truth_survives_its_file(
    halves: dict[bool, tuple[list[ReviewPosted], Planted]], tmp_path: Path
) -> None:
    again, planted = opinionated(Shop(7, products=10, shoppers=5), items=ITEMS, seen=True)
    assert again == halves[True][0]
    planted.save(tmp_path / "truth.json")
    assert load(tmp_path / "truth.json") == planted


def test_the_aspects_that_come_along_have_no_sentence_of_the_shop() -> None:
    told = (pole.split("|") for poles in ASPECTS.values() for pole in poles)
    sentences = {sentence.rstrip(".").lower() for of_pole in told for sentence in of_pole}
    phrases = {p.lower() for aspect in read_aspects(None).values() for p in aspect.good + aspect.bad}
    assert not phrases & sentences
