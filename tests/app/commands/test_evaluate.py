"""`simstream evaluate` against a running service over the small shop, behind a socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from adapters.index_edge import EdgeIndex
from adapters.redis_client import RedisSettings, connect
from adapters.redis_items import ItemStore
from app.commands.evaluate import register
from app.local import LocalRedis
from service.server import Service
from tests.service.shop import PRODUCTS, Shop, product
from tests.support.fake_behaviour import FakeBehaviour, visits

#: Items of one colour are alike in words, and every relevant item is of the colour of the query.
COLOURS = ("amber", "beige", "coral", "denim", "ebony", "frost", "green", "hazel", "ivory", "jade")
CLOTHES = [
    product(f"{colour}-{number}", f"{colour} {colour}{number} {thing}", category=["Clothes"])
    for colour in COLOURS
    for number, thing in enumerate(("scarf", "glove", "beret"))
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, redis_server: LocalRedis) -> Iterator[str]:
    client = connect(RedisSettings(url=redis_server.url))
    index = EdgeIndex(tmp_path_factory.mktemp("index"))
    store = ItemStore(client=client, namespace="evaluate-command.")
    shop = Shop(index=index, store=store, products=[*PRODUCTS, *CLOTHES])
    service = Service(
        shop.app(
            behaviour=FakeBehaviour(shopped={"runner": visits("s1", "c1")}, purchases={"runner": {"s3"}})
        ),
        host="127.0.0.1",
        port=0,
    )
    thread = threading.Thread(target=service.run)
    thread.start()
    yield service.address
    service.stop()
    thread.join(10)
    index.close()
    client.close()


def run(url: str, *arguments: str) -> Result:
    app = typer.Typer()
    register(app)
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [*arguments, "--url", url])


def written(folder: Path, *rows: dict[str, Any] | str) -> str:
    file = folder / "labels.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(file)


def colours(folder: Path) -> str:
    rows = [
        {
            "query_item": f"{colour}-{one}",
            "relevant_item": [f"{colour}-{other}" for other in range(3) if other != one],
        }
        for colour in COLOURS
        for one in range(3)
    ]
    return written(folder, *rows)


def test_pairs_are_judged_with_intervals_and_slices(url: str, tmp_path: Path) -> None:
    shown = run(url, colours(tmp_path), "--k", "2", "--weights", "lexical=1", "--json")
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    # Words alone tell the colours apart: both others of a colour are the first two hits.
    assert found["overall"]["recall"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "queries": 30}
    assert set(found["slices"]) == {"cold", "category Clothes"}
    assert found["refused"] == 0
    table = run(url, colours(tmp_path), "--k", "2", "--weights", "lexical=1")
    assert "recall@2" in table.stdout
    assert "1.0000 [1.0000, 1.0000]" in table.stdout
    assert "category Clothes" in table.stdout


def test_bad_rows_are_named_and_the_good_ones_are_asked(url: str, tmp_path: Path) -> None:
    good = {"query_item": "s1", "relevant_item": "s3"}
    file = written(
        tmp_path, good, {"query_item": "s1"}, "{", {"query_item": "nowhere", "relevant_item": "s1"}
    )
    shown = run(url, file, "--json", "--filter", '{"group": "any"}')
    assert shown.exit_code == 2
    assert f"{file}: line 2: relevant_item is missing" in shown.stderr
    assert f"{file}: line 3: not JSON" in shown.stderr
    found = json.loads(shown.stdout)
    assert found["overall"]["recall"]["queries"] == 1
    assert found["overall"]["recall"]["mean"] == 1.0
    assert found["refused"] == 1


def test_next_items_are_asked_for_as_recommendations(url: str, tmp_path: Path) -> None:
    file = tmp_path / "next.csv"
    file.write_text("user_id,history,next_item\nrunner,,c2\n,s1|c1,s5\n")
    found = json.loads(run(url, str(file), "--k", "20", "--no-slices", "--json").stdout)
    assert found["overall"]["hit_rate"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "queries": 2}


def test_fitted_weights_are_checked_on_the_other_half_and_printed_to_be_pasted(
    url: str, tmp_path: Path
) -> None:
    file = colours(tmp_path)
    shown = run(url, file, "--fit-weights", "--k", "2")
    assert shown.exit_code == 0, shown.output
    assert "SIMSTREAM_SERVICE__WEIGHTS='{" in shown.stdout
    assert "--weights content=" in shown.stdout
    found = json.loads(run(url, file, "--fit-weights", "--k", "2", "--json").stdout)
    assert found["with_fitted"]["recall"]["mean"] == 1.0
    assert found["weights"]["lexical"] == 1.0
    assert 0 < found["fit_queries"] < 30
    assert found["fit_queries"] + found["with_present"]["recall"]["queries"] == 30
    assert found["verdict"] in shown.stdout


def test_wrong_calls_and_absent_services_are_one_line(url: str, tmp_path: Path) -> None:
    file = written(tmp_path, {"query_item": "s1", "relevant_item": "s3"})
    assert run(url, file, "--fit-weights", "--weights", "content=1").exit_code == 2
    away = run("http://127.0.0.1:1", file)
    assert away.exit_code == 1
    assert "simstream up" in away.stderr
    assert run(url, str(tmp_path / "nothing.jsonl")).exit_code != 0
    nobody = run(url, written(tmp_path, {"query_item": "nowhere", "relevant_item": "s3"}))
    assert "none of the queries could be asked" in str(nobody.exception)
