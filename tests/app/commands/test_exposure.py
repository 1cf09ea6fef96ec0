"""`simstream exposure` against a running service over the small shop, behind a socket."""

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
from app.commands.exposure import register
from app.exposure import Exposure
from app.local import LocalRedis
from schemas.errors import Halt
from service.server import Service
from tests.service.shop import Shop, product
from tests.support.fake_behaviour import FakeBehaviour, visits

NAMESPACE = "exposure-command."
#: Everything of Loud is near to everything, for its texts have all words; every other text has two of them.
WORDS = ("amber", "beige", "coral", "denim", "ebony", "frost", "green", "hazel", "ivory", "jade")
THINGS = [
    *[
        product(
            f"quiet-{number}",
            f"{word} {WORDS[(number + 1) % 10]}",
            brand="Quiet\x1b[31m",
            price="10",
            currency="EUR",
            seller_id="m1",
        )
        for number, word in enumerate(WORDS * 3)
    ],
    *[
        product(f"loud-{number}", " ".join(WORDS), brand="Loud", price=f"{20 + number}", currency="EUR")
        for number in range(6)
    ],
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, redis_server: LocalRedis) -> Iterator[str]:
    client = connect(RedisSettings(url=redis_server.url))
    index = EdgeIndex(tmp_path_factory.mktemp("index"))
    shop = Shop(index=index, store=ItemStore(client=client, namespace=NAMESPACE), products=THINGS)
    fake = FakeBehaviour(shopped={"runner": visits("quiet-1"), "walker": visits("quiet-2")})
    service = Service(shop.app(behaviour=fake), host="127.0.0.1", port=0)
    thread = threading.Thread(target=service.run)
    thread.start()
    yield service.address
    service.stop()
    thread.join(10)
    index.close()
    client.close()


def run(url: str, redis: LocalRedis, *arguments: str, namespace: str = NAMESPACE) -> Result:
    app = typer.Typer()
    register(app)
    env = {
        "COLUMNS": "200",
        "SIMSTREAM_REDIS__URL": redis.url,
        "SIMSTREAM_NAMESPACE": namespace,
        "SIMSTREAM_EXPOSURE__LEAST_ITEMS": "3",
        "SIMSTREAM_EXPOSURE__PRICE_BANDS": "2",
        "SIMSTREAM_GATE__SAMPLES": "100",
    }
    return CliRunner(env=env).invoke(app, [*arguments, "--url", url])


def test_who_is_near_to_everything_is_shown_more_than_its_share(url: str, redis_server: LocalRedis) -> None:
    shown = run(url, redis_server, "--json")
    assert shown.exit_code == 0, shown.output
    found = Exposure.model_validate_json(shown.stdout)
    assert (found.lists, found.items, found.refused, found.unknown) == (36, 36, 0, 0)
    assert found.places == 360
    kinds = {kind.kind: kind for kind in found.kinds}
    assert list(kinds) == ["brand", "price band", "seller"]
    brand = kinds["brand"]
    assert (brand.most, brand.gini_low > 0) == ("Loud", True)
    quiet, loud = brand.groups
    assert (loud.group, loud.items) == ("Loud", 6)
    assert loud.share == pytest.approx(1 / 6, abs=1e-4)
    assert 1.0 < loud.low < loud.ratio < loud.high
    assert quiet.high < 1.0
    # Shares of exposure add up to 1.
    assert sum(one.ratio * one.share for one in brand.groups) == pytest.approx(1.0, abs=1e-3)
    assert [one.group for one in kinds["seller"].groups] == ["m1", "(none)"]
    assert [one.group for one in kinds["price band"].groups] == [
        "EUR 1 of 2: to 10.00",
        "EUR 2 of 2: from 10.00",
    ]


def test_a_table_says_the_same_and_no_brand_steers_the_terminal(url: str, redis_server: LocalRedis) -> None:
    shown = run(url, redis_server, "--sample", "10")
    assert shown.exit_code == 0, shown.output
    assert "brand: Gini" in shown.stdout
    assert "most for its share Loud" in shown.stdout
    assert "10 lists of 36 items, 100 places" in shown.stdout
    assert "\x1b" not in shown.stdout


def test_recommendations_of_the_shoppers_of_a_file_are_looked_at_instead(
    url: str, redis_server: LocalRedis, tmp_path: Path
) -> None:
    file = tmp_path / "shoppers.txt"
    file.write_text("runner\nwalker\n\n")
    shown = run(url, redis_server, "--users", str(file), "--json")
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["lists"] == 2
    file.write_text("\n")
    assert run(url, redis_server, "--users", str(file)).exit_code == 2


def test_an_empty_catalogue_is_a_sentence(url: str, redis_server: LocalRedis) -> None:
    with pytest.raises(Halt, match="no item in the catalogue"):
        run(url, redis_server, namespace="exposure-nobody.")
