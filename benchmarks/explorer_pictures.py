"""`python -m benchmarks.explorer_pictures`: the three pictures of the explorer in README and docs.

Reads   nothing but the synthetic shop
Writes  docs/images/explorer-*.png, each with a palette of its own so that it stays small
Never   shows anything that the page does not: a stack runs, a shop is in it, changes arrive
"""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page

from adapters.kafka import Publisher
from benchmarks.stack import RunningStack, Updates, embedded_stack, import_catalogue, publish
from producers.shop import Shop
from schemas.events import ProductUpserted
from tests.support import browser as support

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
SEED = 7
PRODUCTS = 400
MAX_BYTES = 150_000
#: A product with an assortment around it.
WORDS = "cordless drill"


def main() -> int:
    """Take them. Returns 1 where one is too large for a repository."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    shop = Shop(SEED, products=PRODUCTS, shoppers=PRODUCTS // 2, start=datetime.now(UTC))
    listed = list(shop.products())
    with embedded_stack(environment={"SIMSTREAM_BEHAVIOUR__DEBOUNCE__DELAY_SECONDS": "1"}) as stack:
        publisher, updates = Publisher(stack.settings, client_id="pictures"), Updates(stack)
        import_catalogue(stack, publisher, updates, listed)
        for event in shop.events():
            publisher.send("user.events", key=event.user_id, value=event.model_dump_json().encode())
        for review in shop.reviews():
            publisher.send("catalog.reviews", key=review.product_id, value=review.model_dump_json().encode())
        publisher.flush(60.0)
        while updates.poll(5.0):
            pass  # until the shop has come to rest
        with support.chromium() as browser:
            sizes = _taken(browser, stack, publisher, {product.product_id: product for product in listed})
        updates.close()
        publisher.close()
    for name, size in sizes.items():
        print(f"{name}: {size:,} bytes")
    return 1 if max(sizes.values()) > MAX_BYTES else 0


def _taken(
    browser: Browser, stack: RunningStack, publisher: Publisher, products: dict[str, ProductUpserted]
) -> dict[str, int]:
    found = httpx.post(f"{stack.http}/v1/search", json={"text": WORDS, "limit": 1}).raise_for_status().json()
    seed = found["items"][0]["item_id"]
    laptop = _page(browser, 1360, 860, dark=False)
    laptop.goto(f"{stack.http}/?seed={seed}")
    laptop.locator(".card").nth(5).wait_for()
    # Away from the pointer's hover, and once the weight has moved them.
    laptop.get_by_label("Shoppers", exact=True).fill("2.2")
    laptop.locator(".move").first.wait_for()
    laptop.locator('.card[data-rank="1"] .title').click()
    laptop.locator(".dims small").first.wait_for()
    laptop.mouse.move(5, 850)
    laptop.wait_for_timeout(900)

    dark = _page(browser, 1360, 860, dark=True)
    dark.goto(f"{stack.http}/?seed={seed}")
    dark.locator(".listening.on").wait_for()
    dark.locator(".card").nth(5).wait_for()
    near = [card.get_attribute("data-id") or "" for card in dark.locator(".card").all()][:5]
    for number, item_id in enumerate(near[1:4]):
        price = Decimal(49 + 10 * number)
        publish(publisher, [products[item_id].model_copy(update={"price": price, "currency": "EUR"})])
    fresh = products[seed].model_copy(
        update={"product_id": "SNEW", "group_id": None, "title": f"{products[seed].title}, 2027 edition"}
    )
    publish(publisher, [fresh])
    dark.locator('.card[data-id="SNEW"]').wait_for()
    dark.locator(".ticker li").nth(3).wait_for()
    dark.wait_for_timeout(900)

    phone = _page(browser, 390, 780, dark=False)
    phone.goto(f"{stack.http}/?seed={seed}")
    phone.locator(".card").nth(2).wait_for()
    phone.wait_for_timeout(900)
    return {
        "explorer-why.png": _kept(laptop, "explorer-why.png"),
        "explorer-live.png": _kept(dark, "explorer-live.png"),
        "explorer-phone.png": _kept(phone, "explorer-phone.png"),
    }


def _page(browser: Browser, width: int, height: int, *, dark: bool) -> Page:
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        locale="en-GB",
    )
    context.set_default_timeout(60_000)
    return context.new_page()


def _kept(page: Page, name: str) -> int:
    """Written with 128 colours; its size in bytes."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(128, dither=Image.Dither.NONE).save(IMAGES / name, optimize=True)
    return (IMAGES / name).stat().st_size


if __name__ == "__main__":
    sys.exit(main())
