"""Bodies of the query API, as design section 9 fixes them: requests, hits, answers, problems."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field, StringConstraints, field_validator, model_validator

from schemas.behaviour import Window
from schemas.events import Frozen, Product, UserEventType
from schemas.fields import Amount, Currency, Id, Moment, Name
from schemas.relations import RelationBasis

#: What a query can weigh. A dimension that the live collection does not have is left out, with a note.
DimensionName = Literal["content", "lexical", "reviews", "behaviour", "image"]
#: Weights may be negative ("like this, but not in words"); at least one must be above zero.
Weights = dict[DimensionName, Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]]
Factor = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
#: Named sets of weights and options: service/presets.py.
PresetName = Literal["substitutes", "complements", "discovery", "same_product"]
#: `aspect: tendency`, or `not aspect: tendency` for items of which reviewers do not say so.
OpinionTerm = Annotated[
    str, StringConstraints(pattern=r"^(not )?[a-z][a-z0-9 _-]{0,63}: (good|mixed|bad)$", max_length=80)
]
MAX_LIMIT = 200
MAX_SEEDS = 50


class Strict(Frozen):
    """A request body: an unknown field is a spelling mistake, and is named as one."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PriceFilter(Strict):
    """Price in one currency; currencies are never compared."""

    min: Amount | None = None
    max: Amount | None = None
    currency: Currency


class PriceRatioFilter(Strict):
    """Price of a hit over the price of the first positive seed that has one, in the same currency."""

    min: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    max: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class Filter(Strict):
    """Which items may be hits; applied inside the index, before the top-k."""

    in_stock: bool | None = None
    category: Annotated[list[Name], Field(max_length=100)] | None = None
    brand: Annotated[list[Name], Field(max_length=100)] | None = None
    price: PriceFilter | None = None
    price_ratio: PriceRatioFilter | None = None
    brand_cap: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = None
    exclude: Annotated[list[Id], Field(max_length=1_000)] = []
    #: Variants of one product (`group_id`): the nearest stands for all, or each for itself.
    group: Literal["collapse", "any"] = "collapse"
    attributes: Annotated[dict[Name, Annotated[list[Name], Field(max_length=100)]], Field(max_length=50)] = {}
    #: What reviewers come to: `noise: good`, or `not fit: bad`; all of them.
    opinions: Annotated[list[OpinionTerm], Field(max_length=50)] = []
    min_score: Annotated[float, Field(allow_inf_nan=False)] | None = None


class Seed(Strict):
    """What hits should resemble (weight > 0) or not (weight < 0): an item, or any product given inline."""

    item_id: Id | None = None
    item: Product | None = None
    weight: Factor = 1.0
    #: When the shopper was at it: the weight halves with every half-life before the newest seed's.
    occurred_at: Moment | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Seed:
        if (self.item_id is None) == (self.item is None):
            raise ValueError(
                "a seed has either 'item_id' (an item of the catalogue) or 'item' (inline), not both"
            )
        return self


class QueryOptions(Strict):
    """What every route that ranks has in common. A field left out is the preset's, else the default."""

    preset: PresetName | None = None
    #: Instead of the preset's, as a whole.
    weights: Weights | None = None
    filter: Filter = Filter()
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = 10
    explain: bool = False
    #: How much a hit's nearness to the hits before it counts against it (maximal marginal relevance).
    diversity: Share | None = None
    #: How much of the score an item loses as it gets older.
    freshness: Share | None = None
    #: Above 0: by how much hits outside the seeds' own leaf categories lose; below 0: those inside.
    same_category: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None = None
    #: Ask the collection of this release instead of the live one.
    release_id: Id | None = None

    @field_validator("weights")
    @classmethod
    def _some_weight(cls, weights: Weights | None) -> Weights | None:
        if weights is not None and not any(weight > 0 for weight in weights.values()):
            raise ValueError(
                "at least one dimension needs a weight above 0; leave 'weights' out for the default"
            )
        return weights


