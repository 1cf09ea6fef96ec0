"""One embedded stack with a small synthetic shop, and one browser, for all flows of the explorer.

The browser's loop runs in the main thread, so both end with this package.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import pytest
from playwright.sync_api import Browser, Page, ViewportSize

from adapters.kafka import Publisher
from benchmarks.stack import RunningStack, embedded_stack, publish
from producers.shop import Shop
from schemas.events import ProductUpserted
from tests.support import browser as support
from tests.support.browser import Watch

PRODUCTS = 80
SHOPPERS = 40
LAPTOP: ViewportSize = {"width": 1440, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}


@dataclass(frozen=True, slots=True)
class Stage:
    """The stack, its shop, and a product that has neighbours worth seeing."""

    stack: RunningStack
    products: dict[str, ProductUpserted]
    seed: ProductUpserted
    publisher: Publisher
    api: httpx.Client

    @property
    def address(self) -> str:
        """Where the page is."""
        return self.stack.http

    def publish(self, product: ProductUpserted) -> None:
        """It happens now."""
        publish(self.publisher, [product])


@pytest.fixture(scope="package")
def stage() -> Iterator[Stage]:
    """`simstream up --embedded`, with a shop in it."""
    support.require(support.missing())
    environment = {"SIMSTREAM_BEHAVIOUR__DEBOUNCE__DELAY_SECONDS": "0.5"}
    shop = Shop(7, products=PRODUCTS, shoppers=SHOPPERS, start=datetime.now(UTC))
    with embedded_stack(environment=environment) as stack, httpx.Client(base_url=stack.http) as api:
        publisher = Publisher(stack.settings, client_id="test-explorer")
        products = {product.product_id: product for product in shop.products()}
        publish(publisher, products.values())
        for event in shop.events():
            publisher.send("user.events", key=event.user_id, value=event.model_dump_json().encode())
        for review in shop.reviews():
            publisher.send("catalog.reviews", key=review.product_id, value=review.model_dump_json().encode())
        assert publisher.flush(60.0) == 0
        until = time.monotonic() + 120.0
        while api.get("/v1/release").json()["points"] < PRODUCTS or not _warm(api):
            assert time.monotonic() < until, "the shop is not searchable"
            time.sleep(0.2)
        best = max(list(products)[:30], key=lambda item_id: _nearest(api, item_id))
        yield Stage(stack, products, products[best], publisher, api)
        publisher.close()


def _warm(api: httpx.Client) -> bool:
    return bool(api.get("/v1/trending?window=30d").json().get("items"))


def _nearest(api: httpx.Client, item_id: str) -> float:
    items = api.get(f"/v1/items/{item_id}/similar?limit=3").json()["items"]
    return float(items[2]["score"]) if len(items) > 2 else 0.0


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium."""
    support.require(support.missing())
    with support.chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A laptop's page in a context of its own, in English."""
    context = browser.new_context(
        viewport=LAPTOP, locale="en-GB", color_scheme="light", reduced_motion="reduce"
    )
    context.set_default_timeout(support.PATIENCE_MS)
    yield context.new_page()
    context.close()


@pytest.fixture
def watch(page: Page, stage: Stage) -> Iterator[Watch]:
    """What the page does; at the end it has said no error and asked nobody else."""
    watch = support.watched(page, stage.address)
    yield watch
    assert watch.errors == []
    assert watch.elsewhere == []
