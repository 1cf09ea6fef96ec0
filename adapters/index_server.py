"""The vector index on a Qdrant server (>= 1.19), or in qdrant-client's local mode for tests.

Reads, writes  collections, aliases and points over REST, or gRPC by setting (its port is the REST port + 1)
Never          retries: a Transient says that the same call may be repeated, the caller decides when
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from urllib.parse import urlsplit

import httpx
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from adapters.index import IndexSettings
from adapters.index_port import PAYLOAD_INDEXES, SPARSE_SCAN_POINTS, Quantisation, point_id
from adapters.index_words import (
    as_read,
    checked_ids,
    checked_points,
    kept_quantisation,
    not_taken,
    to_score,
    useful,
)
from adapters.server_words import (
    completed,
    dense_params,
    house_point,
    house_quantisation,
    house_spec,
    server_filter,
    server_point,
    server_rescoring,
    server_vector,
    standing_spec,
    translated,
)
from schemas.errors import Halt, Transient
from schemas.vectors import (
    Between,
    Candidate,
    CollectionSpec,
    DimensionQuery,
    FusedQuery,
    PayloadChange,
    Point,
    SparseVector,
    Where,
)

#: The first version whose upsert knows `update_filter` as we use it; an older one would ignore it silently.
MIN_SERVER = (1, 19)


class ServerIndex:
    """`VectorIndex` over a client; `local`: it is qdrant-client's local mode, which knows no threads."""

    def __init__(
        self, client: QdrantClient, *, local: bool = False, quantisation: Quantisation = "none"
    ) -> None:
        self._client = client
        self._local = local
        self._quantisation = quantisation
        self._stands: dict[str, Quantisation] = {}  # of the collections that were asked for
        self._one_at_a_time: AbstractContextManager[Any] = threading.RLock() if local else nullcontext()
        self._version_known = local
        # local mode is exact by nature, and warns when told to be
        self._exact = None if local else models.SearchParams(exact=True)

    @classmethod
    def connect(cls, settings: IndexSettings) -> ServerIndex:
        """A client of the server that the settings name; nothing is sent yet."""
        key = settings.api_key.get_secret_value() if settings.api_key is not None else ""
        return cls(
            QdrantClient(
                url=settings.url,
                api_key=key or None,
                timeout=math.ceil(settings.timeout_seconds),
                prefer_grpc=settings.prefer_grpc,
                grpc_port=(urlsplit(settings.url).port or 6333) + 1,
                check_compatibility=False,  # `_refuse_old` says what exactly is missing
                limits=httpx.Limits(max_keepalive_connections=16),
            ),
            quantisation=settings.quantisation,
        )

    @contextmanager
    def _calling(self, what: str) -> Iterator[QdrantClient]:
        with self._one_at_a_time, translated(what):
            yield self._client

    # --- collections and aliases -------------------------------------------------------------------

    def ensure_collection(self, collection: str, spec: CollectionSpec) -> CollectionSpec:
        """See the port. Completes a collection whose creation was cut off half way."""
        with self._calling(f"creating collection {collection!r}") as client:
            if not client.collection_exists(collection):
                try:
                    self._create(collection, spec)
                except UnexpectedResponse as error:
                    if error.status_code != 409:  # somebody else was faster
                        raise
            info = client.get_collection(collection)
            stands = standing_spec(collection, info.config.params, asked=spec)
            if self._local:  # keeps no payload indexes, and warns about each
                return stands
            self._stands[collection] = house_quantisation(info.config.params)
            kept_quantisation(collection, self._stands[collection], self._quantisation)
            for name, kind in PAYLOAD_INDEXES.items():
                if name not in info.payload_schema:
                    schema = models.PayloadSchemaType(kind)
                    completed(client.create_payload_index(collection, name, schema, wait=True), "an index")
            return stands

    def _create(self, collection: str, spec: CollectionSpec) -> None:
        self._client.create_collection(
            collection,
            vectors_config={
                name: dense_params(size, "none" if self._local else self._quantisation)
                for name, size in spec.dense.items()
            },
            sparse_vectors_config={
                name: models.SparseVectorParams(
                    modifier=models.Modifier.IDF if name in spec.sparse_with_idf else None,
                    index=models.SparseIndexParams(full_scan_threshold=SPARSE_SCAN_POINTS),
                )
                for name in (*spec.sparse_with_idf, *spec.sparse)
            },
        )

    def spec_of(self, collection: str) -> CollectionSpec:
        """See the port."""
        with self._calling(f"asking what collection {collection!r} holds") as client:
            return house_spec(client.get_collection(collection).config.params)

    def collections(self) -> list[str]:
        """See the port."""
        with self._calling("listing collections") as client:
            return sorted(found.name for found in client.get_collections().collections)

    def drop_collection(self, collection: str) -> None:
        """See the port."""
        with self._calling(f"dropping {collection!r}") as client:
            client.delete_collection(collection)

    def set_alias(self, alias: str, collection: str) -> None:
        """See the port. One CreateAlias: a batch of alias operations would not be atomic."""
        operation = models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=collection, alias_name=alias)
        )
        with self._calling(f"pointing alias {alias!r} at {collection!r}") as client:
            if not client.update_collection_aliases([operation]):
                raise Transient(f"Qdrant did not move alias {alias!r}")

    def resolve(self, alias: str) -> str | None:
        """See the port."""
        with self._calling("listing aliases") as client:
            found = client.get_aliases().aliases
        return next((entry.collection_name for entry in found if entry.alias_name == alias), None)

    # --- points ------------------------------------------------------------------------------------

    def upsert(self, collection: str, points: Sequence[Point], *, ticket: int) -> None:
        """See the port. Waits until the server has applied the write."""
        checked_points(points)
        if not points:
            return
        self._refuse_old()
        structs = [server_point(point, {**point.payload, "ticket": ticket}) for point in points]
        with self._calling(f"writing {len(points)} points") as client:
            result = client.upsert(
                collection, structs, wait=True, update_filter=self._write_condition(ticket)
            )
            completed(result, "an upsert")

    def _write_condition(self, ticket: int) -> models.Filter | None:
        """Which standing points may be replaced. A test switches it off to see that the contract notices."""
        return server_filter(Where(must=(Between("ticket", high=ticket),)))

    def change_payloads(self, collection: str, changes: Sequence[PayloadChange], *, ticket: int) -> set[str]:
        """See the port. One batch; the server applies it operation by operation."""
        checked_ids(changes)
        if not changes:
            return set()
        self._refuse_old()
        operations = [
            models.OverwritePayloadOperation(
                overwrite_payload=models.SetPayload(
                    payload={**change.payload, "ticket": ticket}, filter=self._unchanged(change, ticket)
                )
            )
            for change in changes
        ]
        by_id = {point_id(change.product_id): change.product_id for change in changes}
        with self._calling(f"changing {len(changes)} payloads") as client:
            for result in client.batch_update_points(collection, operations, wait=True):
                completed(result, "a change of payload")
            found = client.retrieve(collection, list(by_id), with_payload=["ticket"], with_vectors=False)
        return not_taken(by_id, found, ticket)

    def _unchanged(self, change: PayloadChange, ticket: int) -> models.Filter:
        """The point as it was read. A test switches it off to see that the contract notices."""
        return server_filter(as_read(change, ticket))

    def check_version(self) -> None:
        """Raises Halt when the server is too old for conditional writes."""
        self._refuse_old()

    def _refuse_old(self) -> None:
        """Halt before the first write to a server that would ignore the condition."""
        if self._version_known:
            return
        with self._calling("asking for its version") as client:
            version = client.info().version
        major, minor = (
            int("".join(filter(str.isdigit, part)) or 0) for part in f"{version}.0".split(".")[:2]
        )
        if (major, minor) < MIN_SERVER:
            raise Halt(
                f"Qdrant {version} is too old: conditional writes need {MIN_SERVER[0]}.{MIN_SERVER[1]} or "
                "newer, and without them an old version could overwrite a newer one"
            )
        self._version_known = True

    def fetch(
        self, collection: str, product_ids: Sequence[str], *, vectors: bool | Sequence[str]
    ) -> dict[str, Point]:
        """See the port."""
        if not product_ids:
            return {}
        with self._calling("reading points") as client:
            ids = [point_id(product_id) for product_id in product_ids]
            named = vectors if isinstance(vectors, bool) else list(vectors)
            records = client.retrieve(collection, ids, with_payload=True, with_vectors=named)
        points = [house_point(record) for record in records]
        return {point.product_id: point for point in points}

    def scan(self, collection: str, *, batch: int = 1000) -> Iterator[list[Point]]:
        """See the port."""
        offset: Any = None
        while True:
            with self._calling("scanning") as client:
                records, offset = client.scroll(
                    collection, limit=batch, offset=offset, with_payload=True, with_vectors=False
                )
            if records:
                yield [house_point(record) for record in records]
            if offset is None:
                return

    def count(self, collection: str, where: Where | None = None) -> int:
        """See the port."""
        condition = server_filter(where) if where is not None else None
        with self._calling("counting") as client:
            return int(client.count(collection, count_filter=condition, exact=True).count)

    def delete_where(self, collection: str, where: Where) -> None:
        """See the port."""
        selector = models.FilterSelector(filter=server_filter(where))
        with self._calling("deleting by filter") as client:
            completed(client.delete(collection, points_selector=selector, wait=True), "a delete")

    # --- queries -----------------------------------------------------------------------------------

    def candidates(self, collection: str, query: FusedQuery) -> list[Candidate]:
        """See the port. A formula over `$score[i]`, missing ones 0, in one request."""
        condition = server_filter(query.where)
        dimensions = [dimension for dimension in query.dimensions if useful(dimension.vector)]
        if not dimensions or query.limit <= 0:
            return []
        names = [f"$score[{position}]" for position in range(len(dimensions))]
        terms: list[Any] = [
            models.MultExpression(mult=[dimension.weight, name])
            for dimension, name in zip(dimensions, names, strict=True)
        ]
        with self._calling("searching candidates") as client:
            rescoring = self._rescoring(collection)
            answer = client.query_points(
                collection,
                prefetch=[
                    models.Prefetch(
                        query=server_vector(dimension.vector),
                        using=dimension.dimension,
                        filter=condition,
                        limit=dimension.candidates,
                        params=None if isinstance(dimension.vector, SparseVector) else rescoring,
                    )
                    for dimension in dimensions
                ],
                query=models.FormulaQuery(
                    formula=models.SumExpression(sum=terms), defaults=dict.fromkeys(names, 0.0)
                ),
                with_payload=True,
                limit=query.limit,
            )
        payloads = [hit.payload or {} for hit in answer.points]
        return [
            Candidate(payload["product_id"], hit.score, payload)
            for hit, payload in zip(answer.points, payloads, strict=True)
        ]

    def _rescoring(self, collection: str) -> models.SearchParams | None:
        """How its dense vectors are searched: quantised, more candidates, scored with the originals."""
        if self._local:
            return None
        stands = self._stands.get(collection)
        if stands is None:
            stands = house_quantisation(self._client.get_collection(collection).config.params)
            self._stands[collection] = stands
        return server_rescoring(stands)

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
        if not asked:
            return answer
        requests = [
            models.QueryRequest(
                query=server_vector(queries[place].vector),
                using=queries[place].dimension,
                filter=models.Filter(must=[models.HasIdCondition(has_id=list(wanted))]),
                limit=len(wanted),
                params=self._exact,
                with_payload=False,
            )
            for place, wanted in asked.items()
        ]
        with self._calling("scoring products") as client:
            found = client.query_batch_points(collection, requests)
        for (place, wanted), response in zip(asked.items(), found, strict=True):
            answer[place] = {wanted[str(hit.id)]: hit.score for hit in response.points}
        return answer

    def idf(self, collection: str, dimension: str, indices: Sequence[int]) -> list[float]:
        """See the port."""
        if not indices:
            return []
        requests = [
            models.QueryRequest(
                query=models.SparseVector(indices=[index], values=[1.0]),
                using=dimension,
                limit=1,
                with_vector=[dimension],
                with_payload=False,
            )
            for index in indices
        ]
        has_it = models.Filter(must=[models.HasVectorCondition(has_vector=dimension)])
        with self._calling("looking up document frequencies") as client:
            found = [response.points for response in client.query_batch_points(collection, requests)]
            unseen = (
                0.0
                if all(found)
                else math.log(2 * client.count(collection, count_filter=has_it, exact=True).count + 2)
            )
        return [
            _idf_of(index, hits[0], dimension) if hits else unseen
            for index, hits in zip(indices, found, strict=True)
        ]

    def optimize(self, collection: str) -> None:
        """See the port. Nothing to do: a server builds its graphs by itself, in the background."""

    def close(self) -> None:
        """See the port."""
        with self._one_at_a_time:
            self._client.close()


def _idf_of(index: int, hit: models.ScoredPoint, dimension: str) -> float:
    vector = hit.vector[dimension] if isinstance(hit.vector, Mapping) else None
    if not isinstance(vector, models.SparseVector):
        raise Transient(f"Qdrant answered without the vector {dimension!r} that was asked for")
    return hit.score / vector.values[vector.indices.index(index)]
