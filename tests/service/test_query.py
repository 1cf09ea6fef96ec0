"""service/query.py and service/ranking.py over a real index: one fused score, filters, caps, explanations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from adapters.index_port import collection_name
from schemas.api import Answer, SearchRequest, SimilarRequest
from schemas.vectors import CONTENT, LEXICAL, item_vectors
from service.errors import (
    DeletedItem,
    NotSearchableYet,
    Unanswerable,
    Unavailable,
    UnknownItem,
    UnknownRelease,
)
from service.settings import ServiceSettings
from service.timing import Timings
from tests.service.shop import COLLECTION, PRODUCTS, Shop, StaticReleases, product

BY_ID = {event.product_id: event for event in PRODUCTS}
ODD = "odd/ü<b>&/similar"


#: What most of these tests weigh; all four dimensions have tests of their own below.
TEXT = {"content": 1, "lexical": 1.5}


def ask(shop: Shop, *, settings: ServiceSettings | None = None, **body: Any) -> Answer:
    """The answer; variants apart and text alone, unless the test asks for something else."""
    body.setdefault("limit", 20)
    if "preset" not in body:
        body.setdefault("weights", TEXT)
        body["filter"] = {"group": "any", **body.get("filter", {})}
    return shop.engine(settings).similar(SimilarRequest.model_validate(body), Timings())


def ids(answer: Answer) -> list[str]:
    return [hit.item_id for hit in answer.items]


def seeds(*item_ids: str) -> list[dict[str, Any]]:
    return [{"item_id": item_id} for item_id in item_ids]


def idf(shop: Shop, index: int) -> float:
    """Qdrant's IDF, from the texts of the shop."""
    count = len(PRODUCTS)
    having = sum(index in shop.recipe.lexical(event).indices for event in PRODUCTS)
    return math.log((count - having + 0.5) / (having + 0.5) + 1)


def oracle(shop: Shop, seed: str, hit: str) -> dict[str, float]:
    """Both scores of a pair, computed from their texts alone."""
    query = dict(zip(*shop.recipe.lexical(BY_ID[seed]), strict=True))
    other = dict(zip(*shop.recipe.lexical(BY_ID[hit]), strict=True))
    itself = sum(value * value * idf(shop, index) for index, value in query.items())
    raw = sum(value * other.get(index, 0.0) * idf(shop, index) for index, value in query.items())
    return {
        CONTENT: float(np.dot(shop.encode(BY_ID[seed]), shop.encode(BY_ID[hit]))),
        LEXICAL: raw / itself,
    }


def test_every_hit_has_exact_scores_in_every_dimension_and_their_weighted_mean(shop: Shop) -> None:
    answer = ask(shop, seeds=seeds("s1"), weights={"content": 1, "lexical": 3})
    assert set(ids(answer)) == set(BY_ID) - {"s1"}
    for hit in answer.items:
        wanted = oracle(shop, "s1", hit.item_id)
        for name, score in wanted.items():
            assert hit.dimensions[name].score == pytest.approx(score, abs=2e-3), (hit.item_id, name)
        assert hit.score == pytest.approx((wanted[CONTENT] + 3 * wanted[LEXICAL]) / 4, abs=2e-3)
    scores = [hit.score for hit in answer.items]
    assert scores == sorted(scores, reverse=True)
    assert answer.release_id == "r1"


def test_an_item_that_one_dimension_did_not_propose_is_no_zero_there(shop: Shop) -> None:
    # Ten candidates a dimension are fewer than the shop has: some hits come from one of them alone.
    settings = ServiceSettings(candidates=10, rescored=10)
    answer = ask(shop, settings=settings, seeds=seeds("s1"), limit=3)
    for hit in answer.items:
        assert set(hit.dimensions) == {CONTENT, LEXICAL}
        assert hit.dimensions[CONTENT].score == pytest.approx(
            oracle(shop, "s1", hit.item_id)[CONTENT], abs=2e-3
        )


def test_queries_by_item_never_run_the_encoder(shop: Shop) -> None:
    before = shop.encoder.calls
    ask(shop, seeds=[*seeds("s1"), {"item_id": "c1", "weight": -0.5}], explain=True)
    assert shop.encoder.calls == before
    # The control: an inline seed does.
    ask(shop, seeds=[{"item": {"title": "trail shoe"}}])
    assert shop.encoder.calls == before + 1


