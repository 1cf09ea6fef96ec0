"""model/text.py: fields, limits, grams and fingerprints of a product."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.text import FieldUse, ProductText, TextSettings, attribute_text, cut_text, hash_gram
from schemas.events import Product
from schemas.vectors import SparseVector, TextRecipe

RECIPE = ProductText()
LAMP = Product(
    title="Brass Desk Lamp",
    brand="Nordlys",
    category=["Home", "Lighting"],
    description="Warm light, 40 cm high.",
    attributes={"colour": "brass", "bulb": ["E14", "LED"]},
)


def norm(vector: SparseVector) -> float:
    return math.hypot(*vector.values)


def test_the_recipe_fits_its_port() -> None:
    recipe: TextRecipe = RECIPE
    assert recipe.content(LAMP) == (
        "Brass Desk Lamp. Nordlys. Home > Lighting. bulb: E14, LED; colour: brass. Warm light, 40 cm high."
    )


def test_a_long_description_cannot_push_out_the_title() -> None:
    product = Product(title="Brass desk lamp", description="word " * 30_000)
    text = RECIPE.content(product)
    assert text.startswith("Brass desk lamp. word word")
    assert len(text) < 1_100


def test_a_brand_that_the_title_names_is_said_once() -> None:
    product = Product(title="NORDLYS desk lamp", brand="Nordlys")
    assert RECIPE.content(product) == "NORDLYS desk lamp"
    twice = ProductText(TextSettings(brand_once=False))
    assert twice.content(product) == "NORDLYS desk lamp. Nordlys"


def test_words_give_four_grams_padded_on_both_sides() -> None:
    vector = RECIPE.lexical(Product(title="Lamp a"))
    assert sorted(RECIPE.grams(Product(title="Lamp a")).values()) == [" a ", " lam", "amp ", "lamp"]
    assert set(vector.indices) == {hash_gram(gram) for gram in (" a ", " lam", "amp ", "lamp")}


def test_hashes_are_the_same_in_every_process() -> None:
    # xxHash32 with seed 0 of "lamp", as its reference implementation computes it.
    code = "from model.text import hash_gram; import sys; print(hash_gram('lamp'), 'torch' in sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout.split() == [str(hash_gram("lamp")), "False"]
    assert hash_gram("") == 0x02CC5D05


def test_weights_are_one_plus_ln_tf_over_the_norm_and_a_title_counts_three_times() -> None:
    product = Product(title="lamp", description="lamp oil")
    vector = RECIPE.lexical(product)
    by_gram = {RECIPE.grams(product)[index]: value for index, value in zip(*vector, strict=True)}
    # " lam" stands in the title (3) and the description (1); " oil" in the description alone.
    assert by_gram[" lam"] / by_gram[" oil"] == pytest.approx(1 + math.log(4))
    assert norm(vector) == pytest.approx(1.0)


def test_full_width_and_upper_case_letters_are_their_plain_forms() -> None:
    assert RECIPE.lexical(Product(title="\uff2c\uff21\uff2d\uff30")) == RECIPE.lexical(Product(title="lamp"))


def test_scripts_without_spaces_give_one_and_two_grams() -> None:
    assert sorted(RECIPE.grams(Product(title="红色手机128g")).values()) == sorted(
        ["红", "色", "手", "机", "红色", "色手", "手机", " 128", "128g", "28g "]
    )
    assert "ดส" in RECIPE.grams(Product(title="ทดสอบ")).values()
    assert " lam" in RECIPE.grams(Product(title="lamp")).values()


def test_colliding_hashes_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.text.hash_gram", lambda gram: len(gram))
    vector = ProductText().lexical(Product(title="brass lamp a"))
    assert vector.indices == (3, 4)
    assert vector.values[1] / vector.values[0] == pytest.approx((1 + math.log(21)) / (1 + math.log(3)))


def test_a_title_without_a_word_still_has_a_gram() -> None:
    product = Product(title="\x1c")
    assert len(RECIPE.lexical(product).indices) == 1
    assert list(RECIPE.grams(product)) == list(RECIPE.lexical(product).indices)


def test_a_search_text_gives_the_grams_of_its_words_once_each() -> None:
    vector = RECIPE.lexical_query("Lamp")
    assert vector.indices == RECIPE.lexical(Product(title="lamp")).indices
    assert norm(vector) == pytest.approx(1.0)
    assert RECIPE.lexical_query(" \t") == SparseVector((), ())


def test_punctuation_around_words_can_be_dropped() -> None:
    recipe = ProductText(TextSettings(strip_punctuation=True))
    assert recipe.lexical_query("(lamp),") == RECIPE.lexical_query("lamp")
    assert recipe.lexical_query("!") == RECIPE.lexical_query("!")


@pytest.mark.parametrize(
    "change",
    [
        {"title": "Brass desk lamp 2"},
        {"brand": "Other"},
        {"category": ["Home"]},
        {"attributes": {"colour": "black"}},
        {"description": "Cold light."},
        {"description": None},
    ],
)
def test_a_change_of_a_text_field_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert RECIPE.fingerprint(LAMP.model_copy(update=change)) != RECIPE.fingerprint(LAMP)


def test_price_stock_and_the_order_of_attributes_leave_the_fingerprint_alone() -> None:
    changed = LAMP.model_copy(
        update={
            "price": 3,
            "in_stock": False,
            "image_url": "x",
            "attributes": dict(reversed(LAMP.attributes.items())),
        }
    )
    assert RECIPE.fingerprint(changed) == RECIPE.fingerprint(LAMP)
    assert RECIPE.content(changed) == RECIPE.content(LAMP)


def test_what_lies_beyond_every_limit_leaves_the_fingerprint_alone() -> None:
    one, other = (LAMP.model_copy(update={"description": "a " * 1_000 + end}) for end in ("x", "y"))
    assert RECIPE.fingerprint(one) == RECIPE.fingerprint(other)


def test_every_knob_but_the_cache_is_part_of_the_fingerprint() -> None:
    # By name, so that a knob added later is checked as well.
    other: dict[str, Any] = {
        "separator": " | ",
        "brand_once": False,
        "gram_sizes": (3, 4),
        "unspaced_gram_sizes": (2,),
        "strip_punctuation": True,
        "remembered_words": 0,
    }
    for knob in TextSettings.model_fields:
        value = other.get(knob, FieldUse(content_chars=7, lexical_chars=7))
        moved = ProductText(TextSettings(**{knob: value})).fingerprint(LAMP) != RECIPE.fingerprint(LAMP)
        assert moved == (knob != "remembered_words"), knob


SHORT = ProductText(
    TextSettings(
        title=FieldUse(content_chars=6, lexical_chars=9, times=3),
        brand=FieldUse(content_chars=4, lexical_chars=0),
        category=FieldUse(content_chars=0, lexical_chars=5),
        attributes=FieldUse(content_chars=5, lexical_chars=7),
        description=FieldUse(content_chars=8, lexical_chars=3),
    )
)
WORDS = st.text(alphabet="ab 红\u00a0.", max_size=12)
PRODUCTS = st.builds(
    Product,
    title=WORDS.filter(lambda text: bool(text.strip())),
    brand=st.none() | WORDS,
    category=st.lists(WORDS, max_size=2),
    attributes=st.dictionaries(WORDS, WORDS | st.lists(WORDS, max_size=2), max_size=2),
    description=st.none() | WORDS,
)


@given(PRODUCTS, PRODUCTS)
def test_equal_fingerprints_mean_equal_text_and_grams(one: Product, other: Product) -> None:
    # Fields are taken from either side, so that pairs which differ in one field alone are common.
    for field in ("title", "brand", "category", "attributes", "description"):
        mixed = one.model_copy(update={field: getattr(other, field)})
        if SHORT.fingerprint(mixed) == SHORT.fingerprint(one):
            assert SHORT.content(mixed) == SHORT.content(one)
            assert SHORT.lexical(mixed) == SHORT.lexical(one)
        else:
            assert getattr(mixed, field) != getattr(one, field)


@given(PRODUCTS)
def test_indices_ascend_without_repeats_and_have_unit_norm(product: Product) -> None:
    vector = RECIPE.lexical(product)
    assert list(vector.indices) == sorted(set(vector.indices))
    assert all(0 <= index < 2**32 for index in vector.indices)
    assert norm(vector) == pytest.approx(1.0)
    assert set(RECIPE.grams(product)) == set(vector.indices)


@pytest.mark.parametrize(
    ("text", "chars", "cut"),
    [
        ("brass lamp", 20, "brass lamp"),
        ("brass lamp", 8, "brass"),
        ("brass lamp", 5, "brass"),
        ("brasslamp", 5, "brass"),
        ("a brasslamp", 9, "a brassla"),
        ("brass", 0, ""),
        ("   brass", 3, ""),
    ],
)
def test_a_field_is_cut_between_words_unless_that_costs_half_of_it(text: str, chars: int, cut: str) -> None:
    assert cut_text(text, chars) == cut


def test_attributes_read_as_words_in_the_order_of_their_names() -> None:
    assert attribute_text({"size": ["40", "41"], "colour": "black"}) == "colour: black; size: 40, 41"
