"""The shop's rules in answers: barriers, bridges, pairs, boosts, blocks; explained, reloaded in service."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from schemas.api import Answer, Hit, SearchRequest, SimilarRequest
from schemas.events import ProductUpserted
from service import ranking
from service.rulebook import RuleBook, RuleSettings, parsed
from service.rules import CompiledRules
from service.settings import ServiceSettings
from service.timing import Timings
from tests.service.shop import Shop, product
from tests.support.fake_behaviour import FakeBehaviour, visits

DURING = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
TEXT = {"content": 1, "lexical": 1.5}


def asked(shop: Shop, rules: str, *seeds: str, now: datetime = DURING, **body: Any) -> Answer:
    compiled = CompiledRules(parsed(rules.encode()))
    engine = shop.engine(body.pop("settings", None), rules=compiled, clock=lambda: now)
    wanted = {
        "seeds": [{"item_id": seed} for seed in seeds],
        "weights": TEXT,
        "limit": 20,
        "explain": True,
        **body,
    }
    wanted["filter"] = {"group": "any", **wanted.get("filter", {})}
    return engine.similar(SimilarRequest.model_validate(wanted), Timings())


def ids(answer: Answer) -> list[str]:
    return [hit.item_id for hit in answer.items]


def shop_rules(hit: Hit) -> list[tuple[str, str]]:
    assert hit.explanation is not None
    return [(rule.kind, rule.rule) for rule in hit.explanation.rules.shop]


def hit_of(answer: Answer, item_id: str) -> Hit:
    (hit,) = (hit for hit in answer.items if hit.item_id == item_id)
    return hit


def test_without_rules_nothing_is_named(shop: Shop) -> None:
    answer = asked(shop, "", "s1")
    assert {"s3", "c1", "s8"} <= set(ids(answer))
    assert all(shop_rules(hit) == [] for hit in answer.items)


@pytest.mark.parametrize(("seed", "gone", "left"), [("s1", {"c1", "c2"}, "s8"), ("c1", {"s1", "s8"}, "c2")])
def test_a_barrier_stands_in_both_directions_and_is_named(
    shop: Shop, seed: str, gone: set[str], left: str
) -> None:
    answer = asked(shop, "barriers: [{between: [Shoes, Home], reason: apart}]", seed)
    assert not gone & set(ids(answer))
    assert left in ids(answer)
    assert any("barriers[0] leaves out" in note and "(apart)" in note for note in answer.notes)
    # An item of neither side does not know it.
    assert {"s1", "c1"} <= set(ids(asked(shop, "barriers: [{between: [Shoes, Home]}]", "z1")))


def test_a_barrier_keeps_for_a_synonym_of_its_category(shop: Shop) -> None:
    rules = "synonyms: [[Trainers, Shoes]]\nbarriers: [{between: [Trainers, Home]}]"
    assert not {"c1", "c2"} & set(ids(asked(shop, rules, "s1")))


def test_a_synonym_widens_a_filter_and_is_the_same_category(shop: Shop) -> None:
    rules = "synonyms: [[Kitchen, Cookery]]"
    for wanted, found in ((rules, {"c2"}), ("", set())):
        assert set(ids(asked(shop, wanted, "c1", filter={"category": ["Cookery"]}))) == found
    same = "synonyms: [[Shoes, Kitchen], [Sport, Home]]"
    for rules, factor in ((same, None), ("", 0.2)):
        hit = hit_of(asked(shop, rules, "s1", same_category=0.8), "c1")
        assert hit.explanation is not None
        assert hit.explanation.rules.same_category == (None if factor is None else pytest.approx(factor))


def test_a_bridge_lifts_the_other_side_and_is_no_foreign_category(shop: Shop) -> None:
    rules = "bridges: [{between: [Shoes, Kitchen], factor: 3, name: break}]"
    plain, bridged = asked(shop, "", "s1"), asked(shop, rules, "s1")
    hit = hit_of(bridged, "c1")
    assert hit.score == pytest.approx(3 * hit_of(plain, "c1").score, abs=1e-4)
    assert shop_rules(hit) == [("bridge", "break")]
    assert shop_rules(hit_of(bridged, "s3")) == []
    strict = hit_of(asked(shop, rules, "s1", same_category=0.8), "c1")
    assert strict.explanation is not None
    assert strict.explanation.rules.same_category is None


def test_pairs_are_never_hits_of_each_other_or_always_in_front(shop: Shop) -> None:
    rules = "never_similar: [{items: [s3, s1]}]\nalways_similar: [{items: [c2, s1], name: sold together}]"
    answer = asked(shop, rules, "s1")
    assert "s3" not in ids(answer)
    assert ids(answer)[0] == "c2"
    assert shop_rules(answer.items[0]) == [("always_similar", "sold together")]
    assert answer.items[0].score < answer.items[1].score
    assert ids(asked(shop, rules, "c2"))[0] == "s1"
    assert "s1" not in ids(asked(shop, rules, "s3"))
    # Someone else's neighbours are as before.
    assert ids(asked(shop, rules, "s5")) == ids(asked(shop, "", "s5"))


def test_what_the_request_asks_for_goes_before_an_always_similar_pair(shop: Shop) -> None:
    rules = "always_similar: [{items: [c2, s1]}]"
    assert "c2" not in ids(asked(shop, rules, "s1", filter={"category": ["Shoes"]}))
    assert "c2" not in ids(asked(shop, rules, "s1", filter={"exclude": ["c2"]}))
    assert ids(asked(shop, rules, "s1", limit=1)) == ["c2"]
    assert ids(asked(shop, rules, "s1", diversity=0.5))[0] == "c2"
    assert ids(asked(shop, rules, "s1", filter={"min_score": 0.9})) == ["c2"]


def test_a_boost_and_a_demotion_hold_on_their_days_and_are_named(shop: Shop) -> None:
    rules = """
