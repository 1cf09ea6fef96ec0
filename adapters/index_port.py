"""The vector index in our words: a port with two implementations and one contract suite.

adapters/index_edge.py    Qdrant's engine in this process, one owner per folder
adapters/index_server.py  a Qdrant server >= 1.19, or qdrant-client's local mode in tests

Every method raises `schemas.errors.Transient` when the engine is away, slow or refusing, and is then safe
to repeat; `Halt` when a person has to act (credentials refused, a folder somebody else owns, a server too old
to know conditional writes); ValueError, naming what is wrong, when the caller asks for what cannot be: an
unknown collection, a vector of the wrong length, one id twice. Methods may be called from several threads.
Point ids are UUIDv5 of the product id (`point_id`), so any client can compute them.

A filter may name the fields of `PAYLOAD_INDEXES`, with values of their kind, and no others (ValueError).
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Literal, Protocol

from schemas.vectors import (
    IMAGE,
    Candidate,
    CollectionSpec,
    DimensionQuery,
    FusedQuery,
    PayloadChange,
    Point,
    Where,
)

POINT_NAMESPACE = uuid.UUID("6d0f1a5e-7f0b-5c1e-9a46-5b9b2c3f9c11")
#: Below this many candidates a sparse vector is compared with each of them instead of through its index. A
#: product has about 200 grams: at Qdrant's default of 5,000 the scan takes 16 ms where the index takes 2.
SPARSE_SCAN_POINTS = 100
#: What a search walks through in memory instead of the dense vectors themselves, which then stay on disk: 8
#: bits a number, or one; and how many times as many candidates are rescored with the originals
#: (benchmarks/vectors.py).
Quantisation = Literal["none", "int8", "binary"]
OVERSAMPLING: Mapping[Quantisation, float] = {"int8": 2.0, "binary": 4.0}
#: Payload fields that the adapters create indexes for, and the kind of each.
PAYLOAD_INDEXES: Mapping[str, str] = {
    "product_id": "keyword",
    "ticket": "integer",
    "deleted": "bool",
    "deleted_at": "integer",
    "in_stock": "bool",
    "category": "keyword",
    "brand": "keyword",
    "currency": "keyword",
    "price": "float",
    "group_id": "keyword",
    "attributes": "keyword",
    "opinions": "keyword",
}


@lru_cache(maxsize=65_536)
def point_id(product_id: str) -> str:
    """The engine's id of a product: UUIDv5 in simstream's namespace."""
    return str(uuid.uuid5(POINT_NAMESPACE, product_id))


def same_but_for_pictures(one: CollectionSpec, other: CollectionSpec) -> bool:
    """Whether two collections hold the same vectors, the one of pictures aside."""

    def plain(spec: CollectionSpec) -> tuple[object, ...]:
        dense = {name: size for name, size in spec.dense.items() if name != IMAGE}
        return dense, set(spec.sparse_with_idf), set(spec.sparse)

    return plain(one) == plain(other)


#: Readers use the alias; the alias alone says which collection, and so which release, is live.
LIVE_ALIAS = "items"


def collection_name(release_id: str, generation: int = 1, *, namespace: str = "") -> str:
    """`items__<release_id>__<generation>`: a collection holds vectors of one release only."""
    return f"{namespace}items__{release_id}__{generation}"


def release_of(collection: str) -> str:
    """The release whose vectors a collection holds. Raises ValueError for a foreign collection."""
    parts = collection.rsplit("__", 2)
    if len(parts) != 3:
        raise ValueError(f"{collection!r} is not a collection of simstream: expected items__RELEASE__N")
    return parts[1]


class VectorIndex(Protocol):
    """What simstream asks of a vector index."""

    def ensure_collection(self, collection: str, spec: CollectionSpec) -> CollectionSpec:
        """Create the collection with its vectors and payload indexes; no effect where it exists.

        Answers with what it holds. That is `spec`, but for pictures: a collection that exists keeps the
        vector `image`, or does without, as it was made. Raises ValueError where anything else differs.

        What is made is quantised as the index is set; what exists keeps what it was made with, says so in the
        log, and is searched accordingly: a rebuild makes another.
        """
        ...

    def spec_of(self, collection: str) -> CollectionSpec:
        """Which vectors a collection holds."""
        ...

    def collections(self) -> list[str]:
        """Names of all collections."""
        ...

    def drop_collection(self, collection: str) -> None:
        """Remove a collection; no effect where it does not exist."""
        ...

    def set_alias(self, alias: str, collection: str) -> None:
        """Point the alias at the collection, atomically, creating or moving it."""
        ...

    def resolve(self, alias: str) -> str | None:
        """The collection behind the alias, or None."""
        ...

    def upsert(self, collection: str, points: Sequence[Point], *, ticket: int) -> None:
        """Write whole points if none newer stands there: insert, or replace where stored ticket <= `ticket`.

        `ticket` is stored in each payload as `ticket`. Returns once the engine has made the write durable
        and visible. No two points may share an id.
        """
        ...

    def change_payloads(self, collection: str, changes: Sequence[PayloadChange], *, ticket: int) -> set[str]:
        """Give points another payload where they still stand as they were read: stored ticket = `before`'s.

        Nothing is changed either where that ticket is larger than `ticket`: somebody read later. Vectors
        stay, unread and unwritten, and `ticket` is stored. Returns the products whose point does not carry
        `ticket` afterwards: those that were written meanwhile, or are gone. Sent again with the same ticket,
        it has no further effect. Durable and visible as `upsert` is.
        """
        ...

    def fetch(
        self, collection: str, product_ids: Sequence[str], *, vectors: bool | Sequence[str]
    ) -> dict[str, Point]:
        """The stored points by product id (missing ones left out), deleted ones included.

        Vectors come back as written (dense normalised by the engine): all, none, or those of the dimensions
        named. A point costs 20 us, and 200 us with all of its vectors (edge).
        """
        ...

    def scan(self, collection: str, *, batch: int = 1000) -> Iterator[list[Point]]:
        """Every point, tombstones included, payload only, in pages; not a snapshot."""
        ...

    def count(self, collection: str, where: Where | None = None) -> int:
        """Exact number of points for which `where` holds."""
        ...

    def delete_where(self, collection: str, where: Where) -> None:
        """Remove points by filter; used only by the sweeper of tombstones."""
        ...

    def candidates(self, collection: str, query: FusedQuery) -> list[Candidate]:
        """One call: the best of each dimension, added up with weights, best first, `query.limit` at most.

        A candidate that one dimension did not find counts 0 there: `scores` gives the exact figures. Payloads
        come along, which on a server saves a trip; embedded, so do the scores that the dimensions found.
        """
        ...

    def scores(
        self,
        collection: str,
        queries: Sequence[DimensionQuery],
        product_ids: Sequence[str],
        *,
        known: Sequence[Collection[str]] = (),
    ) -> list[dict[str, float]]:
        """Exact raw scores of the given products, per query, in one batch. A product without it is left out.

        So are those that `known` names, query by query: whoever has their scores already need not pay again.
        Sparse queries are weighted with the collection's IDF; a product that shares no index scores 0 or is
        left out.
        """
        ...

    def idf(self, collection: str, dimension: str, indices: Sequence[int]) -> list[float]:
        """The inverse document frequency the engine applies to each index right now, in the order given.

        Needed only for a seed that is not in the collection: its lexical score with itself is
        sum(q_i * idf_i * d_i). A seed that is in the collection asks `scores` for itself, which is cheaper.
        Engines do not tell these figures, so each index is looked up with a query of its own (limit 1, one
        batch): the hit's score over its stored value. An index that no point has gets ln(2n + 2), what the
        engine would apply at a document frequency of 0 among n points. IDF moves slowly: callers may cache.
        """
        ...

    def optimize(self, collection: str) -> None:
        """Build the search graph. Embedded: blocks and holds the interpreter, so only while starting."""
        ...

    def close(self) -> None:
        """Flush and release; further calls are errors."""
        ...
