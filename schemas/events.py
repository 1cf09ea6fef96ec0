"""Events as they travel on the topics: frozen, with a `kind`, times with a zone.

Parse at the edge with `parse_event`; nothing inside the house handles raw dicts. Unknown fields are
ignored, so a producer may be newer than its reader. A wrong field is named together with what was expected.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, NotRequired, Required, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails
from typing_extensions import TypedDict  # pydantic's own, until Python 3.12

MAX_REVISION = 2**53 - 1

#: An id is opaque: any characters but the empty string; at most 256 of them.
Id = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Name = Annotated[str, StringConstraints(max_length=500)]
Revision = Annotated[int, Field(ge=0, le=MAX_REVISION, strict=True)]
#: An exact amount of money. NaN and infinity are refused. A JSON number is a double: send a string where
#: more than 15 digits count.
Amount = Annotated[
    Decimal,
    Field(ge=0, max_digits=20, decimal_places=8, allow_inf_nan=False),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^[0-9]{1,12}(\.[0-9]{1,8})?$"},
                {"type": "number", "minimum": 0},
            ],
            "examples": ["19.90"],
        },
        mode="validation",
    ),
]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]

MAX_ATTRIBUTE_LENGTH = 2_000


def _real_time(value: datetime) -> datetime:
    """Placeholders such as year 1 cannot be converted between zones, and are never meant."""
    if not 1970 <= value.year <= 9998:
        raise ValueError("expected a time between the years 1970 and 9998, not a placeholder")
    return value


#: A time with a zone.
Moment = Annotated[AwareDatetime, AfterValidator(_real_time)]


def _attribute_word(value: Any) -> str:
    """Numbers and booleans become text; a shop's attributes are compared as words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("expected a finite number; leave the attribute out where it is unknown")
    if isinstance(value, int | float | Decimal):
        return str(value)
    if not isinstance(value, str):
        raise ValueError("expected text, a number, true or false, or a list of these")
    if len(value) > MAX_ATTRIBUTE_LENGTH:
        raise ValueError(f"expected at most {MAX_ATTRIBUTE_LENGTH} characters, got {len(value)}")
    return value


def _attribute_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_attribute_word(inner) for inner in value if inner is not None]
    return _attribute_word(value)


def _known(value: Any) -> Any:
    """Attributes without those that are null; null itself is none at all."""
    if value is None:
        return {}
    if isinstance(value, dict):
        return {name: inner for name, inner in value.items() if inner is not None}
    return value


_Word = Annotated[str, Field(max_length=MAX_ATTRIBUTE_LENGTH)] | int | float | bool
AttributeValue = Annotated[
    str | list[str],
    BeforeValidator(_attribute_value, json_schema_input_type=_Word | list[_Word | None] | None),
]
_AttributeMap = Annotated[dict[Name, AttributeValue], Field(max_length=200)]
Attributes = Annotated[_AttributeMap, BeforeValidator(_known, json_schema_input_type=_AttributeMap | None)]


def _or(default: Any, wire: Any) -> BeforeValidator:
    """On the topic, null says the same as leaving an optional field out."""
    return BeforeValidator(
        lambda value: default() if value is None else value, json_schema_input_type=wire | None
    )


_CategoryList = Annotated[list[Name], Field(max_length=20)]
Category = Annotated[_CategoryList, _or(list, _CategoryList)]
_Quantity = Annotated[int, Field(ge=1, le=1_000_000)]
Quantity = Annotated[_Quantity, _or(lambda: 1, _Quantity)]
_Votes = Annotated[int, Field(ge=0, le=MAX_REVISION)]
Votes = Annotated[_Votes, _or(int, _Votes)]


