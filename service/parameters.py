"""Query parameters of the GET routes: short forms of what POST takes as a body.

A parameter that is left out is left out of the request too, so that a preset or the default can fill it in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.convertors import PathConvertor, register_url_convertor

from schemas.api import MAX_LIMIT, Filter, PresetName, QueryOptions, SimilarRequest, Strict
from schemas.behaviour import Window

Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT)]
Group = Literal["collapse", "any"]
Parsed = TypeVar("Parsed", bound=BaseModel)
_FILTERS = frozenset({"in_stock", "category", "brand", "brand_cap", "exclude", "group", "min_score"})


class _Id(PathConvertor):
    """An id as it came, slashes and ends of lines included: `:path` stops at the latter."""

    regex = "(?s:.*)"


#: For `{item_id:id}` in a route's path.
register_url_convertor("id", _Id())


class RecommendationOptions(QueryOptions):
    """What a user's recommendations can be told."""

    include_bought: bool = False


class ShortForm(Strict):
    """Options of a query as parameters. An unknown one is a spelling mistake, and is named."""

    limit: Limit = 10
    preset: PresetName | None = None
    weights: Annotated[str | None, Field(examples=["content:1,lexical:0.5"], max_length=200)] = None
    explain: bool = False
    diversity: float | None = None
    freshness: float | None = None
    same_category: float | None = None
    in_stock: bool | None = None
    category: list[str] = []
    brand: list[str] = []
    brand_cap: int | None = None
    exclude: list[str] = []
    group: Group = "collapse"
    min_score: float | None = None
    release_id: str | None = None

    def options(self) -> dict[str, Any]:
        """The fields of a request's body, those given only."""
        given = self.model_dump(exclude_unset=True)
        body = {name: value for name, value in given.items() if name not in _FILTERS}
        if self.weights is not None:
            body["weights"] = _weights(self.weights)
        body["filter"] = {name: value for name, value in given.items() if name in _FILTERS}
        return body

    def request(self, item_id: str) -> SimilarRequest:
        """The request it abbreviates. Raises RequestValidationError."""
        return _parsed(SimilarRequest, {"seeds": [{"item_id": item_id}], **self.options()})


class RecommendationForm(ShortForm):
    """Parameters of a user's recommendations."""

    include_bought: bool = False

    def wanted(self) -> RecommendationOptions:
        """The options that they stand for. Raises RequestValidationError."""
        return _parsed(RecommendationOptions, self.options())


class TrendingForm(Strict):
    """Parameters of what is trending."""

    window: Window = "24h"
    limit: Limit = 10
    #: Hits to pass over: the `next_offset` of the answer before.
    offset: Annotated[int, Field(ge=0, le=100_000)] = 0
    category: list[str] = []
    in_stock: bool | None = None
    brand_cap: Limit | None = None
    group: Group = "collapse"

    def filter(self) -> Filter:
        """Which items may be shown."""
        return _parsed(Filter, self.model_dump(include={"category", "in_stock", "brand_cap", "group"}))


def _parsed(model: type[Parsed], body: Mapping[str, Any]) -> Parsed:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_context=False)) from None


def _weights(text: str) -> dict[str, str]:
    """`content:1,lexical:0.5` as {dimension: number as text}; validation names what is wrong with either."""
    pairs = (part.partition(":") for part in text.split(",") if part.strip())
    return {name.strip(): value.strip() for name, _, value in pairs}