SearchText = Annotated[str, StringConstraints(min_length=1, max_length=2_000, strip_whitespace=True)]


class SimilarRequest(QueryOptions):
    """POST /v1/similar. Several seeds are one query; `text` is one more seed, of weight 1."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "seeds": [
                        {"item_id": "B00X", "weight": 1},
                        {"item": {"title": "Trail running shoe", "brand": "Norda"}, "weight": 0.5},
                        {"item_id": "B00Y", "weight": -0.3},
                    ],
                    "weights": {"content": 1, "lexical": 1, "behaviour": 1},
                    "filter": {"in_stock": True, "price_ratio": {"min": 0.5, "max": 2}, "brand_cap": 3},
                    "limit": 10,
                    "explain": True,
                }
            ]
        },
    )

    seeds: Annotated[list[Seed], Field(max_length=MAX_SEEDS)] = []
    text: SearchText | None = None
    #: Of seeds with `occurred_at`; the service's setting where it is left out.
    half_life_seconds: Annotated[float, Field(gt=0, le=1e10, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _some_seed(self) -> SimilarRequest:
        if not self.seeds and self.text is None:
            raise ValueError("give at least one seed in 'seeds', or a 'text'")
        if self.text is None and not any(seed.weight > 0 for seed in self.seeds):
            raise ValueError("at least one seed needs a weight above 0")
        return self


class SearchRequest(QueryOptions):
    """POST /v1/search: the text is the seed."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"text": "waterproof trail running shoes", "filter": {"in_stock": True}, "limit": 10}
            ]
        },
    )

    text: SearchText


class DimensionScore(Frozen):
    """One dimension's part in a hit's score: 0..1, and what it counted with.

    That is the query's weight, for behaviour times its evidence. `relations` is what baskets and visits say,
    in answers of the presets that use it: 1 - 1 / `lift_low`, and 0 for a hit of which they say nothing.
    """

    score: float
    weight: float


class Shared(Frozen):
    """What a hit and the positive seed that it owes most to have in common.

    `category_distance` is how many levels the deeper of the two lies below what they share, 0 in the same
    leaf. `shoppers` counts those among the members of both sketches, at most k of an item's shoppers.
    """

    terms: list[str] = []
    category: list[str] = []
    category_distance: int | None = None
    brand: str | None = None
    price_ratio: float | None = None
    shoppers: int | None = None


class SeedShare(Frozen):
    """What a hit owes to one of several seeds: its place in the request (from 0), its share of the score."""

    seed: int
    item_id: str | None = None
    share: float


RuleKind = Literal["boost", "demotion", "bridge", "always_similar", "never_similar"]


class AppliedRule(Frozen):
    """A rule of the shop's rules file: its name, or its place in the file (`boosts[0]`).

    `factor` is what it multiplied the score by; `always_similar` put the hit in front of the others.
    """

    rule: str
    kind: RuleKind
    factor: float | None = None
    reason: str | None = None


class Applied(Frozen):
    """What beside the dimensions decided a hit's score or place; None: nothing of that kind did.

    `same_category` and `freshness` are factors of the score. `diversity` counts better candidates that it
    went before; `brand_cap` and `group` those that were left out before it. `shop` names rules of the shop.
    """

    preset: PresetName | None = None
    same_category: float | None = None
    freshness: float | None = None
    diversity: int | None = None
    brand_cap: int | None = None
    group: int | None = None
    shop: list[AppliedRule] = []


class RelatedBy(Frozen):
    """What baskets or visits say of a hit and a seed, `item_id`: as in GET /v1/items/{item_id}/relations.

    `together` of them have both, `support` is their share of all, `confidence` of those with the seed. `lift`
    is how many times as often as chance has it, `lift_low` its lower confidence bound.
    """

    item_id: str
    basis: RelationBasis
    together: int
    support: float
    confidence: float
    lift: float
    lift_low: float


