"""app/commands/query.py: what a person sees of an answer, and of there being none."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from adapters.index_edge import EdgeIndex
from adapters.redis_client import RedisSettings, connect
from adapters.redis_items import ItemStore
from app.commands.answers import because
from app.commands.query import parsed_weights, register
from app.discovery import service_url
from app.local import LocalRedis
from schemas.api import Answer, Explanation, RelatedBy, Shared
from service.server import Service
from service.settings import ServiceSettings
from tests.service.shop import Shop
from tests.support.fake_behaviour import FakeBehaviour, visits

NOBODY = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, redis_server: LocalRedis) -> Iterator[str]:
    """A running service over the small shop, behind a socket."""
    client = connect(RedisSettings(url=redis_server.url))
    index = EdgeIndex(tmp_path_factory.mktemp("index"))
    shop = Shop(index=index, store=ItemStore(client=client, namespace="query-command."))
    fake = FakeBehaviour(
        shopped={"runner": visits("s1", "c1"), "odd/ü user": visits("c1")},
        purchases={"runner": {"s3"}},
        windows={"24h": {"c1": 8.0, "s5": 2.0}, "7d": {"s1": 1.0}},
    )
    service = Service(shop.app(behaviour=fake), host="127.0.0.1", port=0)
    thread = threading.Thread(target=service.run)
    thread.start()
    yield service.address
    service.stop()
    thread.join(10)
    index.close()
    client.close()


def run(*arguments: str) -> Result:
    app = typer.Typer()
    register(app)
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, list(arguments))


def test_neighbours_are_shown_with_scores_prices_and_reasons(url: str) -> None:
    shown = run("similar", "s1", "--limit", "3", "--explain", "--preset", "same_product", "--url", url)
    assert shown.exit_code == 0, shown.output
    assert "similar to: Norda 001 trail running shoe black" in shown.stdout
    assert "Norda 001 trail running shoe white" in shown.stdout
    assert "100 EUR" in shown.stdout
    assert "words: " in shown.stdout


def test_json_is_the_answer_of_the_service(url: str) -> None:
    shown = run(
        "similar",
        "s1",
        "--weights",
        "content=1,lexical=2",
        "--filter",
        '{"brand_cap": 1}',
        "--json",
        "--url",
        url,
    )
    answer = Answer.model_validate_json(shown.stdout)
    assert answer.items[0].dimensions["lexical"].weight == 2.0


def test_a_preset_and_diversity_are_asked_for_by_option(url: str) -> None:
    plain = run("similar", "s1", "--preset", "complements", "--limit", "4", "--explain", "--url", url)
    assert "8 shoppers in common" in plain.stdout
    assert "category x0.30" in plain.stdout
    varied = run("similar", "s1", "--diversity", "0.9", "--limit", "4", "--explain", "--url", url)
    assert "for variety" in varied.stdout
    refused = run("similar", "s1", "--preset", "cheaper", "--url", url)
    assert refused.exit_code == 1
    assert "preset" in refused.stderr


def test_recommendations_are_shown_with_the_items_that_they_come_from(url: str) -> None:
    shown = run(
        "recommend", "runner", "--explain", "--limit", "20", "--filter", '{"group": "any"}', "--url", url
    )
    assert shown.exit_code == 0, shown.output
    assert "for: runner" in shown.stdout
    assert "from s1 " in shown.stdout
    options = (
        "--weights",
        "content=1",
        "--filter",
        '{"in_stock": true, "group": "any"}',
        "--json",
        "--url",
        url,
    )
    answer = Answer.model_validate_json(run("recommend", "runner", "--limit", "20", *options).stdout)
    ids = {hit.item_id for hit in answer.items}
    assert {"s2", "c2"} <= ids
    assert ids.isdisjoint({"s1", "s3", "s5", "z1"})
    again = run("recommend", "runner", "--include-bought", "--limit", "20", *options)
    assert "s3" in {hit.item_id for hit in Answer.model_validate_json(again.stdout).items}


def test_a_shopper_without_history_sees_trending_items_and_why(url: str) -> None:
    shown = run("recommend", "nobody", "--url", url)
    assert "Norda 001 trail running shoe black" in shown.stdout
    assert "note: no recent item of this user can be compared" in shown.stdout


def test_ids_of_users_are_asked_for_as_they_are(url: str) -> None:
    shown = run("recommend", "odd/ü user", "--json", "--url", url)
    assert Answer.model_validate_json(shown.stdout).notes == []


def test_trending_items_are_shown_by_window_and_category(url: str) -> None:
    shown = run("trending", "--url", url)
    assert "trending, 24h" in shown.stdout
    assert shown.stdout.index("Espresso machine steel") < shown.stdout.index("Salomon Speedcross")
    week = run("trending", "--window", "7d", "--json", "--url", url)
    assert [hit.item_id for hit in Answer.model_validate_json(week.stdout).items] == ["s1"]
    shelf = run("trending", "--category", "Shoes", "--category", "Garden", "--json", "--url", url)
    assert [hit.item_id for hit in Answer.model_validate_json(shelf.stdout).items] == ["s5"]
    assert "window" in run("trending", "--window", "2h", "--url", url).stderr


def test_a_search_takes_words_without_quotes(url: str) -> None:
    shown = run("search", "espresso", "machine", "--limit", "1", "--json", "--url", url)
    assert Answer.model_validate_json(shown.stdout).items[0].item_id == "c1"


def test_ids_that_need_encoding_are_asked_for_as_they_are(url: str) -> None:
    assert "similar to: Leather boot" in run("similar", "odd/ü<b>&/similar", "--url", url).stdout


def test_an_unknown_item_is_said_in_one_line(url: str) -> None:
    refused = run("similar", "nowhere", "--url", url)
    assert refused.exit_code == 1
    assert refused.stderr.splitlines() == [f"{url} answered 404: no item 'nowhere' in the catalogue"]


def test_without_a_service_the_way_to_start_one_is_named() -> None:
    refused = run("search", "shoe", "--url", NOBODY)
    assert refused.exit_code == 1
    assert "simstream up" in refused.stderr


@pytest.mark.parametrize(
    "option", [("--weights", "content"), ("--weights", "content=nan"), ("--filter", "{"), ("--filter", "[]")]
)
def test_a_wrong_option_is_a_wrong_call(option: tuple[str, str]) -> None:
    refused = run("similar", "s1", *option, "--url", NOBODY)
    assert refused.exit_code == 2
    assert option[0] in refused.stderr


def test_weights_are_written_with_equals_signs_or_colons() -> None:
    assert parsed_weights("content=1, lexical:0.5") == {"content": 1.0, "lexical": 0.5}


def test_what_was_mined_of_a_hit_is_in_its_reasons() -> None:
    by = RelatedBy(
        item_id="s1",
        basis="bought together",
        together=30,
        support=0.03,
        confidence=0.5,
        lift=4.0,
        lift_low=2.0,
    )
    why = because(Explanation(shares={"relations": 1.0}, shared=Shared(), related=by))
    assert why == "relations 100%; bought together with s1 30 times, support 3.00%, lift 4.0"
    assert because(Explanation(shares={"content": 1.0}, shared=Shared())) == "content 100%"


def test_the_service_is_found_by_option_setting_stack_file_or_default(tmp_path: Path) -> None:
    plain = ServiceSettings(port=9)
    assert service_url(None, plain, tmp_path) == "http://127.0.0.1:9"
    (tmp_path / "stack.json").write_text(
        json.dumps({"kafka": "", "redis": "", "http": "http://127.0.0.1:1234"})
    )
    assert service_url(None, plain, tmp_path) == "http://127.0.0.1:1234"
    assert service_url(None, ServiceSettings(url="http://here/"), tmp_path) == "http://here"
    assert service_url("http://there/", ServiceSettings(url="http://here"), tmp_path) == "http://there"
