"""service/related.py: what is mined of the seeds, where a preset uses it: ranked, explained, degraded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from schemas.api import Answer, Hit, SimilarRequest
from schemas.errors import Transient
from schemas.relations import Evidence, Mined, Partner, Run
from service.presets import PRESETS
from service.related import NOTE, worth
from service.rulebook import RuleBook, RuleSettings
from service.settings import ServiceSettings
from service.timing import Timings
from tests.service.shop import Shop
from tests.service.test_relations import RUN, Reader, bought, evidence, looked

#: The grinder c2 has no shopper in common with s5 and lies on another shelf: nothing but baskets names it.
MINED = {"s5": Mined(baskets=60, visits=200, partners=(bought("c2", 4.0), looked("s7", 5.0)))}


class Counting(Reader):
    """Counts what it is asked; or is away."""

    def __init__(self, found: Mapping[str, Mined], run: Run | None = RUN, *, away: bool = False) -> None:
        super().__init__(found, run)
        self.asked: list[list[str]] = []
        self._away = away

    def of_all(self, product_ids: Sequence[str]) -> tuple[Run | None, Mapping[str, Mined]]:
        self.asked.append(list(product_ids))
        if self._away:
            raise Transient("Redis did not answer within 5 s")
        return super().of_all(product_ids)


def asked(shop: Shop, reader: Reader | None, *seeds: Any, **body: Any) -> Answer:
    given = [seed if isinstance(seed, dict) else {"item_id": seed} for seed in seeds]
    engine = shop.engine(body.pop("settings", None), relations=reader)
    wanted = {"seeds": given, "preset": "complements", "limit": 5, "explain": True, **body}
    return engine.similar(SimilarRequest.model_validate(wanted), Timings())


def ids(answer: Answer) -> list[str]:
    return [hit.item_id for hit in answer.items]


def hit_of(answer: Answer, item_id: str) -> Hit:
    (hit,) = (hit for hit in answer.items if hit.item_id == item_id)
    return hit


def test_a_mined_complement_comes_first_and_says_why(shop: Shop) -> None:
    before, after = asked(shop, Reader({}), "s5"), asked(shop, Reader(MINED), "s5")
    assert ids(before)[0] != "c2"
    assert ids(after)[0] == "c2"
    hit = after.items[0]
    assert hit.explanation is not None
    by = hit.explanation.related
    assert by is not None
    assert (by.item_id, by.basis, by.together) == ("s5", "bought together", 30)
    assert (by.lift, by.lift_low) == (4.0, 2.0)
    assert [by.support, by.confidence] == pytest.approx([30 / 1_000, 30 / 60])
    part = hit.dimensions["relations"]
    assert (part.score, part.weight) == (0.5, PRESETS["complements"].relations_weight)
    assert hit.explanation.shares["relations"] > 0.5
    # What is shown adds up to the score, as for every hit.
    total = sum(one.weight for one in hit.dimensions.values())
    mean = sum(one.score * one.weight for one in hit.dimensions.values()) / total
    assert hit.score == pytest.approx(mean, abs=1e-5)
    # What was looked at together is no complement, and of the others nothing is known: that is a zero.
    for other in after.items[1:]:
        assert other.dimensions["relations"].score == 0.0
        assert other.explanation is not None
        assert other.explanation.related is None


def test_where_nothing_is_mined_the_answer_is_as_it_was(shop: Shop) -> None:
    plain = asked(shop, None, "s5")
    assert "relations" not in plain.items[0].dimensions
    for reader in (Reader({}), Reader(MINED, run=None), Reader({"s5": Mined(baskets=1, visits=1)})):
        assert asked(shop, reader, "s5").items == plain.items
    off = ServiceSettings(preset_relations=False)
    assert asked(shop, Reader(MINED), "s5", settings=off).items == plain.items


def test_a_partner_that_no_dimension_proposes_is_a_candidate_and_filters_hold_for_it(
    shop: Shop, tmp_path: Path
) -> None:
    few = ServiceSettings(candidates=10, rescored=10)
    assert ids(asked(shop, Reader(MINED), "s5", settings=few, limit=1)) == ["c2"]
    assert "c2" not in ids(asked(shop, Reader(MINED), "s5", filter={"category": ["Shoes"]}))
    assert "c2" not in ids(asked(shop, Reader(MINED), "s5", filter={"exclude": ["c2"]}))
    file = tmp_path / "rules.yaml"
    file.write_text("blocked: {items: [c2]}")
    app = shop.app(relations=Reader(MINED), rules=RuleBook(RuleSettings(file=file)))
    with TestClient(app) as client:
        answer = client.get("/v1/items/s5/similar?preset=complements").json()
    assert answer["items"]
    assert "c2" not in [hit["item_id"] for hit in answer["items"]]


def test_a_mined_complement_of_the_same_shelf_loses_nothing_for_it(shop: Shop) -> None:
    # s8 lies on the shelf of s1, which costs every other hit there seven tenths.
    found = {"s1": Mined(baskets=60, visits=200, partners=(bought("s8", 6.0),))}
    answer = asked(shop, Reader(found), "s1", limit=20)
    assert ids(answer)[0] == "s8"
    mined, other = hit_of(answer, "s8").explanation, hit_of(answer, "s3").explanation
    assert mined is not None
    assert other is not None
    assert mined.rules.same_category is None
    assert other.rules.same_category == pytest.approx(0.3)


def test_substitutes_come_first_and_complements_are_left_out(shop: Shop) -> None:
    # s7 is looked at and bought with s1, and more looked at: alike, so compared. s8 is bought: goes with it.
    partners = (bought("s7", 2.0, seen=9.0), bought("s8", 6.0), looked("c1", 9.0))
    found = {"s1": Mined(baskets=60, visits=200, partners=partners)}
    body: dict[str, Any] = {"preset": "substitutes", "limit": 20, "filter": {"price_ratio": None}}
    before, after = asked(shop, Reader({}), "s1", **body), asked(shop, Reader(found), "s1", **body)
    assert {"s7", "s8", "c1"} <= set(ids(before))
    assert ids(before)[0] != "s7"
    assert ids(after)[0] == "s7"
    assert "s8" not in ids(after)
    # Looked at together and nothing alike: neither raised nor left out.
    assert hit_of(after, "c1").dimensions["relations"].score == 0.0
    explanation = after.items[0].explanation
    assert explanation is not None
    assert explanation.related is not None
    assert explanation.related.basis == "looked at together"
    assert explanation.related.support == pytest.approx(30 / 5_000)
    # The other preset knows the two the other way round.
    assert "s7" not in [
        hit.item_id
        for hit in asked(shop, Reader(found), "s1", limit=20).items
        if hit.dimensions["relations"].score > 0
    ]


def test_of_several_seeds_a_hit_counts_with_the_one_that_says_most(shop: Shop) -> None:
    found = {
        "s1": Mined(baskets=60, visits=200, partners=(bought("c2", 3.0), bought("s5", 9.0))),
        "s5": Mined(baskets=40, visits=200, partners=(bought("c2", 8.0),)),
        "s7": Mined(baskets=40, visits=200, partners=(bought("c1", 20.0),)),
    }
    seeds = [
        {"item_id": "s1", "weight": 1.0},
        {"item_id": "s5", "weight": 0.8},
        {"item_id": "s7", "weight": -0.2},
    ]
    reader = Counting(found)
    answer = asked(shop, reader, *seeds, limit=20)
    assert reader.asked == [["s1", "s5"]]  # one look-up, and not for what is not wanted
    hit = hit_of(answer, "c2")
    assert hit.dimensions["relations"].score == pytest.approx(0.8 * worth(evidence(8.0)))
    assert hit.explanation is not None
    assert hit.explanation.related is not None
    assert hit.explanation.related.item_id == "s5"
    assert hit.explanation.seeds[0].item_id == "s5"
    assert hit_of(answer, "c1").dimensions["relations"].score == 0.0
    assert "s5" not in ids(answer)


def test_only_the_presets_that_use_them_ask_and_weights_of_ones_own_do_without(shop: Shop) -> None:
    reader = Counting(MINED)
    for body in (
        {"preset": None},
        {"preset": "discovery"},
        {"preset": "same_product"},
        {"weights": {"behaviour": 2.0, "content": 0.2}},
    ):
        assert "relations" not in asked(shop, reader, "s5", **body).items[0].dimensions
    asked(shop, reader, {"item": {"title": "Trail running shoe"}})
    assert reader.asked == []
    asked(shop, reader, "s5")
    assert reader.asked == [["s5"]]


def test_a_store_that_is_away_is_named_and_the_rest_of_the_answer_stands(shop: Shop) -> None:
    plain = asked(shop, None, "s5")
    answer = asked(shop, Counting(MINED, away=True), "s5")
    assert answer.items == plain.items
    assert answer.notes == [NOTE]
    assert plain.notes == []


def test_over_http_too_the_answer_is_given_and_says_what_is_missing(shop: Shop) -> None:
    for reader, notes in ((Counting(MINED, away=True), [NOTE]), (Counting(MINED), []), (None, [])):
        with TestClient(shop.app(relations=reader)) as client:
            response = client.get("/v1/items/s5/similar?preset=complements&explain=true")
        assert response.status_code == 200
        answer = Answer.model_validate_json(response.content)
        assert answer.notes == notes
        assert (answer.items[0].item_id == "c2") is (reader is not None and not notes)


def test_a_store_that_is_known_to_be_away_is_not_asked(shop: Shop) -> None:
    reader = Counting(MINED)
    engine = shop.engine(relations=reader, relations_away=lambda: True)
    wanted = {"seeds": [{"item_id": "s5"}], "preset": "complements"}
    answer = engine.similar(SimilarRequest.model_validate(wanted), Timings())
    assert answer.notes == [NOTE]
    assert reader.asked == []


def test_what_a_pair_is_worth_lies_between_nothing_and_one() -> None:
    values = [worth(evidence(2 * low)) for low in (0.5, 1.0, 1.1, 2.0, 10.0, 1e6)]
    assert values[:2] == [0.0, 0.0]
    assert values == sorted(values)
    assert values[3] == 0.5
    assert values[-1] < 1.0
    assert worth(Evidence(together=1, other=1, expected=1.0, lift=9.0, lift_low=4.0, sure=True)) == 0.75


def test_the_seed_itself_and_unsure_pairs_are_no_partners(shop: Shop) -> None:
    unsure = Partner(item_id="c2", bought=evidence(9.0, sure=False))
    found = {"s5": Mined(baskets=60, visits=200, partners=(unsure,))}
    assert "relations" not in asked(shop, Reader(found), "s5").items[0].dimensions