class Explanation(Frozen):
    """Why two items are similar: each dimension's share of the fused score (their sizes add up to 1).

    `related` is what raised the hit in an answer that uses what was mined of baskets and visits.
    """

    shares: dict[str, float]
    shared: Shared
    related: RelatedBy | None = None
    seeds: list[SeedShare] = []
    rules: Applied = Applied()


class HitRating(Frozen):
    """What reviewers gave, in stars from 0 to 5."""

    mean: float
    count: int


class HitItem(Frozen):
    """What the index shows of an item. `opinions` are what reviewers come to, `noise: good`."""

    item_id: str
    revision: int
    title: str
    brand: str | None = None
    category: list[str] = []
    price: str | None = None
    currency: str | None = None
    in_stock: bool | None = None
    image_url: str | None = None
    group_id: str | None = None
    rating: HitRating | None = None
    opinions: list[str] = []


class Hit(Frozen):
    """One neighbour. `score` is the weighted mean of its dimensions, 1 for the seed itself.

    Of what is trending it is the item's shoppers over those of the window's first, without dimensions.
    """

    item_id: str
    score: float
    dimensions: dict[str, DimensionScore]
    item: HitItem
    explanation: Explanation | None = None


class Answer(Frozen):
    """Every route that ranks answers so. `notes` says what was degraded or ignored, if anything."""

    items: list[Hit]
    release_id: str
    took_ms: float
    notes: list[str] = []


class Page(Answer):
    """An answer that goes on: `next_offset` asks for the hits after these; null: there are none."""

    next_offset: int | None = None


class DimensionAge(Frozen):
    """When a dimension of an item was last written, and from what."""

    updated_at: AwareDatetime
    fingerprint: str


class ItemRating(HitRating):
    """`histogram` counts ratings by the nearest whole star, "0" to "5".

    `bayesian_mean` is drawn towards the shop's prior while few have rated: fit for comparing items.
    """

    histogram: dict[str, int]
    bayesian_mean: float


class ItemBehaviour(Frozen):
    """What shoppers did with an item in the last hour, day, week and month.

    `windows` counts every event once; `shoppers` and `buyers` estimate how many different people were there.
    """

    windows: dict[Window, dict[UserEventType, int]]
    shoppers: dict[Window, float]
    buyers: dict[Window, float]
    #: Buyers over shoppers; None without any.
    conversion: dict[Window, float | None]


class ItemView(Frozen):
    """GET /v1/items/{item_id}. `dimensions` is empty while the item waits for its first encode.

    `revision` is that of the item's state, `indexed_revision` the one that queries see. `rating` is null
    while no live review has one. `counters` are all events so far by type; `behaviour` is null where
    nothing happened yet. `opinions` are what reviewers come to as queries see it, `noise: good`; the route
    `/opinions` has their words.
    """

    item_id: str
    revision: int
    indexed_revision: int | None = None
    occurred_at: AwareDatetime
    title: str
    brand: str | None = None
    category: list[str] = []
    description: str | None = None
    attributes: dict[str, Any] = {}
    price: str | None = None
    currency: str | None = None
    in_stock: bool | None = None
    image_url: str | None = None
    group_id: str | None = None
    seller_id: str | None = None
    condition: str | None = None
    gtin: str | None = None
    language: str | None = None
    rating: ItemRating | None = None
    opinions: list[str] = []
    counters: dict[UserEventType, int] = {}
    behaviour: ItemBehaviour | None = None
    dimensions: dict[str, DimensionAge] = {}


class ReleaseView(Frozen):
    """GET /v1/release: the live release and what it runs as."""

    release_id: str
    collection: str
    model: str
    dimension: int
    points: int
    created_at: AwareDatetime | None = None
    parent: str | None = None
    #: What was measured when it was made.
    figures: dict[str, float] = {}


class Problem(Frozen):
    """RFC 9457 problem details. `errors` names wrong fields, or a missing store."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] = []
