"""Our points, vectors and filters in the words of `qdrant-client`, and back; its errors in ours. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from qdrant_client import models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from adapters.index_port import (
    OVERSAMPLING,
    PAYLOAD_INDEXES,
    Quantisation,
    point_id,
    same_but_for_pictures,
)
from adapters.index_words import check_clause, useful
from schemas.errors import Halt, Transient
from schemas.vectors import AnyOf, Between, Clause, CollectionSpec, Ids, Point, SparseVector, Vector, Where

_REFUSED = (401, 403)
_NOT_NOW = (408, 429)
_GRPC_REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_GRPC_INPUT = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """The client's exceptions as Transient (away, slow, busy), Halt (refused) or ValueError (our input)."""
    try:
        yield
    except UnexpectedResponse as error:
        said = (
            f"Qdrant answered {error.status_code} to {what}: {error.content[:500].decode(errors='replace')}"
        )
        if error.status_code in _REFUSED:
            raise Halt(f"{said}; check SIMSTREAM_QDRANT__API_KEY") from error
        if error.status_code is None or error.status_code >= 500 or error.status_code in _NOT_NOW:
            raise Transient(said) from error
        raise ValueError(said) from error
    except ResponseHandlingException as error:
        cause = error.source
        raise Transient(f"Qdrant is away while {what}: {type(cause).__name__}: {cause}") from error
    except QdrantException as error:
        raise Transient(f"Qdrant is busy while {what}: {error}") from error
    except grpc.RpcError as error:
        code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
        detail = error.details() if isinstance(error, grpc.Call) else str(error)
        said = f"Qdrant answered {code.name} to {what}: {detail}"
        if code in _GRPC_REFUSED:
            raise Halt(f"{said}; check SIMSTREAM_QDRANT__API_KEY") from error
        if code in _GRPC_INPUT:
            raise ValueError(said) from error
        raise Transient(said) from error


def server_vector(vector: Vector) -> Any:
    """A vector as the client takes it."""
    if isinstance(vector, SparseVector):
        return models.SparseVector(indices=list(vector.indices), values=list(vector.values))
    return vector if isinstance(vector, list) else [float(value) for value in vector]


def house_vector(vector: Any) -> Vector:
    """The client's vector in our words."""
    if isinstance(vector, models.SparseVector):
        return SparseVector(tuple(vector.indices), tuple(vector.values))
    dense: list[float] = vector
    return dense


def server_filter(where: Where) -> models.Filter:
    """A filter in the client's words. Raises ValueError for a field or value that cannot be filtered on."""
    must = [_condition(clause) for clause in where.must]
    must_not = [_condition(clause) for clause in where.must_not]
    return models.Filter(must=must or None, must_not=must_not or None)


def _condition(clause: Clause) -> Any:
    check_clause(clause)
    match clause:
        case Ids(product_ids):
            return models.HasIdCondition(has_id=[point_id(product_id) for product_id in product_ids])
        case AnyOf(_, ()):
            return models.HasIdCondition(has_id=[])
        case AnyOf(name, values) if PAYLOAD_INDEXES[name] == "bool":
            # MatchAny takes words and integers only
            either: list[Any] = [
                models.FieldCondition(key=name, match=models.MatchValue(value=value)) for value in values
            ]
            return models.Filter(should=either)
        case AnyOf(name, values):
            some: Any = list(values)
            return models.FieldCondition(key=name, match=models.MatchAny(any=some))
        case Between(name, low, high):
            span = models.Range(gte=-1e308 if low is None else low, lte=high)
            return models.FieldCondition(key=name, range=span)


def server_point(point: Point, payload: Mapping[str, Any]) -> models.PointStruct:
    """A whole point as the client takes it, under `payload`; vectors without any value are left out."""
    vectors = {name: server_vector(vector) for name, vector in point.vectors.items() if useful(vector)}
    return models.PointStruct(id=point_id(point.product_id), vector=vectors, payload=dict(payload))


def house_point(record: models.Record) -> Point:
    """A record of the client in our words."""
    payload = record.payload or {}
    found = record.vector if isinstance(record.vector, Mapping) else {}
    vectors = {name: house_vector(vector) for name, vector in found.items()}
    return Point(product_id=payload["product_id"], vectors=vectors, payload=payload)


def completed(result: models.UpdateResult, what: str) -> None:
    """A write that was only acknowledged is not done: the caller has to repeat it."""
    if result.status != models.UpdateStatus.COMPLETED:
        raise Transient(f"Qdrant did not complete {what}: status {result.status}")


def dense_params(size: int, quantisation: Quantisation) -> models.VectorParams:
    """A dense vector of a new collection. The originals of what is quantised stay on disk."""
    kinds: dict[Quantisation, Any] = {
        "none": None,
        "int8": models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(
                type=models.ScalarType.INT8, quantile=0.99, always_ram=True
            )
        ),
        "binary": models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
    }
    return models.VectorParams(
        size=size,
        distance=models.Distance.COSINE,
        on_disk=None if quantisation == "none" else True,
        quantization_config=kinds[quantisation],
    )


def house_quantisation(params: models.CollectionParams) -> Quantisation:
    """How a standing collection's dense vectors are quantised; somebody else's way is searched as it is."""
    vectors = params.vectors if isinstance(params.vectors, Mapping) else {}
    for each in vectors.values():
        if isinstance(each.quantization_config, models.ScalarQuantization):
            return "int8"
        if isinstance(each.quantization_config, models.BinaryQuantization):
            return "binary"
    return "none"


def server_rescoring(quantisation: Quantisation) -> models.SearchParams | None:
    """More candidates of the quantised vectors, scored with the originals."""
    if quantisation == "none":
        return None
    more = models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING[quantisation])
    return models.SearchParams(quantization=more)


def house_spec(params: models.CollectionParams) -> CollectionSpec:
    """What a collection holds, in our words."""
    vectors = params.vectors
    sizes = {name: each.size for name, each in vectors.items()} if isinstance(vectors, Mapping) else {}
    sparse = {
        name: each.modifier == models.Modifier.IDF for name, each in (params.sparse_vectors or {}).items()
    }
    return CollectionSpec(
        dense=sizes,
        sparse_with_idf=tuple(name for name, idf in sparse.items() if idf),
        sparse=tuple(name for name, idf in sparse.items() if not idf),
    )


def standing_spec(
    collection: str, params: models.CollectionParams, *, asked: CollectionSpec
) -> CollectionSpec:
    """What a collection holds. Raises ValueError if that is something else than asked for, pictures aside."""
    stands = house_spec(params)
    if not same_but_for_pictures(stands, asked):
        raise ValueError(
            f"collection {collection!r} exists with other vectors: it has {stands}, asked for {asked}; "
            "a release with other sizes gets a collection of its own"
        )
    return stands