class Frozen(BaseModel):
    """Base of every model of the house: immutable, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    #: Fields that say who a shopper is or what they wrote: an error never repeats their values.
    private: ClassVar[frozenset[str]] = frozenset()


class Product(Frozen):
    """What a product is, apart from its identity: the fields of an event, and of an inline seed."""

    title: Annotated[str, StringConstraints(min_length=1, max_length=2_000, strip_whitespace=True)]
    brand: Name | None = None
    category: Category = []
    description: Annotated[str, StringConstraints(max_length=200_000)] | None = None
    attributes: Attributes = {}
    price: Amount | None = None
    currency: Currency | None = None
    in_stock: bool | None = None
    image_url: Annotated[str, StringConstraints(max_length=4_000)] | None = None
    group_id: Id | None = None
    seller_id: Id | None = None
    condition: Name | None = None
    gtin: Annotated[str, StringConstraints(max_length=64)] | None = None
    language: Annotated[str, StringConstraints(max_length=35)] | None = None


class Revised(Frozen):
    """An event whose order is told by a revision that only grows (default: microseconds of occurred_at)."""

    revision: Revision | None = None
    occurred_at: Moment

    @property
    def order(self) -> int:
        """The revision to compare: as given, or derived from `occurred_at` in microseconds."""
        if self.revision is not None:
            return self.revision
        return max(0, round(self.occurred_at.timestamp() * 1_000_000))


class ProductUpserted(Product, Revised):
    """The whole product as it is now. Key: product_id."""

    kind: Literal["product_upserted"] = "product_upserted"
    product_id: Id


class ProductDeleted(Revised):
    """The product left the catalogue."""

    kind: Literal["product_deleted"] = "product_deleted"
    product_id: Id


class ReviewPosted(Revised):
    """A review, or its new text. Key: product_id."""

    private = frozenset({"user_id", "title", "text"})

    kind: Literal["review_posted"] = "review_posted"
    review_id: Id
    product_id: Id
    user_id: Id | None = None
    rating: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)] | None = None
    title: Annotated[str, StringConstraints(max_length=2_000)] | None = None
    text: Annotated[str, StringConstraints(max_length=100_000)] | None = None
    helpful_votes: Votes = 0


class ReviewRemoved(Revised):
    """A review was taken back or moderated away."""

    kind: Literal["review_removed"] = "review_removed"
    review_id: Id
    product_id: Id


UserEventType = Literal["view", "click", "cart", "purchase", "share", "rate", "impression"]


class UserEvent(Frozen):
    """One thing a shopper did with one product. Key: user_id."""

    private = frozenset({"user_id", "session_id", "query"})

    kind: Literal["user_event"] = "user_event"
    event_id: Id
    type: UserEventType
    user_id: Id
    product_id: Id
    occurred_at: Moment
    session_id: Id | None = None
    quantity: Quantity = 1
    value: Amount | None = None
    position: Annotated[int, Field(ge=0)] | None = None
    query: Annotated[str, StringConstraints(max_length=2_000)] | None = None
    request_id: Id | None = None


class UserErased(Frozen):
    """A shopper asked to be forgotten: events of theirs up to `erased_at` are ignored by every reader.

    Key: HMAC-SHA-256 of the user id in hex, under a key used for nothing else. The id itself is not here.
    """

    kind: Literal["user_erased"] = "user_erased"
    erased_at: Moment


class ItemChanged(Frozen):
    """A hint without state: look at this item again.

    `dimensions` is for metrics; `behaviour` among them asks to look at the item's shoppers as well.
    """

    kind: Literal["item_changed"] = "item_changed"
    product_id: Id
    dimensions: list[str] = []
    occurred_at: Moment
    #: When the consumer that announces had written its effect; None where a tool announced.
    consumed_at: Moment | None = None


class StageTimes(Frozen):
    """When one change passed each stage. All on the clocks of the machines that did the work."""

    occurred_at: Moment
    consumed_at: Moment | None = None
    encoded_at: Moment | None = None
    searchable_at: Moment


class ItemUpdated(Frozen):
    """The index now shows the item's state. Best effort, after the write."""

    kind: Literal["item_updated"] = "item_updated"
    product_id: Id
    collection: str
    dimensions: list[str]
    encoder_calls: int
    revision: Revision | None = None
    deleted: bool = False
    stages: StageTimes


class PriceInsight(Frozen):
    """An item's price got out of line with what comparable items cost, or is in line again.

    `score` and `ratio` as GET /v1/items/{item_id}/price says them; `median` is what comparable items cost in
    this item's pack. Null where the item is gone, or nothing can be compared any more. The topic is
    compacted: the last record of an item is what stands.
    """

    kind: Literal["price_insight"] = "price_insight"
    product_id: Id
    outlier: bool
    price: str | None = None
    currency: str | None = None
    score: float | None = None
    ratio: float | None = None
    median: float | None = None
    evidence: str
    found_at: Moment


class AspectShift(Frozen):
    """What reviewers now come to about one aspect, and what they did before; null: too few speak of it.

    Nobody's words: a topic cannot take them back when a review is.
    """

    aspect: str
    tendency: Literal["good", "mixed", "bad"] | None = None
    before: Literal["good", "mixed", "bad"] | None = None
    sentiment: float | None = None
    count: int = 0


