"""docs/similarity.md: its numbers are what the service computes, read out of the document and recomputed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.index_edge import EdgeIndex
from adapters.redis_client import RedisSettings, connect
from adapters.redis_items import ItemStore
from schemas.api import Answer, SimilarRequest
from schemas.vectors import BEHAVIOUR, CONTENT, LEXICAL, REVIEWS, Point, SparseVector, Vector, item_vectors
from service.catalogue import Catalogue
from service.fusion import evidence, freshness_factor
from service.presets import PRESETS
from service.query import QueryEngine
from service.seeds import length
from service.settings import ServiceSettings
from service.timing import Timings
from tests.service.shop import StaticReleases

TEXT = (Path(__file__).parents[2] / "docs" / "similarity.md").read_text()
#: However its lines are broken.
PROSE = " ".join(TEXT.split())
SETTINGS = ServiceSettings()
COLLECTION = "items__example__1"


def table(first: str) -> dict[str, list[str]]:
    """The rows of the table whose first heading is `first`, by their first cell, without backticks."""
    lines = TEXT[TEXT.index(f"\n| {first} |") :].strip().split("\n\n")[0].splitlines()
    rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in rows[2:]}


def numbers(cell: str) -> list[float]:
    return [float(found) for found in re.findall(r"-?\d+(?:\.\d+)?", cell)]


def only(pattern: str) -> float:
    """The one number in the document at the group of `pattern`."""
    (found,) = re.findall(pattern, PROSE)
    return float(found)


def weighted(cell: str) -> dict[str, float]:
    """`content 1, lexical 0.5` as a mapping."""
    return {name: float(value) for name, value in (pair.split() for pair in cell.split(", "))}


ITEMS, SHOPPERS = table("item"), table("shopper")
SHRINKAGE = only(r"the shrinkage is (\d+)")
PEOPLE = list(SHOPPERS)
WORDS = ["boot", "shoe", "sock", "trek"]


def shoppers_of(item: str) -> list[str]:
    return ITEMS[item][3].split(", ")


def behaviour(item: str) -> SparseVector:
    """The vector as the document defines it, from how much each shopper touched."""
    members = sorted(PEOPLE.index(name) for name in shoppers_of(item))
    weights = [1 / math.log2(2 + float(SHOPPERS[PEOPLE[member]][0])) for member in members]
    norm = math.sqrt(len(members) + SHRINKAGE)
    return SparseVector(tuple(members), tuple(weight / norm for weight in weights))


def words(item: str) -> SparseVector:
    grams = sorted((WORDS.index(word), value) for word, value in weighted(ITEMS[item][2]).items())
    return SparseVector(tuple(index for index, _ in grams), tuple(value for _, value in grams))


def point(item: str) -> Point:
    vectors: dict[str, Vector] = {CONTENT: numbers(ITEMS[item][0]), LEXICAL: words(item)}
    if ITEMS[item][1]:
        vectors[REVIEWS] = numbers(ITEMS[item][1])
    vectors[BEHAVIOUR] = behaviour(item)
    payload = {
        "product_id": item,
        "deleted": False,
        "revision": 1,
        "title": item,
        "category_path": ITEMS[item][4].split(" > "),
        "shoppers": len(shoppers_of(item)),
        "fingerprints": dict.fromkeys(vectors, "x"),
    }
    return Point(item, vectors, payload)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeIndex]:
    """The three items of the document."""
    index = EdgeIndex(tmp_path_factory.mktemp("index"))
    index.ensure_collection(COLLECTION, item_vectors(2))
    index.set_alias("items", COLLECTION)
    index.upsert(COLLECTION, [point(item) for item in ITEMS], ticket=1)
    yield index
    index.close()


@pytest.fixture(scope="module")
def engine(index: EdgeIndex) -> Iterator[QueryEngine]:
    """The query engine over them."""
    nobody = connect(RedisSettings(url="redis://127.0.0.1:1/0"))
    catalogue = Catalogue(index=index, store=ItemStore(client=nobody), releases=StaticReleases())
    yield QueryEngine(catalogue=catalogue, settings=SETTINGS)
    nobody.close()


def asked(engine: QueryEngine, **options: Any) -> Answer:
    request = SimilarRequest.model_validate({"seeds": [{"item_id": "boot"}], **options})
    return engine.similar(request, Timings())


def close(value: float) -> Any:
    """Equal to the three digits that the document shows."""
    return pytest.approx(value, abs=6e-4)


def test_the_weights_of_shoppers_are_those_of_the_formula() -> None:
    for name, (touched, weight) in SHOPPERS.items():
        assert 1 / math.log2(2 + float(touched)) == close(float(weight)), name
    assert only(r"The entry of u1 in the boot's vector is 0.5 / sqrt\(4 \+ 2\) = (\S+),") == close(
        behaviour("boot").values[0]
    )
    assert only(r"in the shoe's 0.5 / sqrt\(1 \+ 2\) = (\d\.\d+)") == close(behaviour("shoe").values[0])
    assert only(r"the length (\d\.\d+)") == close(length(behaviour("boot")))


def test_the_scores_in_each_dimension_are_those_of_the_engine(engine: QueryEngine) -> None:
    hits = {hit.item_id: hit for hit in asked(engine).items}
    assert set(hits) == {"shoe", "sock"}
    for dimension, cells in table("dimension | shoe").items():
        for item, cell in zip(("shoe", "sock"), cells, strict=True):
            found = hits[item].dimensions.get(dimension)
            assert (found is not None) == bool(cell), (dimension, item)
            if found is not None:
                assert found.score == close(float(cell)), (dimension, item)


def test_the_fused_scores_are_those_of_the_engine(engine: QueryEngine) -> None:
    rows = table("score")
    for name, answer in (
        ("default", asked(engine)),
        ("complements", asked(engine, preset="complements")),
    ):
        scores = {hit.item_id: hit.score for hit in answer.items}
        shoe, sock = (float(cell) for cell in rows[name])
        assert scores == {"shoe": close(shoe), "sock": close(sock)}, name
    written = re.search(r"with the default weights \(([^)]*)\)", PROSE, re.I)
    assert written is not None
    assert weighted(written.group(1)) == SETTINGS.weights


def test_what_words_are_worth_is_what_the_index_says(index: EdgeIndex) -> None:
    boot, trek = index.idf(COLLECTION, LEXICAL, [WORDS.index("boot"), WORDS.index("trek")])
    assert only(r"is worth ln\(1\.5 / 2\.5 \+ 1\) = (\d\.\d+)") == close(trek)
    assert only(r"in one and is worth (\d\.\d+)") == close(boot)
    assert only(r"0\.6² \* 0\.470 = (\d\.\d+)") == close(0.8**2 * boot + 0.6**2 * trek)


def test_evidence_is_that_of_the_default_setting() -> None:
    for shoppers, (cell,) in table("shoppers").items():
        assert evidence(float(shoppers), SETTINGS.evidence_shoppers) == close(float(cell))
    assert only(r"with the default, k = (\d+):") == SETTINGS.evidence_shoppers
    assert only(r"evidence is e\(4\) = (\d\.\d+)") == close(evidence(4, SETTINGS.evidence_shoppers))


def test_the_presets_are_those_of_the_code() -> None:
    rows = table("preset")
    assert set(rows) == set(PRESETS)
    for name, (weights, options, _) in rows.items():
        preset = PRESETS[name]  # type: ignore[index]
        assert weighted(weights) == preset.weights, name
        said = {word.split()[0]: word.split()[1:] for word in options.split(", ")}
        expected: dict[str, list[str]] = {}
        for option in ("same_category", "freshness", "diversity"):
            if getattr(preset, option):
                expected[option] = [f"{getattr(preset, option):g}"]
        if ratio := preset.filter.get("price_ratio"):
            expected["price_ratio"] = [f"{ratio.min:g}", "to", f"{ratio.max:g}"]
        if group := preset.filter.get("group"):
            expected["group"] = [group]
        if preset.relations:
            expected["relations"] = [f"{preset.relations_weight:g}"]
            assert preset.relations == name
        assert said == expected, name


def test_ages_and_half_lives_are_those_of_the_settings() -> None:
    days = SETTINGS.freshness_half_life_days
    for age, kept in (
        (days, only(r"14 days old keeps (\d\.\d+) of its score")),
        (2 * days, only(r"28 days old (\d\.\d+)\.")),
    ):
        assert freshness_factor(0.4, age, days) == close(kept)
    assert only(r"FRESHNESS_HALF_LIFE_DAYS` \((\d+)\)") == days
    assert only(r"`half_life_seconds` \(default (\d+),400\)") * 1000 + 400 == SETTINGS.half_life_seconds
    assert only(r"the user's last (\d+) items") == SETTINGS.recent_items
    assert only(r"each one (\S+) of the weight of the next") == SETTINGS.recent_decay
    assert only(r"proposes candidates \((\d+)\)") == SETTINGS.candidates
    assert only(r"The best of them \((\d+)\)") == SETTINGS.rescored
