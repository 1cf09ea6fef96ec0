"""service/presets.py: what a request asks for once its preset and the settings have filled it in."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from schemas.api import PresetName, PriceRatioFilter, QueryOptions
from service.presets import PRESETS, wanted
from service.settings import ServiceSettings


def asked(**options: Any) -> QueryOptions:
    return QueryOptions.model_validate(options)


def test_every_name_of_the_api_is_a_preset_that_a_request_could_spell_out() -> None:
    assert set(PRESETS) == set(get_args(PresetName))
    for name, preset in PRESETS.items():
        spelt = asked(
            weights=dict(preset.weights),
            filter=dict(preset.filter),
            diversity=preset.diversity,
            freshness=preset.freshness,
            same_category=preset.same_category,
        )
        found, same = wanted(asked(preset=name), ServiceSettings()), wanted(spelt, ServiceSettings())
        assert (found.weights, found.diversity, found.same_category) == (
            same.weights,
            same.diversity,
            same.same_category,
        )
        assert (found.filter.group, found.filter.price_ratio) == (same.filter.group, same.filter.price_ratio)


def test_what_the_request_says_goes_before_its_preset_field_by_field() -> None:
    found = wanted(
        asked(
            preset="substitutes",
            weights={"lexical": 1},
            same_category=0,
            filter={"price_ratio": None, "in_stock": True},
        ),
        ServiceSettings(),
    )
    assert found.weights == {"lexical": 1}
    assert (found.same_category, found.filter.price_ratio, found.filter.in_stock) == (0, None, True)
    plain = wanted(asked(preset="substitutes", filter={"in_stock": True}), ServiceSettings())
    assert plain.filter.price_ratio == PriceRatioFilter(min=0.5, max=2.0)
    assert plain.filter.in_stock is True


@pytest.mark.parametrize(
    ("preset", "said", "group"),
    [
        (None, {}, "collapse"),
        ("same_product", {}, "any"),
        ("same_product", {"group": "collapse"}, "collapse"),
        ("discovery", {"group": "any"}, "any"),
        ("discovery", {}, "collapse"),
    ],
)
def test_variants_collapse_unless_the_preset_or_the_request_says_otherwise(
    preset: str | None, said: dict[str, str], group: str
) -> None:
    assert wanted(asked(preset=preset, filter=said), ServiceSettings()).filter.group == group


def test_without_a_preset_the_settings_weigh() -> None:
    settings = ServiceSettings(weights={"content": 3.0})
    assert wanted(asked(), settings).weights == {"content": 3.0}
    assert wanted(asked(preset="same_product"), settings).weights == PRESETS["same_product"].weights


def test_a_preset_can_be_answered_by_text_alone() -> None:
    for preset in PRESETS.values():
        assert preset.weights["content"] > 0