def test_queries_by_item_are_answered_where_the_release_is_not_loaded(shop: Shop) -> None:
    bare = shop.engine(releases=StaticReleases())
    request = SimilarRequest.model_validate({"seeds": seeds("s1"), "explain": True})
    answer = bare.similar(request, Timings())
    assert answer.items
    assert answer.notes == ["explanations name no shared terms: the release's text recipe is not loaded here"]
    with pytest.raises(Unavailable) as refused:
        bare.search(SearchRequest(text="shoe"), Timings())
    assert refused.value.store == "encoder"


def test_an_item_compared_with_its_own_fields_inline_scores_one(shop: Shop) -> None:
    fields = BY_ID["s3"].model_dump(mode="json", exclude={"kind", "product_id", "revision", "occurred_at"})
    best = ask(shop, seeds=[{"item": fields}], limit=1).items[0]
    assert best.item_id == "s3"
    assert best.score == pytest.approx(1.0, abs=2e-3)


def test_a_negative_seed_pushes_its_like_down(shop: Shop) -> None:
    towards = ask(shop, seeds=seeds("s1", "c1"))
    away = ask(shop, seeds=[*seeds("s1"), {"item_id": "c1", "weight": -0.8}])
    assert ids(towards).index("c2") < ids(away).index("c2")
    assert "c1" not in ids(away)


def test_a_text_is_one_more_seed_and_search_is_a_text_alone(shop: Shop) -> None:
    found = shop.engine().search(SearchRequest(text="espresso", limit=2), Timings())
    assert set(ids(found)) == {"c1", "c2"}
    mixed = ask(shop, seeds=seeds("s1"), text="espresso machine steel", limit=20)
    assert ids(mixed).index("c1") < ids(ask(shop, seeds=seeds("s1"))).index("c1")


def test_weights_decide_which_dimension_ranks(shop: Shop) -> None:
    words = ask(shop, seeds=seeds("s1"), weights={"lexical": 1})
    assert all(set(hit.dimensions) == {LEXICAL} for hit in words.items)
    against = ask(shop, seeds=seeds("s1"), weights={"content": 1, "lexical": -1})
    hit = against.items[0]
    scores = hit.dimensions[CONTENT].score, hit.dimensions[LEXICAL].score
    assert hit.score == pytest.approx((scores[0] - scores[1]) / 2, abs=1e-5)


def test_a_hit_without_words_is_judged_by_its_content(fresh_shop: Shop) -> None:
    event = product("wordless", "Norda 001 trail running shoe black", brand="Norda")
    vector = fresh_shop.encode(event)
    fresh_shop.upsert([fresh_shop.point(event, vectors={CONTENT: vector})])
    hit = next(hit for hit in ask(fresh_shop, seeds=seeds("s1")).items if hit.item_id == "wordless")
    assert set(hit.dimensions) == {CONTENT}
    assert hit.score == hit.dimensions[CONTENT].score


def test_a_dimension_that_the_seed_does_not_have_is_left_out(shop: Shop) -> None:
    answer = ask(shop, seeds=seeds("z1"), weights={"content": 1, "reviews": 2, "behaviour": 2})
    assert answer.notes == []
    assert all(set(hit.dimensions) == {CONTENT} for hit in answer.items)
    with pytest.raises(Unanswerable):
        ask(shop, seeds=seeds("z1"), weights={"reviews": 1})


def test_seeds_that_cancel_out_are_refused(shop: Shop) -> None:
    with pytest.raises(Unanswerable):
        ask(shop, seeds=[{"item_id": "s1"}, {"item_id": "s1", "weight": -1}])


@pytest.mark.parametrize("explain", [False, True])
def test_seeds_of_which_only_dislikes_are_left_are_refused(shop: Shop, explain: bool) -> None:
    old = {"item_id": "s1", "occurred_at": "1971-01-01T00:00:00Z"}
    disliked = {"item_id": "s3", "weight": -1, "occurred_at": "2026-01-01T00:00:00Z"}
    with pytest.raises(Unanswerable, match="half-lives older than the newest"):
        ask(shop, seeds=[old, disliked], explain=explain)
    assert ask(shop, seeds=[old, disliked], half_life_seconds=1e9, explain=explain).items
    assert ask(shop, seeds=[old, disliked], text="shoe", explain=explain).items


def test_a_dimension_that_the_collection_does_not_have_is_noted(shop: Shop) -> None:
    note = "weights.image was ignored: the collection holds no pictures"
    assert ask(shop, seeds=seeds("s1"), weights={"content": 1, "image": 1}).notes == [note]
    assert ask(shop, seeds=seeds("s1"), weights={"content": 1, "image": 0}).notes == []