class OpinionInsight(Frozen):
    """What reviewers say about an item has shifted: `shifts` names each aspect whose tendency is another now.

    `tendencies` is what stands for all aspects that enough reviewers speak of. The topic is compacted: the
    last record of an item is what stands. `head` names the head that heard it.
    """

    kind: Literal["opinion_insight"] = "opinion_insight"
    product_id: Id
    shifts: list[AspectShift]
    tendencies: dict[str, Literal["good", "mixed", "bad"]] = {}
    head: str | None = None
    found_at: Moment


ProductEvent = ProductUpserted | ProductDeleted
ReviewEvent = ReviewPosted | ReviewRemoved

EVENT_MODELS: tuple[type[Frozen], ...] = (
    ProductUpserted,
    ProductDeleted,
    ReviewPosted,
    ReviewRemoved,
    UserEvent,
    UserErased,
    ItemChanged,
    ItemUpdated,
    PriceInsight,
    OpinionInsight,
)

Event = TypeVar("Event", bound=Frozen)


#: How many wrong fields an error names.
MAX_EXPLAINED = 5


class InvalidEvent(ValueError):
    """Not an event that this topic carries; the message names the field and what was expected."""


@cache
def _adapter(models: tuple[type[Frozen], ...]) -> TypeAdapter[Any]:
    if len(models) == 1:
        return TypeAdapter(models[0])
    union: Any = models[0]
    for model in models[1:]:
        union = union | model
    return TypeAdapter(Annotated[union, Field(discriminator="kind")])


def parse_event(body: bytes | str, *models: type[Event]) -> Event:
    """Parse one JSON document into the one of `models` that its `kind` names.

    Raises InvalidEvent, with one sentence per wrong field (at most five), each naming the field.
    """
    try:
        event: Event = _adapter(models).validate_json(body)
    except ValidationError as error:
        raise InvalidEvent(explain(error, *models)) from None
    return event


def fields_parser(model: type[Frozen]) -> Callable[[bytes], dict[str, Any]]:
    """`parse_event` of one model for those who parse a million: its fields as a dict, without an object each.

    Every field is checked by the model's own rules, and what they refuse is explained by the model. Optional
    fields that the document leaves out are left out.
    """
    rules: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        rule: Any = field.annotation
        for more in field.metadata:
            rule = Annotated[rule, more]
        rules[name] = Required[rule] if field.is_required() else NotRequired[rule]
    typed_dict: Any = TypedDict  # of fields that only the model knows
    lean = typed_dict(model.__name__, rules)
    lean.__pydantic_config__ = model.model_config
    validate = TypeAdapter(lean).validator.validate_json

    def parse(body: bytes) -> dict[str, Any]:
        try:
            fields: dict[str, Any] = validate(body)
        except ValidationError:
            return parse_event(body, model).model_dump()
        return fields

    return parse


def explain(error: ValidationError, *models: type[Frozen]) -> str:
    """Say what is wrong in words a producer's engineer can act on, values shortened, at most five fields.

    `models` are what could have been meant; their kinds are named where the kind is missing, and the values
    of their private fields are left out.
    """
    sentences: dict[str, str] = {}
    details = error.errors(include_url=False)
    for detail in details:
        path = ".".join(str(part) for part in detail["loc"] if not _is_tag(part))
        if path not in sentences:
            sentences[path] = _sentence(path, detail, models)
    more = len(sentences) - MAX_EXPLAINED
    text = "; ".join(list(sentences.values())[:MAX_EXPLAINED])
    return text + (f"; and {more} more" if more > 0 else "")


def _sentence(path: str, detail: ErrorDetails, models: tuple[type[Frozen], ...]) -> str:
    where = f"field '{path}'" if path else "the message"
    if detail["type"] == "missing":
        return f"{where} is missing: it is required"
    if detail["type"] in ("union_tag_not_found", "union_tag_invalid"):
        kinds = ", ".join(repr(model.model_fields["kind"].default) for model in models)
        tag = detail.get("ctx", {}).get("tag")
        given = "is missing" if tag is None else f"is {_shortened(tag)}"
        return f"field 'kind' {given}: expected one of {kinds or 'the kinds this topic carries'}"
    message = detail["msg"].removeprefix("Value error, ")
    private = frozenset[str]().union(*(model.private for model in models))
    if path in private or (private and not path):
        return f"{where}: {message}"
    return f"{where}: {message} (got {_shortened(detail.get('input'))})"


def _shortened(value: Any) -> str:
    shown = repr(value[:80] if isinstance(value, str | bytes) else value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


_TAGS = frozenset(model.model_fields["kind"].default for model in EVENT_MODELS)


def _is_tag(part: int | str) -> bool:
    return part in _TAGS
