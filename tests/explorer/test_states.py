"""The explorer when it has nothing to show, may not, or nobody answers: on a service without a stack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, expect

from adapters.index_edge import EdgeIndex
from adapters.redis_client import RedisSettings, connect
from adapters.redis_items import ItemStore
from app.local import LocalRedis
from service.access import Keyring
from service.keys import ApiSettings, Scope, new_key
from service.watching import Watched
from tests.explorer.conftest import LAPTOP
from tests.service.shop import Shop
from tests.service.test_feed import Topic, feed_of
from tests.support import browser as support
from tests.support.fake_behaviour import FakeBehaviour
from tests.support.serving import serving


@dataclass
class Serving:
    """A service without a stack; `behaviour.away` and `page` are the test's to change."""

    shop: Shop
    page: Page
    address: str
    behaviour: FakeBehaviour
    key: str = ""
    asked: list[Request] = field(default_factory=list)


@pytest.fixture
def shop(tmp_path: Path, redis_server: LocalRedis, namespace: str) -> Iterator[Shop]:
    """The shop of the service's own tests."""
    client = connect(RedisSettings(url=redis_server.url))
    index = EdgeIndex(tmp_path / "index")
    yield Shop(index=index, store=ItemStore(client=client, namespace=namespace))
    index.close()
    client.close()


@pytest.fixture
def served(request: pytest.FixtureRequest, browser: Browser, shop: Shop) -> Iterator[Serving]:
    """A page, and the service it belongs to: with keys where the parameter says so."""
    key, kept = new_key("reader", frozenset({Scope.READ}))
    keyring = Keyring(ApiSettings(keys=(kept.entry(),))) if getattr(request, "param", "") == "keys" else None
    behaviour = FakeBehaviour(windows={"7d": {"s1": 3.0, "c1": 1.0}})
    watched = Watched(feed=feed_of(Topic()))
    with serving(shop.app(behaviour=behaviour, watched=watched, keyring=keyring)) as address:
        context = browser.new_context(viewport=LAPTOP, locale="en-GB")
        page = context.new_page()
        found = Serving(shop, page, address, behaviour, key)
        page.on("request", lambda request: found.asked.append(request))
        yield found
        context.close()
        watched.close()


@pytest.mark.parametrize("served", ["keys"], indirect=True)
def test_a_key_is_asked_for_and_kept_in_memory_only(served: Serving) -> None:
    page = served.page
    watch = support.watched(page, served.address)
    page.goto(served.address)
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("This service answers to keys")
    # Nothing was asked without one, so nothing was refused.
    assert not [request for request in served.asked if "/v1/" in request.url]
    assert watch.errors == []
    dialog.get_by_label("API key").fill("simstream_wrong")
    dialog.get_by_role("button", name="Use this key").click()
    expect(page.get_by_text("That key was refused: no such key")).to_be_visible()
    dialog.get_by_label("API key").fill(served.key)
    dialog.get_by_role("button", name="Use this key").click()
    expect(page.locator(".tile").first).to_be_visible()
    kept = page.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
    )
    assert served.key not in kept
    assert "simstream_" not in kept
    page.reload()
    expect(page.get_by_role("dialog")).to_be_visible()


def test_an_empty_catalogue_says_how_to_fill_it(served: Serving) -> None:
    served.behaviour.windows = {}
    served.page.route(
        "**/v1/search", lambda route: route.fulfill(json={"items": [], "release_id": "r", "took_ms": 1})
    )
    served.page.goto(served.address)
    expect(served.page.get_by_text("The catalogue is empty")).to_be_visible()
    expect(served.page.get_by_text("simstream publish products catalogue.csv")).to_be_visible()


def test_while_answers_take_long_their_places_are_held(served: Serving) -> None:
    served.page.route("**/v1/similar", lambda route: None)  # never answered
    served.page.goto(f"{served.address}/?seed=s1")
    expect(served.page.get_by_role("status", name="Loading")).to_be_visible()


def test_an_item_that_does_not_exist_is_said_in_words(served: Serving) -> None:
    served.page.goto(f"{served.address}/?seed=nothing")
    expect(served.page.get_by_role("alert").filter(has_text="There is no such item.")).to_be_visible()


def test_a_store_that_is_away_is_named_and_asked_again(served: Serving) -> None:
    served.behaviour.away = True
    served.page.goto(f"{served.address}/?view=trending")
    expect(served.page.get_by_role("alert").filter(has_text="behaviour (Redis)")).to_be_visible()
    served.behaviour.away = False
    expect(served.page.get_by_text("No shopper was here in this time.")).to_be_visible(timeout=10_000)


def test_offline_keeps_what_was_seen_and_comes_back_by_itself(served: Serving) -> None:
    page = served.page
    page.goto(f"{served.address}/?seed=s1")
    page.locator(".card").first.wait_for()
    count = page.locator(".card").count()
    page.context.set_offline(True)
    page.get_by_label("Wording", exact=True).fill("0.5")
    expect(page.get_by_role("alert").filter(has_text="The service does not answer")).to_be_visible()
    assert page.locator(".card").count() == count
    page.context.set_offline(False)
    expect(page.get_by_role("alert")).to_have_count(0, timeout=10_000)


def test_a_name_that_is_markup_is_shown_as_it_is(served: Serving) -> None:
    watch = support.watched(served.page, served.address)
    served.page.goto(f"{served.address}/?text=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E")
    expect(served.page.get_by_role("heading", level=1)).to_contain_text("<img src=x onerror=alert(1)>")
    assert watch.elsewhere == []
    assert not [url for url in watch.requests if url.endswith("/x")]


def test_the_documentation_answers_and_asks_nobody_but_this_service(served: Serving) -> None:
    page = served.page
    watch = support.watched(page, served.address)
    page.goto(f"{served.address}/docs")
    live = page.locator(".opblock", has_text="/health/live")
    live.locator(".opblock-summary-control").click()
    live.get_by_role("button", name="Try it out").click()
    live.get_by_role("button", name="Execute").click()
    expect(live.locator(".live-responses-table").get_by_text('"live"').first).to_be_visible()
    assert page.locator(".opblock").count() > 15
    assert watch.errors == []
    assert watch.elsewhere == []
    assert [url for url in watch.requests if url.endswith("/docs/swagger-ui-bundle.js")]
