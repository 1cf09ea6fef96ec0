"""Points, sparse vectors, filters and fused queries: the words the index port speaks.

Plain values, no engine's types: adapters/index_edge.py and adapters/index_server.py translate them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from schemas.events import Product

CONTENT = "content"
LEXICAL = "lexical"
REVIEWS = "reviews"
BEHAVIOUR = "behaviour"
#: Of collections that were made while pictures were on (SIMSTREAM_IMAGES__MODEL).
IMAGE = "image"
#: Dimensions that are vectors, dense ones first.
DENSE_DIMENSIONS = (CONTENT, REVIEWS, IMAGE)
SPARSE_DIMENSIONS = (LEXICAL, BEHAVIOUR)
VECTOR_DIMENSIONS = (*DENSE_DIMENSIONS, *SPARSE_DIMENSIONS)


class SparseVector(NamedTuple):
    """Unique, ascending 32-bit indices and their values, of equal length."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


DenseVector = Sequence[float]
Vector = DenseVector | SparseVector


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What a collection holds: sizes of its dense vectors, names of its sparse ones with and without IDF."""

    dense: Mapping[str, int]
    sparse_with_idf: Sequence[str] = (LEXICAL,)
    sparse: Sequence[str] = ()


def item_vectors(dimension: int, image: int | None = None) -> CollectionSpec:
    """A collection of items, for encoders whose vectors have these lengths; without pictures by default."""
    pictures = {} if image is None else {IMAGE: image}
    return CollectionSpec(dense={CONTENT: dimension, REVIEWS: dimension, **pictures}, sparse=(BEHAVIOUR,))


@dataclass(frozen=True, slots=True)
class Point:
    """A whole point. `product_id` names it; the adapter derives the engine's id. `payload` is JSON."""

    product_id: str
    vectors: Mapping[str, Vector]
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PayloadChange:
    """A point's next payload, its vectors staying. `before` is the payload that was read, with its ticket."""

    product_id: str
    payload: Mapping[str, Any]
    before: Mapping[str, Any]


# --- filters -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The payload field (or one of its elements, if a list) equals one of `values`."""

    field: str
    values: tuple[str | int | bool, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """low <= field <= high; None is open."""

    field: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Ids:
    """The point is one of these products."""

    product_ids: tuple[str, ...]


Clause = AnyOf | Between | Ids


@dataclass(frozen=True, slots=True)
class Where:
    """Every clause of `must` holds and none of `must_not`."""

    must: tuple[Clause, ...] = ()
    must_not: tuple[Clause, ...] = ()


# --- queries -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DimensionQuery:
    """One dimension's part of a fused query.

    `weight` multiplies the engine's raw score of this dimension in the fused score (fold any
    normalisation into it: a lexical score over the seed's score with itself, for example).
    """

    dimension: str
    vector: Vector
    weight: float
    candidates: int = 100


@dataclass(frozen=True, slots=True)
class FusedQuery:
    """Prefetch candidates per dimension, add their weighted scores, keep the best `limit`."""

    dimensions: tuple[DimensionQuery, ...]
    where: Where = field(default_factory=Where)
    limit: int = 50


class Candidate(NamedTuple):
    """A product, a score of the engine (higher is nearer), and its payload as it was at that moment.

    `known` holds raw scores by dimension, exact, as far as the search met them on its way.
    """

    product_id: str
    score: float
    payload: Mapping[str, Any]
    known: Mapping[str, float] = MappingProxyType({})


# --- what turns products into vectors (implemented in model/, handed in) ---------------------------


class Encoder(Protocol):
    """Texts to unit vectors. Thread-safe: the consumer and the service may share one."""

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        ...

    def encode(
        self, texts: Sequence[str], *, query: bool = False, background: bool = False
    ) -> list[list[float]]:
        """Unit float vectors, shape (len(texts), dimension), in the order of `texts`.

        `query` selects the model's query prompt where it has one (e5, bge); items use the passage prompt.

        `background` texts are in no hurry: they use what the others leave of the processor.
        """
        ...


class PictureEncoder(Protocol):
    """Pictures to unit vectors. Thread-safe."""

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        ...

    def encode(self, pictures: Sequence[Any]) -> list[list[float]]:
        """Unit float vectors, shape (len(pictures), dimension), in order.

        A picture is an array of uint8, (height, width, 3), red, green and blue.
        """
        ...


class TextRecipe(Protocol):
    """How a product becomes text and character grams; pure, no model behind it."""

    def content(self, product: Product) -> str:
        """The text handed to the encoder, fields limited so that the title always survives."""
        ...

    def lexical(self, product: Product) -> SparseVector:
        """Weighted character grams of the same fields, unit L2 norm."""
        ...

    def lexical_query(self, text: str) -> SparseVector:
        """Character grams of a search text."""
        ...

    def fingerprint(self, product: Product) -> str:
        """Names everything `content` and `lexical` are made from; equal fingerprints need no re-encoding."""
        ...

    def grams(self, product: Product) -> Mapping[int, str]:
        """Which gram each index of `lexical` stands for; explanations name shared words with it."""
        ...
