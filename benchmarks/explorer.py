"""The explorer in a browser: how soon a weight moves neighbours, how soon a published change is seen.

Reads   nothing but the synthetic shop
Writes  an embedded stack in a folder that goes away

A slider is moved by its own event, and the time is taken in the page: from the event to the first frame in
which the first eight are others or in another order. A change is timed from the moment it is handed to the
producer until the page, asked nothing, shows the new price. Long tasks are those that the browser itself
reports (longer than 50 ms) while a list of 200 neighbours is scrolled through and re-weighted. Nothing is
throttled; browser, stack and producer share the machine.
"""

from __future__ import annotations

import shutil
import time
from decimal import Decimal
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page

from adapters.kafka import Publisher
from benchmarks.harness import Figure, Report, Skipped, percentile
from benchmarks.stack import Updates, embedded_stack, import_catalogue, publish
from producers.shop import Shop
from schemas.events import ProductUpserted
from tests.support import browser as support

NAME = "explorer"
SEED = 7
VIEWPORT_WIDTH, VIEWPORT_HEIGHT = 1440, 900
#: Two settings of the sliders whose best neighbours differ, in turn.
_TURN = """
([name, value]) => new Promise(done => {
  const slider = document.getElementById(`w-${name}`);
  const setter = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;
  const order = () => [...document.querySelectorAll('.card')]
    .sort((a, b) => a.dataset.rank - b.dataset.rank).slice(0, 8).map(card => card.dataset.id).join();
  const before = order();
  const started = performance.now();
  setter.call(slider, value);
  slider.dispatchEvent(new Event('input', {bubbles: true}));
  const look = () => order() !== before ? done(performance.now() - started) : requestAnimationFrame(look);
  requestAnimationFrame(look);
  setTimeout(() => done(null), 10000);
})
"""
_LONG_TASKS = """
() => { window.longTasks = [];
  new PerformanceObserver(list => window.longTasks.push(...list.getEntries().map(one => one.duration)))
    .observe({type: 'longtask'}); }
"""
_SCROLL = """
() => new Promise(done => {
  let y = 0;
  const step = () => { y += 220; scrollTo(0, y);
    y < document.documentElement.scrollHeight ? requestAnimationFrame(step) : done(y); };
  step();
  setTimeout(() => done(null), 10000);
})
"""


def run(*, small: bool, data: Path | None) -> Report:
    """Measure. Raises Skipped where there is no browser."""
    del data
    if shutil.which("chromium") is None:
        raise Skipped("there is no chromium: apt-get install chromium")
    products, turns, changes = (250, 12, 5) if small else (1_000, 60, 30)
    shop = Shop(SEED, products=products)
    listed = list(shop.products())
    with embedded_stack() as stack:
        publisher, updates = Publisher(stack.settings, client_id="bench-explorer"), Updates(stack)
        import_catalogue(stack, publisher, updates, listed)
        with support.chromium() as browser:
            page = _page(browser)
            watch = support.watched(page, stack.http)
            page.goto(stack.http)
            page.locator(".tile").first.wait_for()
            page.wait_for_timeout(500)
            first_bytes = watch.received_bytes
            moved = _moved(page, stack.http, listed, turns)
            seen = _seen(page, stack.http, publisher, listed, changes)
            tasks = _tasks(page, stack.http, listed[0].product_id)
            violations = _violations(browser, stack.http, listed[0].product_id)
        updates.close()
        publisher.close()
    at_most: Literal["at most"] = "at most"
    figures = [
        Figure("slider to moved neighbours, p50", percentile(moved, 50), "ms", kind="latency"),
        Figure("slider to moved neighbours, p95", percentile(moved, 95), "ms", 200, at_most, "latency"),
        Figure("published change to visible, p50", percentile(seen, 50), "s", kind="latency"),
        Figure("published change to visible, slowest", max(seen), "s", 2, at_most, "latency"),
        Figure("first view", first_bytes / 1000, "kB", 200, at_most, "count", note="as transferred"),
        # The browser paints without a GPU beside stack and broker on two cores: in small printed only.
        Figure("longest task with 200 neighbours", max(tasks, default=0.0), "ms", None if small else 50,
               at_most, "latency", note="0: none was longer than 50 ms"),
        Figure("axe violations", len(violations), "", 0, at_most, "count"),
        Figure("console errors", len(watch.errors), "", 0, at_most, "count"),
        Figure("requests to other hosts", len(watch.elsewhere), "", 0, at_most, "count"),
        Figure("weights moved", len(moved), "", turns * 0.8, kind="count"),
        Figure("requests seen", len(watch.requests), "", turns, kind="count"),
    ]  # fmt: skip
    print(f"{len(moved)} moves, {len(seen)} changes, {len(tasks)} long tasks, {violations}")
    return Report(
        benchmark=NAME,
        figures=figures,
        settings={"products": products, "turns": turns, "changes": changes, "seed": SEED},
        data=f"a synthetic shop of {products:,} products, seed {SEED}; Debian's chromium, headless",
    )


