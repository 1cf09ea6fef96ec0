"""service/explain.py: words, shares, categories and prices that two items share."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from model.text import ProductText
from schemas.events import Product
from schemas.vectors import BEHAVIOUR, SparseVector
from service.explain import (
    MAX_WORDS,
    category_distance,
    common_prefix,
    explanation,
    shared_terms,
    shares,
    shoppers_in_common,
    words_of,
)
from service.filters import Price
from service.seeds import About

RECIPE = ProductText()


def terms(seed: str, hit: str, idf: Mapping[int, float] | None = None) -> list[str]:
    query = RECIPE.lexical(Product(title=seed))
    weights = dict.fromkeys(query.indices, 1.0) if idf is None else idf
    return shared_terms(words_of(seed, RECIPE.grams), query, RECIPE.lexical(Product(title=hit)), weights)


def test_shared_terms_are_whole_words_of_the_seed() -> None:
    assert set(terms("Norda trail shoe black", "Salomon trail shoe white")) == {"trail", "shoe"}


def test_punctuation_around_a_word_does_not_hide_it() -> None:
    assert "black" in terms("shoe (black), new", "black boot")
    assert "black" in terms("black boot", "shoe (black), new")


def test_a_word_that_is_only_partly_shared_is_no_term() -> None:
    assert terms("speedcross", "speedgoat") == []


def test_short_words_are_terms_as_well() -> None:
    assert terms("tv stand", "tv remote") == ["tv"]


def test_pairs_of_chinese_characters_are_joined_to_one_term() -> None:
    assert terms("越野跑鞋 男款", "越野跑鞋 女款") == ["越野跑鞋"]


def test_the_word_that_adds_most_to_the_score_comes_first() -> None:
    grams = RECIPE.grams(Product(title="common unusual"))
    idf = {index: 9.0 if gram.strip() in "unusual" else 0.1 for index, gram in grams.items()}
    assert terms("common unusual", "common unusual", idf) == ["unusual", "common"]


def test_negative_grams_of_a_query_name_no_term() -> None:
    query = RECIPE.lexical(Product(title="shoe"))
    against = SparseVector(query.indices, tuple(-value for value in query.values))
    assert (
        shared_terms(words_of("shoe", RECIPE.grams), against, query, dict.fromkeys(query.indices, 1.0)) == []
    )


def test_shares_add_up_to_one() -> None:
    assert shares({"content": 0.6, "lexical": 0.2}) == {"content": 0.75, "lexical": 0.25}
    assert shares({"content": 0.6, "lexical": -0.2}) == {"content": 0.75, "lexical": -0.25}
    assert shares({"content": 0.0}) == {"content": 0.0}


def test_category_paths_share_their_beginning() -> None:
    assert common_prefix(["Sport", "Shoes", "Trail"], ["Sport", "Shoes", "Road"]) == ["Sport", "Shoes"]
    assert common_prefix(["Home"], ["Sport"]) == []


@pytest.mark.parametrize(
    ("price", "currency", "ratio"), [(20.0, "EUR", 2.0), (20.0, "USD", None), (None, "EUR", None)]
)
def test_prices_are_compared_within_one_currency(
    price: float | None, currency: str, ratio: float | None
) -> None:
    seed = About(words="x", brand="Norda", price=Price(10.0, "EUR"))
    payload = {"brand_name": "NORDA", "price": price, "currency": currency}
    found = explanation(seed, payload, contributions={"content": 1.0}, terms=["x"])
    assert found.shared.price_ratio == ratio
    assert found.shared.brand == "NORDA"
    assert found.shared.terms == ["x"]


def test_shoppers_in_common_are_counted_by_the_members_both_vectors_name() -> None:
    one = {BEHAVIOUR: SparseVector((1, 5, 9), (0.1, 0.1, 0.1))}
    other = {BEHAVIOUR: SparseVector((5, 9, 11), (0.4, 0.4, 0.4))}
    assert shoppers_in_common(one, other) == 2
    assert shoppers_in_common(one, {}) is None
    assert shoppers_in_common({}, other) is None


@pytest.mark.parametrize(
    ("left", "right", "levels"),
    [
        (["Sport", "Shoes"], ["Sport", "Shoes"], 0),
        (["Sport", "Shoes"], ["Sport", "Shoes", "Trail"], 1),
        (["Sport", "Shoes", "Trail"], ["Sport", "Bags"], 2),
        (["Sport"], ["Home"], 1),
        ([], ["Home"], None),
    ],
)
def test_the_distance_of_two_categories_is_counted_from_the_deeper_one(
    left: list[str], right: list[str], levels: int | None
) -> None:
    assert category_distance(left, right) == levels
    assert category_distance(right, left) == levels


@pytest.mark.parametrize(
    "text",
    [
        "".join(chr(0x4E00 + place * 7919 % 20_000) for place in range(20_000)),
        "中" * 20_000,
        "中中a" * 10_000,
        "a," * 50_000,
        "a " * 50_000,
    ],
)
def test_no_text_makes_its_words_costly(text: str) -> None:
    asked: list[str] = []

    def grams(piece: Product) -> Mapping[int, str]:
        asked.append(piece.title)
        return RECIPE.grams(piece)

    assert len(words_of(text, grams)) <= MAX_WORDS
    assert len(asked) <= MAX_WORDS


def test_the_edges_of_a_word_are_found_in_linear_time() -> None:
    # Some 13 s if each comma were the beginning of another search.
    began = time.process_time()
    (word,) = words_of("(a" + "," * 40_000 + "b)", RECIPE.grams)
    assert word.text.strip(",") == word.text
    assert time.process_time() - began < 3.0
