"""What the routes of tests/support/qdrant_rest.py do: the client's request models applied to edge shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qdrant_client import models
from qdrant_edge import CountRequest, ScrollRequest, UpdateOperation

from adapters.edge_shards import EdgeShards
from adapters.edge_words import stored_payload
from adapters.index_port import PAYLOAD_INDEXES
from adapters.server_words import dense_params, house_quantisation
from schemas.vectors import CollectionSpec
from tests.support.qdrant_rest_words import edge_filter, edge_point, edge_query, hit, record

COMPLETED = {"operation_id": 0, "status": "completed"}


class Missing(Exception):
    """The collection does not exist: 404."""


class QdrantOverEdge:
    """One method per route: takes the path's collection and the body, answers what goes under `result`."""

    def __init__(self, folder: Path) -> None:
        self.shards = EdgeShards(folder)

    def _existing(self, name: str) -> str:
        name = self.shards.aliases().get(name, name)
        if name not in self.shards.names():
            raise Missing(f"Not found: Collection `{name}` doesn't exist!")
        return name

    def collections(self, name: str, body: bytes) -> Any:
        """GET /collections."""
        return {"collections": [{"name": found} for found in self.shards.names()]}

    def exists(self, name: str, body: bytes) -> Any:
        """GET /collections/C/exists."""
        return {"exists": name in self.shards.names()}

    def create(self, name: str, body: bytes) -> Any:
        """PUT /collections/C."""
        asked = models.CreateCollection.model_validate_json(body)
        if not isinstance(asked.vectors, dict):
            raise ValueError("vectors must be named")
        if any(each.distance is not models.Distance.COSINE for each in asked.vectors.values()):
            raise ValueError("only cosine is known here")
        sparse = asked.sparse_vectors or {}
        weighted = [key for key, each in sparse.items() if each.modifier is models.Modifier.IDF]
        spec = CollectionSpec(
            dense={key: each.size for key, each in asked.vectors.items()},
            sparse_with_idf=tuple(weighted),
            sparse=tuple(key for key in sparse if key not in weighted),
        )
        self.shards.ensure(name, spec, house_quantisation(models.CollectionParams(vectors=asked.vectors)))
        return True

    def info(self, name: str, body: bytes) -> Any:
        """GET /collections/C."""
        with self.shards.using(self._existing(name)) as opened:
            info = opened.shard.info()
        spec, quantisation = opened.spec, opened.quantisation
        params = models.CollectionParams(
            vectors={key: dense_params(size, quantisation) for key, size in spec.dense.items()},
            sparse_vectors={
                **{
                    key: models.SparseVectorParams(modifier=models.Modifier.IDF)
                    for key in spec.sparse_with_idf
                },
                **{key: models.SparseVectorParams() for key in spec.sparse},
            },
        )
        schema = {
            key: {"data_type": PAYLOAD_INDEXES[key], "points": found.points}
            for key, found in info.payload_schema.items()
        }
        return {
            "status": "green",
            "optimizer_status": "ok",
            "points_count": info.points_count,
            "segments_count": info.segments_count,
            "payload_schema": schema,
            "config": {
                "params": params.model_dump(mode="json", exclude_none=True),
                "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000},
                "optimizer_config": {
                    "deleted_threshold": 0.2,
                    "vacuum_min_vector_number": 1000,
                    "default_segment_number": 1,
                    "flush_interval_sec": 5,
                },
            },
        }

    def drop(self, name: str, body: bytes) -> Any:
        """DELETE /collections/C."""
        known = name in self.shards.names()
        self.shards.drop(name)
        return known

    def index_field(self, name: str, body: bytes) -> Any:
        """PUT /collections/C/index. The shard has all of PAYLOAD_INDEXES from the start."""
        asked = models.CreateFieldIndex.model_validate_json(body)
        self._existing(name)
        if asked.field_name not in PAYLOAD_INDEXES:
            raise ValueError(f"unknown field {asked.field_name}")
        return COMPLETED

    def aliases(self, name: str, body: bytes) -> Any:
        """GET /aliases."""
        found = self.shards.aliases()
        return {"aliases": [{"alias_name": key, "collection_name": value} for key, value in found.items()]}

    def move_aliases(self, name: str, body: bytes) -> Any:
        """POST /collections/aliases."""
        for operation in models.ChangeAliasesOperation.model_validate_json(body).actions:
            if not isinstance(operation, models.CreateAliasOperation):
                raise ValueError(f"unknown here: {type(operation).__name__}")
            target = operation.create_alias
            self.shards.set_alias(target.alias_name, self._existing(target.collection_name))
        return True

    def upsert(self, name: str, body: bytes) -> Any:
        """PUT /collections/C/points?wait=true."""
        asked = models.PointsList.model_validate_json(body)
        points = [edge_point(point) for point in asked.points]
        with self.shards.using(self._existing(name)) as opened:
            opened.shard.update(
                UpdateOperation.upsert_points(points, condition=edge_filter(asked.update_filter))
            )
            self.shards.wrote(opened, len(points))
        return COMPLETED

    def batch(self, name: str, body: bytes) -> Any:
        """POST /collections/C/points/batch?wait=true, of payloads that are overwritten by filter."""
        operations = models.UpdateOperations.model_validate_json(body).operations
        with self.shards.using(self._existing(name)) as opened:
            for operation in operations:
                if not isinstance(operation, models.OverwritePayloadOperation):
                    raise ValueError(f"unknown here: {type(operation).__name__}")
                asked = operation.overwrite_payload
                where = edge_filter(asked.filter)
                if where is None or asked.points is not None or asked.key is not None:
                    raise ValueError("a filter alone is required")
                opened.shard.update(
                    UpdateOperation.overwrite_payload_by_filter(where, stored_payload(asked.payload))
                )
            self.shards.wrote(opened, len(operations))
        return [COMPLETED] * len(operations)

    def retrieve(self, name: str, body: bytes) -> Any:
        """POST /collections/C/points."""
        asked = models.PointRequest.model_validate_json(body)
        payload, vectors = asked.with_payload, asked.with_vector or False
        with self.shards.using(self._existing(name)) as opened:
            found = opened.shard.retrieve(
                [str(point_id) for point_id in asked.ids], with_payload=True, with_vector=vectors
            )
        return [record(each, payload=payload, vectors=bool(vectors)) for each in found]

    def scroll(self, name: str, body: bytes) -> Any:
        """POST /collections/C/points/scroll."""
        asked = models.ScrollRequest.model_validate_json(body)
        vectors = asked.with_vector or False
        with self.shards.using(self._existing(name)) as opened:
            found, following = opened.shard.scroll(
                ScrollRequest(
                    offset=str(asked.offset) if asked.offset is not None else None,
                    limit=asked.limit,
                    filter=edge_filter(asked.filter),
                    with_payload=True,
                    with_vector=vectors,
                )
            )
        points = [record(each, payload=asked.with_payload, vectors=bool(vectors)) for each in found]
        return {"points": points, "next_page_offset": str(following) if following is not None else None}

    def count(self, name: str, body: bytes) -> Any:
        """POST /collections/C/points/count."""
        asked = models.CountRequest.model_validate_json(body)
        with self.shards.using(self._existing(name)) as opened:
            return {"count": opened.shard.count(CountRequest(exact=True, filter=edge_filter(asked.filter)))}

    def delete(self, name: str, body: bytes) -> Any:
        """POST /collections/C/points/delete?wait=true, by filter."""
        where = edge_filter(models.FilterSelector.model_validate_json(body).filter)
        if where is None:
            raise ValueError("a filter is required")
        with self.shards.using(self._existing(name)) as opened:
            opened.shard.update(UpdateOperation.delete_points_by_filter(where))
        return COMPLETED

    def query(self, name: str, body: bytes) -> Any:
        """POST /collections/C/points/query."""
        asked = models.QueryRequest.model_validate_json(body)
        return self._answers(self._existing(name), [asked])[0]

    def query_batch(self, name: str, body: bytes) -> Any:
        """POST /collections/C/points/query/batch."""
        asked = models.QueryRequestBatch.model_validate_json(body)
        return self._answers(self._existing(name), asked.searches)

    def _answers(self, collection: str, asked: list[models.QueryRequest]) -> list[Any]:
        requests = [edge_query(request) for request in asked]
        with self.shards.using(collection) as opened:
            found = [opened.shard.query(request) for request in requests]
        return [
            {
                "points": [
                    hit(each, payload=request.with_payload, vectors=bool(request.with_vector))
                    for each in hits
                ]
            }
            for request, hits in zip(asked, found, strict=True)
        ]
