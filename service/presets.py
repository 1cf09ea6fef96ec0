"""Presets: named sets of weights and options, and what a request asks for once they have filled it in. Pure.

A preset is nothing but values for fields of a request, and what mined relations weigh beside its weights.
What the request says itself goes before it, field by field (`weights` as a whole, and relations with them);
what neither says is the default of the settings.

The weights of `same_product` are those that benchmarks/matching.py chose. The text weights of
`substitutes`, and that it leaves categories alone, were chosen by benchmarks/presets.py. Every other number
here is a starting point that nothing could measure yet: tune it on your own shoppers. What relations weigh
was chosen by benchmarks/relations_presets.py, on seeds that nothing reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from schemas.api import DimensionName, Filter, PresetName, PriceRatioFilter, QueryOptions
from service.settings import ServiceSettings

RelationKind = Literal["substitutes", "complements"]


@dataclass(frozen=True, slots=True)
class Preset:
    """Values for the fields of a request; `filter` by the names of its fields."""

    purpose: str
    weights: Mapping[DimensionName, float]
    filter: Mapping[str, Any] = field(default_factory=dict)
    diversity: float = 0.0
    freshness: float = 0.0
    same_category: float = 0.0
    #: Which mined relations of the seeds raise a hit, and what they weigh (service/related.py).
    relations: RelationKind | None = None
    relations_weight: float = 0.0


PRESETS: Mapping[PresetName, Preset] = {
    "substitutes": Preset(
        purpose="what could be bought instead: alike in text and reviews, at its price",
        weights={"content": 1.0, "lexical": 1.0, "reviews": 0.5, "behaviour": 0.5},
        filter={"price_ratio": PriceRatioFilter(min=0.5, max=2.0)},
        relations="substitutes",
        relations_weight=4.0,
    ),
    # Content stays a little above zero, so that an item which no shopper has touched still gets an answer.
    "complements": Preset(
        purpose="what goes with it: the same shoppers, another category",
        weights={"behaviour": 2.0, "content": 0.2},
        same_category=-0.7,
        relations="complements",
        relations_weight=4.0,
    ),
    "discovery": Preset(
        purpose="something else that the same people like: hits unlike each other",
        weights={"content": 0.5, "reviews": 1.0, "behaviour": 1.0},
        diversity=0.5,
    ),
    "same_product": Preset(
        purpose="offers of the very same product, variants included",
        weights={"content": 1.0, "lexical": 1.5},
        filter={"group": "any"},
    ),
}
_NONE = Preset(purpose="", weights={})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one query asks for, nothing left open."""

    weights: Mapping[DimensionName, float]
    filter: Filter
    limit: int
    explain: bool = False
    preset: PresetName | None = None
    diversity: float = 0.0
    freshness: float = 0.0
    same_category: float = 0.0
    relations: RelationKind | None = None
    relations_weight: float = 0.0


def wanted(request: QueryOptions, settings: ServiceSettings) -> Wanted:
    """The request, its open fields filled in by its preset, then by the settings."""
    preset = _NONE if request.preset is None else PRESETS[request.preset]
    said = request.filter.model_fields_set
    fill = {name: value for name, value in preset.filter.items() if name not in said}
    related = request.weights is None and settings.preset_relations
    return Wanted(
        weights=request.weights or preset.weights or settings.weights,
        filter=request.filter.model_copy(update=fill) if fill else request.filter,
        limit=request.limit,
        explain=request.explain,
        preset=request.preset,
        diversity=preset.diversity if request.diversity is None else request.diversity,
        freshness=preset.freshness if request.freshness is None else request.freshness,
        same_category=preset.same_category if request.same_category is None else request.same_category,
        relations=preset.relations if related else None,
        relations_weight=preset.relations_weight if related else 0.0,
    )