def test_a_collection_with_pictures_has_nothing_to_note(fresh_shop: Shop) -> None:
    other = collection_name("r2")
    fresh_shop.index.ensure_collection(other, item_vectors(32, image=8))
    fresh_shop.upsert([fresh_shop.point(BY_ID["s1"]), fresh_shop.point(BY_ID["s3"])], other)
    answer = ask(fresh_shop, seeds=seeds("s1"), weights={"content": 1, "image": 1}, release_id="r2")
    assert (ids(answer), answer.notes) == (["s3"], [])


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"in_stock": True}, {"s2", "s3", "s4", "s6", "s7", "s8", "c1", "c2"}),
        ({"in_stock": False}, {"s5"}),
        ({"category": ["Kitchen"]}, {"c1", "c2"}),
        ({"category": ["Sport > Shoes"]}, {"s2", "s3", "s4", "s5", "s6", "s7", "s8"}),
        ({"brand": ["salomon", "Hoka"]}, {"s5", "s6", "s7"}),
        ({"attributes": {"colour": ["BLUE"]}}, {"s6", "s8"}),
        ({"price": {"max": "100", "currency": "EUR"}}, {"s2", "s5"}),
        ({"price": {"currency": "USD"}}, {"s7"}),
        ({"price_ratio": {"min": 1.2, "max": 1.3}}, {"s3", "s4", "s8"}),
        ({"exclude": ["s2", "s3"], "category": ["Shoes"]}, {"s4", "s5", "s6", "s7", "s8"}),
        ({"category": ["nowhere"]}, set()),
    ],
)
def test_filters_decide_who_may_be_a_hit(shop: Shop, wanted: dict[str, Any], expected: set[str]) -> None:
    assert set(ids(ask(shop, seeds=seeds("s1"), filter=wanted))) == expected


def test_a_filter_works_before_the_best_are_chosen(shop: Shop) -> None:
    settings = ServiceSettings(candidates=10, rescored=10)
    answer = ask(shop, settings=settings, seeds=seeds("s1"), limit=1, filter={"category": ["Kitchen"]})
    assert ids(answer)[0] in {"c1", "c2"}


def test_a_price_without_currency_is_compared_with_its_like_only(fresh_shop: Shop) -> None:
    fresh_shop.publish([product("n1", "boot plain", price="60"), product("n2", "boot", price="6000")])
    answer = ask(fresh_shop, seeds=seeds(ODD), filter={"price_ratio": {"min": 0.5, "max": 2.5}})
    assert ids(answer) == ["n1"]


def test_a_brand_cap_leaves_room_for_others_and_fills_the_limit(shop: Shop) -> None:
    free = ask(shop, seeds=seeds("s1"), limit=4)
    assert sum(hit.item.brand == "Norda" for hit in free.items) > 1
    capped = ask(shop, seeds=seeds("s1"), limit=4, filter={"brand_cap": 1})
    brands = [(hit.item.brand or hit.item_id).casefold() for hit in capped.items]
    assert len(brands) == len(set(brands)) == 4


def test_a_brand_cap_looks_beyond_the_first_candidates(fresh_shop: Shop) -> None:
    fresh_shop.publish(
        [
            product(f"n{number}", f"Norda 001 trail running shoe black {number}", brand="Norda")
            for number in range(40)
        ]
    )
    settings = ServiceSettings(candidates=10, rescored=10)
    capped = ask(fresh_shop, settings=settings, seeds=seeds("s1"), limit=5, filter={"brand_cap": 1})
    assert len(capped.items) == 5
    assert sum(hit.item.brand == "Norda" for hit in capped.items) == 1


def test_variants_collapse_to_the_nearest_and_those_of_the_seed_disappear(shop: Shop) -> None:
    request = SimilarRequest.model_validate({"seeds": seeds("s1"), "weights": TEXT, "limit": 20})
    collapsed = shop.engine().similar(request, Timings())
    groups = [hit.item.group_id for hit in collapsed.items if hit.item.group_id]
    assert groups == ["norda-002"]
    assert "s2" in ids(ask(shop, seeds=seeds("s1"), filter={"group": "any"}))


def test_a_minimum_score_cuts_the_tail(shop: Shop) -> None:
    everything = ask(shop, seeds=seeds("s1"))
    bound = everything.items[2].score
    kept = ask(shop, seeds=seeds("s1"), filter={"min_score": bound - 1e-6})
    assert ids(kept) == ids(everything)[:3]