def _page(browser: Browser, *, bypass_csp: bool = False) -> Page:
    context = browser.new_context(
        viewport={"width": VIEWPORT_WIDTH, "height": VIEWPORT_HEIGHT}, locale="en-GB", bypass_csp=bypass_csp
    )
    context.set_default_timeout(support.PATIENCE_MS)
    return context.new_page()


def _moved(page: Page, address: str, listed: list[ProductUpserted], turns: int) -> list[float]:
    """Milliseconds from a slider's event to another order, in turns between two settings."""
    waits = []
    for number in range(turns):
        if number % 4 == 0:
            page.goto(f"{address}/?seed={listed[number % len(listed)].product_id}")
            page.locator(".card").nth(7).wait_for()
        found = page.evaluate(_TURN, ["lexical", "0" if number % 2 == 0 else "3"])
        if found is not None:
            waits.append(float(found))
    return waits


def _seen(
    page: Page, address: str, publisher: Publisher, listed: list[ProductUpserted], changes: int
) -> list[float]:
    """Seconds from handing a new price to the producer to the page showing it."""
    by_id = {product.product_id: product for product in listed}
    page.goto(f"{address}/?seed={listed[0].product_id}")
    page.locator(".listening.on").wait_for()
    item_id = page.locator('.card[data-rank="0"]').get_attribute("data-id") or ""
    waits = []
    for number in range(changes):
        price = Decimal(1000 + number)
        started = time.monotonic()
        publish(publisher, [by_id[item_id].model_copy(update={"price": price, "currency": "EUR"})])
        page.locator(f'.card[data-id="{item_id}"] .price', has_text=f"€{price:,}.00").wait_for()
        waits.append(time.monotonic() - started)
        page.wait_for_timeout(150)
    return waits


def _tasks(page: Page, address: str, item_id: str) -> list[float]:
    """Long tasks while 200 neighbours are scrolled through and re-weighted, in milliseconds."""
    page.goto(f"{address}/?seed={item_id}&limit=200")
    page.locator(".card").nth(10).wait_for()
    page.wait_for_timeout(500)
    page.evaluate(_LONG_TASKS)
    for value in ("0", "3", "1"):
        page.evaluate(_SCROLL)
        page.evaluate("scrollTo(0, 0)")
        page.wait_for_timeout(100)
        page.evaluate(_TURN, ["lexical", value])
        page.wait_for_timeout(600)
    tasks: list[float] = page.evaluate("window.longTasks")
    return tasks


def _violations(browser: Browser, address: str, item_id: str) -> list[str]:
    if not support.AXE.exists():
        raise Skipped("axe-core is not installed: make explorer-packages")
    page = _page(browser, bypass_csp=True)
    found = []
    for path in ("", f"?seed={item_id}", "?view=pipeline", "?view=trending", "?view=shopper"):
        page.goto(f"{address}/{path}")
        page.locator("h1").first.wait_for()
        page.wait_for_timeout(300)
        found += support.violations(page)
    return found
