"""The vector `image` on every index: of those points that have one, and of those collections made with it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from adapters.index_port import VectorIndex
from schemas.vectors import CONTENT, IMAGE, DimensionQuery, FusedQuery, Point, Vector, item_vectors

TEXT = [1.0, 0.0, 0.0, 0.0]
WITH, WITHOUT = item_vectors(4, 3), item_vectors(4)


@pytest.fixture
def name(index: VectorIndex) -> Iterator[str]:
    """A name for a collection that goes away."""
    found = f"items__release-{uuid.uuid4().hex[:12]}__1"
    yield found
    index.drop_collection(found)


def point(product_id: str, image: list[float] | None) -> Point:
    vectors: dict[str, Vector] = {CONTENT: TEXT}
    if image is not None:
        vectors[IMAGE] = image
    return Point(product_id, vectors, {"product_id": product_id, "deleted": False})


def test_a_missing_picture_is_no_score_and_the_others_are_cosines(index: VectorIndex, name: str) -> None:
    assert index.ensure_collection(name, WITH).dense == WITH.dense
    points = [point("red", [1, 0, 0]), point("pink", [0.8, 0.6, 0]), point("none", None)]
    index.upsert(name, points, ticket=1)
    query = DimensionQuery(IMAGE, [1.0, 0.0, 0.0], 1.0)
    (found,) = index.scores(name, [query], ["red", "pink", "none"])
    assert found == pytest.approx({"red": 1.0, "pink": 0.8}, abs=1e-3)
    both = FusedQuery((query, DimensionQuery(CONTENT, TEXT, 1.0)), limit=3)
    ranked = index.candidates(name, both)
    assert [one.product_id for one in ranked] == ["red", "pink", "none"]
    stored = index.fetch(name, ["red", "none"], vectors=True)
    assert IMAGE not in stored["none"].vectors
    assert list(stored["red"].vectors[IMAGE]) == pytest.approx([1.0, 0.0, 0.0], abs=1e-3)


def test_a_picture_that_is_gone_leaves_with_the_next_write(index: VectorIndex, name: str) -> None:
    index.ensure_collection(name, WITH)
    index.upsert(name, [point("red", [1, 0, 0])], ticket=1)
    index.upsert(name, [point("red", None)], ticket=2)
    assert set(index.fetch(name, ["red"], vectors=True)["red"].vectors) == {CONTENT}


@pytest.mark.parametrize("made_with", [WITH, WITHOUT], ids=["with", "without"])
def test_a_collection_keeps_pictures_or_does_without_as_it_was_made(
    index: VectorIndex, name: str, made_with: object
) -> None:
    made = WITH if made_with is WITH else WITHOUT
    index.ensure_collection(name, made)
    for asked in (WITH, WITHOUT, item_vectors(4, 7)):
        assert index.ensure_collection(name, asked).dense == made.dense
        stands = index.spec_of(name)
        assert (stands.dense, set(stands.sparse_with_idf), set(stands.sparse)) == (
            made.dense,
            set(made.sparse_with_idf),
            set(made.sparse),
        )
    with pytest.raises(ValueError, match="exists with other vectors"):
        index.ensure_collection(name, item_vectors(5, 3))