boosts: [{match: {brand: [HOKA]}, factor: 4, from: 2026-11-20, until: 2026-11-25}]
demotions: [{match: {brand: [Norda], attributes: {}}, factor: 0.01, name: sold out soon}]
"""
    plain, ruled = asked(shop, "", "s5"), asked(shop, rules, "s5")
    assert ids(ruled)[0] == "s7"
    assert hit_of(ruled, "s7").score == pytest.approx(min(1.0, 4 * hit_of(plain, "s7").score), abs=1e-4)
    assert shop_rules(ruled.items[0]) == [("boost", "boosts[0]")]
    assert shop_rules(hit_of(ruled, "s1")) == [("demotion", "sold out soon")]
    assert ids(ruled).index("s1") > ids(ruled).index("c2")
    # The day after the last is another day.
    after = asked(shop, rules, "s5", now=datetime(2026, 11, 26, 0, 0, tzinfo=UTC))
    assert shop_rules(hit_of(after, "s7")) == []
    last = asked(shop, rules, "s5", now=datetime(2026, 11, 25, 23, 59, tzinfo=UTC))
    assert shop_rules(hit_of(last, "s7")) == [("boost", "boosts[0]")]


def test_a_boost_is_for_what_meets_all_of_its_fields(shop: Shop) -> None:
    rules = "boosts: [{match: {brand: [Salomon], attributes: {colour: [Blue]}}, factor: 2}]"
    answer = asked(shop, rules, "s1")
    assert shop_rules(hit_of(answer, "s6")) == [("boost", "boosts[0]")]
    assert shop_rules(hit_of(answer, "s5")) == []


@pytest.mark.parametrize(
    ("rules", "gone"),
    [
        ("blocked: {items: [s3]}", {"s3"}),
        ("blocked: {words: [speedgoat]}", {"s7"}),
        ("blocked: {words: [ALTRA]}", {"s8"}),
        ("blocked: {words: [blue]}", {"s6", "s8"}),
        ("blocked: {words: [speed]}", set()),
        ("blocked: {words: [跑鞋]}", {"z1", "z2"}),
    ],
)
def test_blocked_items_and_whole_words_are_never_shown(shop: Shop, rules: str, gone: set[str]) -> None:
    everything = set(ids(asked(shop, "", "s1")))
    assert everything - set(ids(asked(shop, rules, "s1"))) == gone


def test_searches_and_recommendations_and_what_is_trending_obey_too(shop: Shop, tmp_path: Path) -> None:
    rules = "blocked: {items: [s3]}\nboosts: [{match: {brand: [Altra]}, factor: 10}]"
    compiled = CompiledRules(parsed(rules.encode()))
    found = shop.engine(rules=compiled).search(SearchRequest(text="trail running shoe"), Timings())
    assert found.items[0].item_id == "s8"
    assert "s3" not in ids(found)
    path = tmp_path / "rules.yaml"
    path.write_text(rules)
    shopped = {"u": visits("s1")}
    fake = FakeBehaviour(shopped=shopped, windows={"24h": {"s3": 3.0, "s5": 2.0}, "7d": {"s3": 3.0}})
    with TestClient(shop.app(behaviour=fake, rules=RuleBook(RuleSettings(file=path)))) as client:
        own = Answer.model_validate_json(client.get("/v1/users/u/recommendations?limit=20").content)
        assert "s3" not in ids(own)
        assert ids(own)[0] == "s8"
        assert ids(Answer.model_validate_json(client.get("/v1/trending").content)) == ["s5"]
        cold = Answer.model_validate_json(client.get("/v1/users/nobody/recommendations").content)
        assert ids(cold) == []
        batch = client.post("/v1/similar/batch", json={"queries": [{"seeds": [{"item_id": "s1"}]}]})
        assert batch.json()["answers"][0]["answer"]["items"][0]["item_id"] == "s8"


# --- full answers ----------------------------------------------------------------------------------


def _many(number: int, **fields: Any) -> list[ProductUpserted]:
    """Near copies of one another, the earlier the nearer to the first."""
    return [
        product(
            f"{fields.get('brand', 'x')}-{place}",
            "Trail running shoe " + " ".join(f"word{word}" for word in range(place)),
            **fields,
        )
        for place in range(number)
    ]


@pytest.fixture
def crowded(fresh_shop: Shop) -> Shop:
    """Sixty of Near around the seed, twenty of Far below them, one lamp that is unlike all."""
    near, far = _many(60, brand="Near"), _many(20, brand="Far", category=["Other"])
    lamp = product("lamp", "Trail lamp of brass", category=["Lights"], brand="Lumen")
    fresh_shop.publish([*near, *far, lamp])
    return fresh_shop


def answered(shop: Shop, rules: str, **body: Any) -> Answer:
    few = ServiceSettings(candidates=10, rescored=10)
    return asked(shop, rules, "Near-0", settings=few, **{"limit": 5, **body})


def test_answers_stay_full_when_all_candidates_are_blocked_or_demoted(crowded: Shop) -> None:
    assert {hit.item.brand for hit in answered(crowded, "").items} >= {"Near"}
    for rules in (
        "blocked: {words: [Near, Far, Norda]}",
        f"blocked: {{items: [{', '.join(f'Near-{place}' for place in range(60))}]}}",
        "demotions: [{match: {brand: [Near, Far]}, factor: 0.001}]",
    ):
        answer = answered(crowded, rules)
        assert len(answer.items) == 5, rules
        assert "Near" not in {hit.item.brand for hit in answer.items}, rules


def test_one_round_would_not_fill_them(crowded: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "MAX_ROUNDS", 1)
    answer = answered(crowded, "blocked: {words: [Near, Far, Norda]}")
    assert len(answer.items) < 5


def test_what_is_lifted_or_pinned_is_found_below_all_candidates(crowded: Shop) -> None:
    for rules in ("", "demotions: [{match: {brand: [Near, Far]}, factor: 0.01}]"):
        assert "lamp" not in ids(answered(crowded, rules)), rules
    for rules in (
        "always_similar: [{items: [Near-0, lamp]}]",
        "boosts: [{match: {items: [lamp]}, factor: 10}]\n"
        "demotions: [{match: {brand: [Near, Far]}, factor: 0.01}]",
        "boosts: [{match: {brand: [lumen], category: [Lights]}, factor: 10}]\n"
        "demotions: [{match: {brand: [Near, Far]}, factor: 0.01}]",
    ):
        assert "lamp" in ids(answered(crowded, rules)), rules


@pytest.mark.parametrize("weights", [{"lexical": 1}, {"reviews": 1}, {"behaviour": 1}])
def test_a_pair_is_in_front_where_the_dimensions_asked_for_cannot_find_it(
    shop: Shop, weights: dict[str, float]
) -> None:
    rules = "always_similar: [{items: [c1, z1]}]"
    answer = asked(shop, rules, "c1", weights=weights, limit=3)
    assert "z1" not in ids(asked(shop, "", "c1", weights=weights))
    hit = answer.items[0]
    assert (hit.item_id, hit.score) == ("z1", 0.0)
    assert all(one.score == 0.0 for one in hit.dimensions.values())
    assert hit.explanation is not None
    assert set(hit.explanation.shares.values()) <= {0.0}
    assert shop_rules(hit) == [("always_similar", "always_similar[0]")]
    assert len(answer.items) == 3
    several = asked(shop, rules, "c1", "s1", weights=weights)
    assert several.items[0].item_id == "z1"
    # What the request asks for, and what the shop never shows, goes before.
    assert "z1" not in ids(asked(shop, rules, "c1", weights=weights, filter={"brand": ["Gaggia"]}))
    assert "z1" not in ids(asked(shop, rules, "c1", weights=weights, filter={"exclude": ["z1"]}))
    assert "z1" not in ids(asked(shop, f"{rules}\nblocked: {{items: [z1]}}", "c1", weights=weights))


def test_a_pair_with_an_item_that_is_gone_shows_nothing(fresh_shop: Shop) -> None:
    fresh_shop.upsert([fresh_shop.tombstone("z1")])
    rules = "always_similar: [{items: [c1, z1]}, {items: [c1, nowhere]}]"
    assert not {"z1", "nowhere"} & set(ids(asked(fresh_shop, rules, "c1")))


# --- reloaded while serving ------------------------------------------------------------------------


def test_rules_change_under_queries_and_none_fails(shop: Shop, tmp_path: Path) -> None:
    # Each holds for no version before it, so that what is seen is the new one.
    versions: dict[str, Callable[[list[str]], bool]] = {
        "blocked: {items: [s3]}": lambda shown: "s3" not in shown and "c1" in shown,
        "barriers: [{between: [Shoes, Kitchen]}]": lambda shown: "s3" in shown and "c1" not in shown,
        "boosts: [{match: {brand: [Altra]}, factor: 10}]": lambda shown: shown[0] == "s8",
        "bridges: [{between: [Shoes, Kitchen], factor: 10}]": lambda shown: shown[0] == "c2",
    }
    path = tmp_path / "rules.yaml"

    def write(text: str) -> None:
        beside = path.with_suffix(".new")
        beside.write_text(text)
        os.replace(beside, path)

    write("")
    book = RuleBook(RuleSettings(file=path, look_seconds=0.01))
    reloading = threading.Thread(target=book.run, daemon=True)
    reloading.start()
    done = threading.Event()
    body = {"seeds": [{"item_id": "s1"}], "weights": TEXT, "filter": {"group": "any"}, "limit": 20}

    def ask(client: TestClient) -> Sequence[int]:
        statuses = []
        while not done.is_set():
            statuses.append(client.post("/v1/similar", json=body).status_code)
        return statuses

    with TestClient(shop.app(rules=book)) as client, ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask, client) for _ in range(2)]
        try:
            for text, in_force in versions.items():
                write(text)
                for _ in range(500):
                    shown = ids(Answer.model_validate_json(client.post("/v1/similar", json=body).content))
                    if in_force(shown):
                        break
                else:
                    pytest.fail(f"never in force: {text}")
                # A wrong version in between changes nothing.
                write("boosts: 1")
                for _ in range(1_000):
                    if book.refused is not None:
                        break
                    time.sleep(0.01)
                assert book.refused is not None
                again = ids(Answer.model_validate_json(client.post("/v1/similar", json=body).content))
                assert again == shown
        finally:
            done.set()
        statuses = [status for each in asking for status in each.result()]
    book.stop()
    reloading.join(10.0)
    assert set(statuses) == {200}
    assert len(statuses) > 2 * len(versions)
