"""Events as they travel on the topics: frozen, with a `kind`, times with a zone.

Parse at the edge (schemas/parsing.py); nothing inside the house handles raw dicts. Unknown fields are
ignored, so a producer may be newer than its reader. A wrong field is named together with what was expected.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schemas.fields import Amount, Attributes, Category, Currency, Id, Moment, Name, Quantity, Revision, Votes


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