@pytest.mark.parametrize("group", ["collapse", "any"])
def test_what_a_factor_takes_below_a_minimum_score_does_not_end_the_search(
    fresh_shop: Shop, group: str
) -> None:
    path = {"category": ["A"]}
    same = "boot leather brown"
    foreign = [product(f"f{place}", f"{same} {place}", category=["B"]) for place in range(30)]
    own = [product(f"o{place}", f"{same} winter hiking number {place}", **path) for place in range(12)]
    near = [product(f"v{place}", f"{same} winter {place}", group_id="g", **path) for place in range(15)]
    fresh_shop.publish([product("q", same, **path), *foreign, *near, *own])
    few = ServiceSettings(candidates=10, rescored=10)
    wanted = {"seeds": seeds("q"), "limit": 10, "same_category": 0.9}
    free = ask(fresh_shop, settings=few, **wanted, filter={"group": group, "category": ["A"]})
    bound = min(hit.score for hit in free.items)
    answer = ask(fresh_shop, settings=few, **wanted, filter={"group": group, "min_score": bound - 0.05})
    assert len(free.items) == 10
    assert ids(answer) == ids(free)


def test_a_seed_that_is_missing_is_told_apart(fresh_shop: Shop) -> None:
    waiting, gone = product("new", "not encoded yet"), product("gone", "old boot")
    fresh_shop.write_state([waiting])
    fresh_shop.publish([gone])
    later = gone.model_copy(update={"revision": 8})
    fresh_shop.write_state([later], deleted=True)
    fresh_shop.upsert([fresh_shop.tombstone("gone")])
    for item_id, error in (("nowhere", UnknownItem), ("new", NotSearchableYet), ("gone", DeletedItem)):
        with pytest.raises(error):
            ask(fresh_shop, seeds=seeds("s1", item_id))
    assert "gone" not in ids(ask(fresh_shop, seeds=seeds(ODD)))


def test_a_release_is_asked_for_by_name_and_no_request_mixes_two(fresh_shop: Shop) -> None:
    with pytest.raises(UnknownRelease):
        ask(fresh_shop, seeds=seeds("s1"), release_id="r2")
    other = collection_name("r2")
    fresh_shop.index.ensure_collection(other, item_vectors(32))
    moved = product("s1", "espresso machine steel")
    fresh_shop.upsert([fresh_shop.point(moved), fresh_shop.point(BY_ID["c2"])], other)
    candidate = ask(fresh_shop, seeds=seeds("s1"), release_id="r2")
    assert (candidate.release_id, ids(candidate)) == ("r2", ["c2"])
    assert ask(fresh_shop, seeds=seeds("s1")).release_id == "r1"
    with pytest.raises(Unavailable):
        ask(fresh_shop, text="espresso", release_id="r2")


def test_explanations_name_what_seed_and_hit_share(shop: Shop) -> None:
    answer = ask(shop, seeds=seeds("s1"), explain=True)
    hit = next(hit for hit in answer.items if hit.item_id == "s3")
    assert hit.explanation is not None
    shared = hit.explanation.shared
    assert {"Norda", "trail", "running", "shoe"} <= set(shared.terms)
    assert "black" not in shared.terms
    assert (shared.brand, shared.category, shared.price_ratio) == ("Norda", ["Sport", "Shoes"], 1.2)
    assert sum(hit.explanation.shares.values()) == pytest.approx(1.0, abs=1e-3)
    assert all(hit.explanation is None for hit in ask(shop, seeds=seeds("s1")).items)


def test_what_the_index_shows_of_a_hit_is_what_the_event_said(shop: Shop) -> None:
    hit = next(hit for hit in ask(shop, seeds=seeds("s1")).items if hit.item_id == "s6")
    assert hit.item.model_dump(exclude_none=True) == {
        "item_id": "s6",
        "revision": 7,
        "title": "Salomon Sense trail running shoe blue",
        "brand": "SALOMON",
        "category": ["Sport", "Shoes"],
        "price": "210",
        "currency": "EUR",
        "in_stock": True,
        "opinions": [],
    }


def test_nothing_live_is_a_reason_to_wait(fresh_shop: Shop) -> None:
    assert fresh_shop.index.resolve("items") == COLLECTION
    engine = fresh_shop.engine(alias="elsewhere")
    with pytest.raises(Unavailable, match="no collection is live"):
        engine.similar(SimilarRequest.model_validate({"seeds": seeds("s1")}), Timings())
