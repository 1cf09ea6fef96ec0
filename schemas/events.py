"""Events as they travel on the topics: frozen, with a `kind`, times with a zone.

Parse at the edge with `parse_event`; nothing inside the house handles raw dicts. Unknown fields are
ignored, so a producer may be newer than its reader. A wrong field is named together with what was expected.
"""

from __future__ import annotations

from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

MAX_REVISION = 2**53 - 1

#: An id is opaque: any characters but the empty string; at most 256 of them.
Id = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Name = Annotated[str, StringConstraints(max_length=500)]
Revision = Annotated[int, Field(ge=0, le=MAX_REVISION, strict=True)]
#: An exact amount of money. NaN and infinity are refused.
Amount = Annotated[Decimal, Field(ge=0, max_digits=20, decimal_places=8, allow_inf_nan=False)]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]


def _attribute_text(value: Any) -> Any:
    """Numbers and booleans become text; a shop's attributes are compared as words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return value


AttributeWord = Annotated[str, StringConstraints(max_length=2_000), BeforeValidator(_attribute_text)]
Attributes = Annotated[dict[Name, AttributeWord | list[AttributeWord]], Field(max_length=200)]


class Frozen(BaseModel):
    """Base of every model of the house: immutable, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Product(Frozen):
    """What a product is, apart from its identity: the fields of an event, and of an inline seed."""

    title: Annotated[str, StringConstraints(min_length=1, max_length=2_000, strip_whitespace=True)]
    brand: Name | None = None
    category: Annotated[list[Name], Field(max_length=20)] = []
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
    occurred_at: AwareDatetime

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

    kind: Literal["review_posted"] = "review_posted"
    review_id: Id
    product_id: Id
    user_id: Id | None = None
    rating: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)] | None = None
    title: Annotated[str, StringConstraints(max_length=2_000)] | None = None
    text: Annotated[str, StringConstraints(max_length=100_000)] | None = None
    helpful_votes: Annotated[int, Field(ge=0)] = 0


class ReviewRemoved(Revised):
    """A review was taken back or moderated away."""

    kind: Literal["review_removed"] = "review_removed"
    review_id: Id
    product_id: Id


UserEventType = Literal["view", "click", "cart", "purchase", "share", "rate", "impression"]


class UserEvent(Frozen):
    """One thing a shopper did with one product. Key: user_id."""

    kind: Literal["user_event"] = "user_event"
    event_id: Id
    type: UserEventType
    user_id: Id
    product_id: Id
    occurred_at: AwareDatetime
    session_id: Id | None = None
    quantity: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    value: Amount | None = None
    position: Annotated[int, Field(ge=0)] | None = None
    query: Annotated[str, StringConstraints(max_length=2_000)] | None = None
    request_id: Id | None = None


class ItemChanged(Frozen):
    """A hint without state: look at this item again. `dimensions` is for metrics only."""

    kind: Literal["item_changed"] = "item_changed"
    product_id: Id
    dimensions: list[str] = []
    occurred_at: AwareDatetime
    #: When the consumer that announces had written its effect; None where a tool announced.
    consumed_at: AwareDatetime | None = None


class StageTimes(Frozen):
    """When one change passed each stage. All on the clocks of the machines that did the work."""

    occurred_at: AwareDatetime
    consumed_at: AwareDatetime | None = None
    encoded_at: AwareDatetime | None = None
    searchable_at: AwareDatetime


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


ProductEvent = ProductUpserted | ProductDeleted
ReviewEvent = ReviewPosted | ReviewRemoved

EVENT_MODELS: tuple[type[Frozen], ...] = (
    ProductUpserted,
    ProductDeleted,
    ReviewPosted,
    ReviewRemoved,
    UserEvent,
    ItemChanged,
    ItemUpdated,
)

Event = TypeVar("Event", bound=Frozen)


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
        raise InvalidEvent(explain(error)) from None
    return event


def explain(error: ValidationError) -> str:
    """Say what is wrong in words a producer's engineer can act on, values shortened, at most five fields."""
    sentences = []
    for detail in error.errors(include_url=False)[:5]:
        path = ".".join(str(part) for part in detail["loc"] if not _is_tag(part))
        value = repr(detail.get("input"))
        shown = value if len(value) <= 60 else value[:57] + "..."
        where = f"field '{path}'" if path else "the message"
        if detail["type"] == "missing":
            sentences.append(f"{where} is missing: it is required")
        else:
            sentences.append(f"{where}: {detail['msg']} (got {shown})")
    more = error.error_count() - len(sentences)
    return "; ".join(sentences) + (f"; and {more} more" if more > 0 else "")


_TAGS = frozenset(model.model_fields["kind"].default for model in EVENT_MODELS)


def _is_tag(part: int | str) -> bool:
    return part in _TAGS
