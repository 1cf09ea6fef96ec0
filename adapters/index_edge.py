"""The vector index inside this process: Qdrant's own engine, through `qdrant-edge-py`.

Reads, writes  collections under one folder (adapters/edge_shards.py opens and owns them)
Never          builds a search graph but in `optimize`, which holds the interpreter for its whole run
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from heapq import nlargest
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from qdrant_edge import (
    CountRequest,
    Filter,
    HasIdCondition,
    HasVectorCondition,
    PayloadSelector,
    QuantizationSearchParams,
    Query,
    QueryBatchRequest,
    QueryRequest,
    ScrollRequest,
    SearchParams,
    UpdateOperation,
)
from qdrant_edge import SparseVector as EdgeSparse

from adapters.edge_shards import EdgeShards, Opened, translated
from adapters.edge_words import (
    BODY,
    changed_payload,
    edge_filter,
    edge_point,
    edge_vector,
    house_point,
    no_newer_than,
    read_payload,
)
from adapters.index_port import OVERSAMPLING, Quantisation, point_id
from adapters.index_words import as_read, checked_ids, checked_points, not_taken, to_score, useful
from schemas.vectors import (
    AnyOf,
    Candidate,
    Clause,
    CollectionSpec,
    DimensionQuery,
    FusedQuery,
    Ids,
    PayloadChange,
    Point,
    Where,
)

_BODY_ONLY = PayloadSelector.Include([BODY])
_TICKET_ONLY = PayloadSelector.Include(["ticket"])
#: The engine holds the interpreter while it writes, half a millisecond a point: as many at a time, so that a
#: query in between waits for no more than these.
WRITE_AT_ONCE = 16
_DROPPED_AT_MOST = 20


class EdgeIndex:
    """`VectorIndex` on shards of this process. The engine holds the interpreter while it works."""

    def __init__(self, folder: Path, *, quantisation: Quantisation = "none") -> None:
        self._shards = EdgeShards(folder)
        self._quantisation = quantisation

    @property
    def shards(self) -> EdgeShards:
        """The shards underneath, for the test server that speaks to them directly."""
        return self._shards

    def ensure_collection(self, collection: str, spec: CollectionSpec) -> CollectionSpec:
        """See the port. Raises Halt naming the owner if another process holds the collection."""
        return self._shards.ensure(collection, spec, self._quantisation)

    def spec_of(self, collection: str) -> CollectionSpec:
        """See the port."""
        with self._shards.using(collection) as opened:
            return opened.spec

    def collections(self) -> list[str]:
        """See the port."""
        return self._shards.names()

    def drop_collection(self, collection: str) -> None:
        """See the port."""
        self._shards.drop(collection)

    def set_alias(self, alias: str, collection: str) -> None:
        """See the port."""
        self._shards.set_alias(alias, collection)

    def resolve(self, alias: str) -> str | None:
        """See the port."""
        return self._shards.aliases().get(alias)

    def upsert(self, collection: str, points: Sequence[Point], *, ticket: int) -> None:
        """See the port. Durable against kill -9 of this process when it returns."""
        checked_points(points)
        with self._shards.using(collection) as opened:
            if not points:
                return
            with translated(f"writing {len(points)} points"):
                condition = self._write_condition(ticket)
                for start in range(0, len(points), WRITE_AT_ONCE):
                    written = [
                        edge_point(point, {**point.payload, "ticket": ticket})
                        for point in points[start : start + WRITE_AT_ONCE]
                    ]
                    opened.shard.update(UpdateOperation.upsert_points(written, condition=condition))
                self._shards.wrote(opened, len(points))

    def _write_condition(self, ticket: int) -> Filter | None:
        """Which standing points may be replaced. A test switches it off to see that the contract notices."""
        return no_newer_than(ticket)

    def change_payloads(self, collection: str, changes: Sequence[PayloadChange], *, ticket: int) -> set[str]:
        """See the port. One operation of the engine a point: it knows no batch of different payloads."""
        checked_ids(changes)
        with self._shards.using(collection) as opened:
            if not changes:
                return set()
            with translated(f"changing {len(changes)} payloads"):
                for change in changes:
                    opened.shard.update(
                        UpdateOperation.set_payload_by_filter(
                            self._unchanged(change, ticket),
                            changed_payload(change.before, {**change.payload, "ticket": ticket}),
                        )
                    )
                self._shards.wrote(opened, len(changes))
            with translated("looking at tickets"):
                by_id = {point_id(change.product_id): change.product_id for change in changes}
                found = opened.shard.retrieve(list(by_id), with_payload=_TICKET_ONLY, with_vector=False)
        return not_taken(by_id, found, ticket)

    def _unchanged(self, change: PayloadChange, ticket: int) -> Filter:
        """The point as it was read. A test switches it off to see that the contract notices."""
        return edge_filter(as_read(change, ticket))

    def fetch(
        self, collection: str, product_ids: Sequence[str], *, vectors: bool | Sequence[str]
    ) -> dict[str, Point]:
        """See the port."""
        with self._shards.using(collection) as opened, translated("reading points"):
            if not product_ids:
                return {}
            records = opened.shard.retrieve(
                [point_id(product_id) for product_id in product_ids],
                with_payload=_BODY_ONLY,
                with_vector=vectors if isinstance(vectors, bool) else list(vectors),
            )
            points = [house_point(record.payload, record.vector if vectors else None) for record in records]
        return {point.product_id: point for point in points}

    def scan(self, collection: str, *, batch: int = 1000) -> Iterator[list[Point]]:
        """See the port."""
        offset: Any = None
        while True:
            with self._shards.using(collection) as opened, translated("scanning"):
                records, offset = opened.shard.scroll(
                    ScrollRequest(offset=offset, limit=batch, with_payload=_BODY_ONLY, with_vector=False)
                )
                page = [house_point(record.payload, None) for record in records]
            if page:
                yield page
            if offset is None:
                return

    def count(self, collection: str, where: Where | None = None) -> int:
        """See the port."""
        condition = edge_filter(where) if where is not None else None
        with self._shards.using(collection) as opened, translated("counting"):
            return int(opened.shard.count(CountRequest(exact=True, filter=condition)))

    def delete_where(self, collection: str, where: Where) -> None:
        """See the port."""
        condition = edge_filter(where)
        with self._shards.using(collection) as opened, translated("deleting by filter"):
            opened.shard.update(UpdateOperation.delete_points_by_filter(condition))

    def candidates(self, collection: str, query: FusedQuery) -> list[Candidate]:
        """See the port. Each dimension's best in one batch, added up here.

        The engine could add them up itself, as a server does. It would keep what each dimension scored to
        itself, and most of what is then asked again are lexical scores at 0.1 ms each, nine in ten of them
        among those that it had.
        """
        where, dropped = _found_by_vectors(query.where)
        condition = edge_filter(where) if where.must or where.must_not else None
        dimensions = [dimension for dimension in query.dimensions if useful(dimension.vector)]
        with self._shards.using(collection) as opened, translated("searching candidates"):
            if not dimensions or query.limit <= 0:
                return []
            requests = [
                QueryRequest(
                    limit=dimension.candidates + len(dropped),
                    query=_nearest(dimension),
                    filter=condition,
                    params=_rescoring(opened, dimension.dimension),
                )
                for dimension in dimensions
            ]
            # By the number of the id: hashing a UUID costs more than all else here.
            ids: dict[int, UUID] = {}
            total: dict[int, float] = {}
            known: dict[int, dict[str, float]] = {}
            batches = opened.shard.query_batch(QueryBatchRequest(requests))
            for dimension, hits in zip(dimensions, batches, strict=True):
                name, weight = dimension.dimension, dimension.weight
                for hit in hits:
                    point, score = cast(UUID, hit.id), hit.score
                    number = point.int
                    if number in dropped:
                        continue
                    if number in known:
                        known[number][name] = score
                        total[number] += weight * score
                    else:
                        ids[number], known[number], total[number] = point, {name: score}, weight * score
            best = nlargest(query.limit, total, key=total.__getitem__)
            records = opened.shard.retrieve(
                [ids[number] for number in best], with_payload=_BODY_ONLY, with_vector=False
            )
            payloads = {cast(UUID, one.id).int: read_payload(one.payload or {}) for one in records}
        # Deleted or swept between the two calls: no hit any more.
        return [
            Candidate(payloads[number]["product_id"], total[number], payloads[number], known[number])
            for number in best
            if number in payloads and not payloads[number].get("deleted")
        ]

    def scores(
        self,
        collection: str,
        queries: Sequence[DimensionQuery],
        product_ids: Sequence[str],
        *,
        known: Sequence[Collection[str]] = (),
    ) -> list[dict[str, float]]:
        """See the port. The filter on ids makes the engine score exactly these points."""
        asked = to_score(queries, product_ids, known)
        answer: list[dict[str, float]] = [{} for _ in queries]
        with self._shards.using(collection) as opened, translated("scoring products"):
            if not asked:
                return answer
            requests = [
                QueryRequest(
                    limit=len(wanted),
                    query=_nearest(queries[place]),
                    filter=Filter(must=[HasIdCondition(set(wanted))]),
                    params=SearchParams(exact=True),
                )
                for place, wanted in asked.items()
            ]
            batches = opened.shard.query_batch(QueryBatchRequest(requests))
            for (place, wanted), hits in zip(asked.items(), batches, strict=True):
                answer[place] = {wanted[str(hit.id)]: hit.score for hit in hits}
        return answer

    def idf(self, collection: str, dimension: str, indices: Sequence[int]) -> list[float]:
        """See the port."""
        with self._shards.using(collection) as opened, translated("looking up document frequencies"):
            if not indices:
                return []
            requests = [
                QueryRequest(
                    limit=1,
                    query=Query.Nearest(EdgeSparse([index], [1.0]), using=dimension),
                    with_vector=[dimension],
                )
                for index in indices
            ]
            found = opened.shard.query_batch(QueryBatchRequest(requests))
            return [
                _idf_of(index, hits[0].score, hits[0].vector, dimension)
                if hits
                else _unseen(opened, dimension)
                for index, hits in zip(indices, found, strict=True)
            ]

    def optimize(self, collection: str) -> None:
        """See the port: 9 s for 12,000 points, during which no other Python thread runs."""
        with self._shards.using(collection) as opened, translated("building the search graph"):
            opened.shard.optimize()

    def close(self) -> None:
        """See the port."""
        self._shards.close()


def _found_by_vectors(where: Where) -> tuple[Where, set[int]]:
    """What the engine has to check of a filter while it searches, and points to drop from what it finds.

    Each clause costs it 0.2 to 0.6 ms a dimension at 20,000 points. A tombstone has no vector that a search
    could find it by, and a few ids are dropped sooner than checked.
    """
    kept: list[Clause] = []
    dropped: set[int] = set()
    for clause in where.must_not:
        if isinstance(clause, AnyOf) and clause.field == "deleted" and set(clause.values) == {True}:
            continue
        if isinstance(clause, Ids) and len(dropped) + len(clause.product_ids) <= _DROPPED_AT_MOST:
            dropped.update(UUID(point_id(product_id)).int for product_id in clause.product_ids)
            continue
        kept.append(clause)
    return Where(where.must, tuple(kept)), dropped


def _nearest(query: DimensionQuery) -> Query:
    return Query.Nearest(edge_vector(query.vector), using=query.dimension)


def _rescoring(opened: Opened, dimension: str) -> SearchParams | None:
    """How a quantised dimension is searched: more candidates, scored with the originals."""
    if opened.quantisation == "none" or dimension not in opened.spec.dense:
        return None
    more = QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING[opened.quantisation])
    return SearchParams(quantization=more)


def _idf_of(index: int, score: float, vectors: Any, dimension: str) -> float:
    vector = vectors[dimension]
    return float(score / vector.values[vector.indices.index(index)])


def _unseen(opened: Opened, dimension: str) -> float:
    """What the engine applies at a document frequency of 0 among the points that have the dimension."""
    count = opened.shard.count(CountRequest(exact=True, filter=Filter(must=[HasVectorCondition(dimension)])))
    return math.log(2 * count + 2)
