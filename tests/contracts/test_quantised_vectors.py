"""Quantised dense vectors keep the contract, and a collection keeps what it was made with."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from adapters.index import IndexSettings
from adapters.index_edge import EdgeIndex
from adapters.index_port import Quantisation, VectorIndex
from adapters.index_server import ServerIndex
from schemas.vectors import CollectionSpec, DimensionQuery, FusedQuery, Point
from tests.contracts import test_index_contract as contract
from tests.contracts.conftest import SPEC, real_server_url

CHECKS: tuple[Callable[[VectorIndex, str], None], ...] = (
    contract.test_exact_scores_are_cosines_and_idf_weighted_sums,
    partial(
        contract.test_fused_candidates_are_the_weighted_sum_best_first, dense_weight=1.0, sparse_weight=0.5
    ),
)
Open = Callable[[Quantisation], VectorIndex]


@pytest.fixture(params=["edge", "rest", "server"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens one backend with a quantisation; what it opened before is closed then."""
    url = ""
    if request.param != "edge":
        url = request.getfixturevalue("rest_server").url if request.param == "rest" else real_server_url()
    before: list[VectorIndex] = []

    def open_it(quantisation: Quantisation) -> VectorIndex:
        for index in before:
            index.close()
        if url:
            made: VectorIndex = ServerIndex.connect(IndexSettings(url=url, quantisation=quantisation))
        else:
            made = EdgeIndex(tmp_path / "index", quantisation=quantisation)
        before[:] = [made]
        return made

    yield open_it
    for index in before:
        index.close()


def name() -> str:
    return f"items__release-{uuid.uuid4().hex[:12]}__1"


@pytest.mark.parametrize("quantisation", ["int8", "binary"])
def test_a_quantised_collection_keeps_the_contract(opened: Open, quantisation: Quantisation) -> None:
    index = opened(quantisation)
    for check in CHECKS:
        collection = name()
        index.ensure_collection(collection, SPEC)
        check(index, collection)
        index.drop_collection(collection)


def test_a_collection_keeps_what_it_was_made_with_and_says_so_and_a_new_one_is_as_set(
    opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    older, newer = name(), name()
    opened("none").ensure_collection(older, SPEC)
    index = opened("int8")
    with caplog.at_level(logging.WARNING):
        index.ensure_collection(newer, SPEC)
        assert not caplog.records
        index.ensure_collection(older, SPEC)
    (said,) = caplog.records
    assert f"collection={older} stands=none set=int8" in said.getMessage()
    # Both are searched as they are, also by somebody who has not made them, or has another setting.
    for quantisation in ("int8", "none"):
        index = opened(quantisation)
        for collection in (older, newer):
            CHECKS[-1](index, collection)
    caplog.clear()
    index.ensure_collection(newer, SPEC)
    assert f"collection={newer} stands=int8 set=none" in caplog.text
    for collection in (older, newer):
        index.drop_collection(collection)


@pytest.mark.parametrize("quantisation", ["int8", "binary"])
def test_rescored_candidates_are_the_nearest(tmp_path: Path, quantisation: Quantisation) -> None:
    """What one bit a number leaves of 300 vectors is a poor order; the originals put it right."""
    draw = np.random.default_rng(1)
    vectors = draw.standard_normal((300, 64))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    spec = CollectionSpec(dense={"content": 64}, sparse_with_idf=())
    index, collection = EdgeIndex(tmp_path, quantisation=quantisation), name()
    index.ensure_collection(collection, spec)
    points = [
        Point(f"p{row}", {"content": vector.tolist()}, {"product_id": f"p{row}"})
        for row, vector in enumerate(vectors)
    ]
    index.upsert(collection, points, ticket=1)
    index.close()
    index = EdgeIndex(tmp_path)  # what the folder says counts
    for row in range(0, 300, 30):
        query = DimensionQuery("content", vectors[row].tolist(), 1.0, candidates=100)
        hits = index.candidates(collection, FusedQuery((query,), limit=10))
        scores = vectors @ vectors[row]
        assert [hit.product_id for hit in hits] == [f"p{one}" for one in np.argsort(-scores)[:10]]
        assert hits[0].score == pytest.approx(1.0)
    index.close()
