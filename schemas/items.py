"""Item state, and the payload of its point: what Redis holds and what the index shows.

Both sides of the house use these two: consumers/embeddings.py writes payloads, service/ reads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, Self

import orjson
from pydantic import Field

from schemas.events import Frozen, Product, ProductUpserted

CATEGORY_SEPARATOR = " > "
#: What of a payload is no vector has its fingerprint under this name.
CONTEXT = "context"
#: Names the version of `payload`: part of the context fingerprint, so that a new layout is written out.
PAYLOAD_VERSION = 2
#: Stands between the fingerprint of a sketch and that of its shoppers' weights.
SHOPPERS_WEIGHED = "/"
_REFUSED = ":"


class RatingPrior(Frozen):
    """What a mean is drawn towards while few have rated: as if `count` more had given `mean`."""

    mean: float = Field(default=4.0, ge=0, le=5)
    count: float = Field(default=5.0, ge=0)


@dataclass(frozen=True, slots=True)
class Rating:
    """What the live reviews of an item say in numbers: `mean` is that of the `count` ratings given.

    `histogram` counts them by the nearest whole star, from 0 to 5.
    """

    mean: float
    count: int
    histogram: tuple[int, ...] = ()

    def bayesian_mean(self, prior: RatingPrior) -> float:
        """The mean of the ratings given and those of the prior: comparable between items of few and many."""
        return (prior.mean * prior.count + self.mean * self.count) / (prior.count + self.count)


@dataclass(frozen=True, slots=True)
class ReviewState:
    """What an item's live reviews come to: their rating (None: no rating given), and their digest.

    An empty digest is none: the item then has no vector `reviews`. consumers/review_digest.py says what text
    is encoded.
    """

    digest: str
    rating: Rating | None


@dataclass(frozen=True, slots=True)
class BehaviourState:
    """Which shoppers' sketch an item has: `fingerprint` names its content, `shoppers` estimates how many.

    A vector's own fingerprint begins with that of its sketch. What follows names the weights of its shoppers,
    which move with what they do elsewhere: to compare those, a hundred shoppers have to be asked.
    """

    fingerprint: str
    shoppers: int

    def made(self, vector_fingerprint: str | None) -> bool:
        """Whether the vector of that fingerprint was made from this sketch, whatever its shoppers weighed."""
        return vector_fingerprint is not None and (
            vector_fingerprint.rpartition(SHOPPERS_WEIGHED)[0] == self.fingerprint
        )


@dataclass(frozen=True, slots=True)
class ItemState:
    """What is true of one item now. `product` is None exactly when the item is deleted."""

    product_id: str
    revision: int
    occurred_at: datetime
    product: ProductUpserted | None
    reviews: ReviewState | None = None
    behaviour: BehaviourState | None = None
    #: What reviewers come to, `noise: good`; nothing where nobody listens (schemas/opinions.py).
    opinions: tuple[str, ...] = ()

    @property
    def deleted(self) -> bool:
        """Whether the item has left the catalogue."""
        return self.product is None


class PictureMark(NamedTuple):
    """What stands for an item's picture among the fingerprints of its point: a name, or why it has no vector.

    `picture` names the picture and the model; on the point it is followed by `:refused` where there is one.
    """

    picture: str
    refused: str | None = None

    @classmethod
    def read(cls, fingerprint: str) -> Self:
        """What a fingerprint says."""
        picture, mark, refused = fingerprint.partition(_REFUSED)
        return cls(picture, refused if mark else None)

    @property
    def fingerprint(self) -> str:
        """The mark as it stands on a point."""
        return self.picture if self.refused is None else self.picture + _REFUSED + self.refused


def category_terms(path: list[str]) -> list[str]:
    """Every level by its own name and by its path from the root, so that a filter can name either."""
    terms: list[str] = []
    for depth, name in enumerate(path, start=1):
        for term in (name, CATEGORY_SEPARATOR.join(path[:depth])):
            if term not in terms:
                terms.append(term)
    return terms


def attribute_terms(attributes: Mapping[str, str | list[str]]) -> list[str]:
    """`colour=black`, lower-cased, one per value: the words that an attribute filter matches."""
    terms = []
    for name, value in attributes.items():
        for word in value if isinstance(value, list) else [value]:
            terms.append(f"{name}={word}".casefold())
    return terms


def context_fields(
    product: Product, rating: Rating | None = None, opinions: Sequence[str] = ()
) -> dict[str, Any]:
    """The filterable and shown fields of the payload that do not come from the encoder's text alone.

    Without opinions there is no such field: points of a shop that does not listen stay as they are.
    """
    return {
        **({"opinions": list(opinions)} if opinions else {}),
        "rating_mean": round(rating.mean, 4) if rating is not None else None,
        "rating_count": rating.count if rating is not None else 0,
        "brand": product.brand.casefold() if product.brand else None,
        "brand_name": product.brand,
        "category": category_terms(product.category),
        "category_path": product.category,
        "price": float(product.price) if product.price is not None else None,
        "price_exact": str(product.price) if product.price is not None else None,
        "currency": product.currency,
        "in_stock": product.in_stock,
        "image_url": product.image_url,
        "group_id": product.group_id,
        "seller_id": product.seller_id,
        "condition": product.condition,
        "gtin": product.gtin,
        "language": product.language,
        "attributes": attribute_terms(product.attributes),
    }


def digest(*parts: object) -> str:
    """A stable 64-bit name of JSON-able parts, the same in every process."""
    body = orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(body, digest_size=8).hexdigest()


def reviews_fingerprint(text: str) -> str:
    """Names the text that a vector `reviews` is made from."""
    return digest("reviews", text)


def context_fingerprint(product: Product, rating: Rating | None = None, opinions: Sequence[str] = ()) -> str:
    """Names everything `context_fields` is made from."""
    return digest(PAYLOAD_VERSION, context_fields(product, rating, opinions))


def live_payload(
    state: ItemState, *, fingerprints: Mapping[str, str], updated_at: Mapping[str, str], shoppers: int = 0
) -> dict[str, Any]:
    """The payload of a live item's point. `fingerprints` and `updated_at` are by dimension.

    `shoppers` is the evidence behind the vector `behaviour`: as many as when that vector was written.
    """
    product = state.product
    if product is None:
        raise ValueError(f"item {state.product_id!r} is deleted: use tombstone_payload")
    return {
        "product_id": state.product_id,
        "deleted": False,
        "revision": state.revision,
        "occurred_at": state.occurred_at.isoformat(),
        "title": product.title,
        **context_fields(
            product, state.reviews.rating if state.reviews is not None else None, state.opinions
        ),
        "shoppers": shoppers,
        "fingerprints": dict(fingerprints),
        "updated_at": dict(updated_at),
    }


def tombstone_payload(product_id: str, *, revision: int, deleted_at: datetime) -> dict[str, Any]:
    """The payload of a deleted item's point; queries exclude it, the sweeper removes it later."""
    return {
        "product_id": product_id,
        "deleted": True,
        "deleted_at": int(deleted_at.astimezone(UTC).timestamp()),
        "revision": revision,
        "fingerprints": {},
        "updated_at": {},
    }


class Items(Protocol):
    """Reads item state. Raises Transient when the store is away."""

    def read(self, product_ids: Sequence[str]) -> dict[str, ItemState]:
        """The state of each known item, deleted ones included; unknown ids are left out."""
        ...

    def ping(self) -> None:
        """Raises Transient when the store is away."""
        ...
