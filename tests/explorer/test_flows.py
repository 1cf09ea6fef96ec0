"""The explorer in a browser, flow by flow, on an embedded stack with the synthetic shop."""

from __future__ import annotations

import re
from decimal import Decimal
from urllib.parse import quote

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from adapters.kafka import Publisher
from tests.explorer.conftest import PHONE, Stage
from tests.support import browser as support
from tests.support.browser import Watch

pytestmark = pytest.mark.usefixtures("watch")


def opened(page: Page, stage: Stage, more: str = "") -> None:
    """The neighbourhood of the stage's product."""
    page.goto(f"{stage.address}/?seed={quote(stage.seed.product_id)}{more}")
    page.locator(".card").first.wait_for()


def with_opinions(page: Page, stage: Stage) -> None:
    """The stage trains no head: what a service with one says of items is put into its answers."""

    def of_the_seed(route: Route) -> None:
        route.fulfill(json=route.fetch().json() | {"opinions": ["fit: bad", "noise: good"]})

    def of_a_neighbour(route: Route) -> None:
        answer = route.fetch().json()
        for hit in answer.get("items", [])[:1]:
            hit["item"]["opinions"] = ["handling: ease: mixed"]
        route.fulfill(json=answer)

    page.route(f"**/v1/items/{quote(stage.seed.product_id)}", of_the_seed)
    page.route("**/v1/similar", of_a_neighbour)


def ids(page: Page) -> list[str]:
    """The items on screen, the best first."""
    found = [
        (int(card.get_attribute("data-rank") or 0), card.get_attribute("data-id") or "")
        for card in page.locator(".card").all()
    ]
    return [item_id for _, item_id in sorted(found)]


def card(page: Page, rank: int) -> Locator:
    return page.locator(f'.card[data-rank="{rank}"]')


def test_a_product_is_found_while_one_types(page: Page, stage: Stage) -> None:
    page.goto(stage.address)
    page.locator(".tile").first.wait_for()
    page.get_by_role("combobox", name="Find a product").press_sequentially(stage.seed.title[:12], delay=15)
    page.get_by_role("option").filter(has_text=stage.seed.title).first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Neighbours of {stage.seed.title}")
    expect(card(page, 0)).to_be_visible()
    expect(page).to_have_url(re.compile(f"seed={stage.seed.product_id}"))
    # Every dimension of the seed says how old it is.
    expect(page.locator(".ages code")).not_to_have_count(0)


def test_a_product_is_found_by_its_id_and_a_text_by_itself(page: Page, stage: Stage) -> None:
    page.goto(stage.address)
    find = page.get_by_role("combobox", name="Find a product")
    find.fill(stage.seed.product_id)
    page.get_by_role("option", name=f"Open item {stage.seed.product_id}").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Neighbours of {stage.seed.title}")
    find.fill("warm light for reading")
    find.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Neighbours of warm light for reading")
    expect(card(page, 0)).to_be_visible()


def test_a_weight_moves_the_neighbours_and_a_link_keeps_it(page: Page, stage: Stage) -> None:
    opened(page, stage)
    before = ids(page)
    page.get_by_label("Shoppers", exact=True).fill("3")
    page.get_by_label("Content", exact=True).fill("0")
    page.get_by_label("Wording", exact=True).fill("0")
    expect(page.locator(".move").first).to_be_visible()
    page.wait_for_url(re.compile("behaviour%3A3"))
    page.wait_for_function("before => document.querySelector('.card').dataset.id !== before", arg=before[0])
    after = ids(page)
    assert after != before
    page.reload()
    page.locator(".card").first.wait_for()
    assert ids(page)[:6] == after[:6]
    page.get_by_role("button", name="Reset weights").click()
    expect(card(page, 0)).to_have_attribute("data-id", before[0])


def test_presets_and_filters_are_in_the_link(page: Page, stage: Stage) -> None:
    opened(page, stage)
    page.get_by_role("button", name="Substitutes").click()
    expect(page.get_by_role("button", name="Substitutes")).to_have_attribute("aria-pressed", "true")
    brands = page.get_by_role("group", name="Brand", exact=True).get_by_role("button")
    brand = brands.first.inner_text()
    brands.first.click()
    page.wait_for_url(re.compile(f"brand={quote(brand.split()[0])}"))
    expect(page.locator(".card .brand").filter(has_not_text=brand)).to_have_count(0)
    expect(page).to_have_url(re.compile("preset=substitutes"))
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator(".card .brand").filter(has_not_text=brand).first).to_be_visible()


def test_nothing_that_passes_is_said(page: Page, stage: Stage) -> None:
    page.goto(f"{stage.address}/?seed={stage.seed.product_id}&brand=Nobody")
    expect(page.get_by_text("Nothing passes these filters")).to_be_visible()


def test_a_neighbour_is_explained(page: Page, stage: Stage) -> None:
    opened(page, stage)
    card(page, 0).locator(".title").click()
    why = page.get_by_role("region", name="Why this neighbour")
    expect(why.get_by_role("row")).to_have_count(5)
    expect(why.get_by_text("Words in common")).to_be_visible()
    expect(why.get_by_text("Rules that applied")).to_be_visible()
    expect(page).to_have_url(re.compile("why="))
    shares = [
        float(text.split()[0])
        for text in why.locator("tbody td:nth-child(4)").all_inner_texts()
        if "%" in text
    ]
    assert sum(shares) == pytest.approx(100, abs=2)


def test_what_reviewers_say_is_shown_of_the_seed_and_of_a_neighbour(page: Page, stage: Stage) -> None:
    with_opinions(page, stage)
    opened(page, stage)
    expect(page.locator(".seeds .opinions li")).to_have_text(
        [re.compile("noise good"), re.compile("fit bad")]
    )
    card(page, 0).locator(".title").click()
    why = page.get_by_role("region", name="Why this neighbour")
    expect(why.get_by_text("Reviewers say")).to_be_visible()
    expect(why.locator(".opinions li")).to_have_text([re.compile("handling: ease mixed")])


def test_a_neighbour_is_reported_for_people_to_review(page: Page, stage: Stage) -> None:
    opened(page, stage)
    neighbour = ids(page)[1]
    page.goto(f"{stage.address}/?seed={quote(stage.seed.product_id)}&why={quote(neighbour)}&panel=why")
    why = page.get_by_role("region", name="Why this neighbour")
    why.get_by_role("button", name="Not similar").click()
    expect(why.get_by_role("status")).to_have_text("Reported (1); waits for review")
    why.get_by_role("button", name="Not similar").click()
    expect(why.get_by_role("status")).to_have_text("Reported (2); waits for review")
    # Of another neighbour nothing has been said.
    page.goto(f"{stage.address}/?seed={quote(stage.seed.product_id)}&why={quote(ids(page)[0])}&panel=why")
    expect(why.get_by_role("status")).to_contain_text("nothing changes before that")


def test_seeds_are_pinned_for_and_against(page: Page, stage: Stage) -> None:
    opened(page, stage)
    first, second = ids(page)[:2]
    page.locator(f'[data-id="{first}"]').get_by_role("button", name="More like this").click()
    page.locator(f'[data-id="{second}"]').get_by_role("button", name="Less like this").click()
    expect(page.locator(".seeds > li")).to_have_count(3)
    expect(page).to_have_url(re.compile(f"seed={first}"))
    expect(page).to_have_url(re.compile(f"seed={second}(~|%7E)-0.5"))
    expect(page.locator(f'.card[data-id="{first}"]')).to_have_count(0)  # a seed is nobody's neighbour
    card(page, 0).locator(".title").click()
    expect(page.locator(".owes li").nth(1)).to_be_visible()
    page.get_by_role("button", name=re.compile("^Remove")).last.click()
    expect(page.locator(".seeds > li")).to_have_count(2)
    page.go_back()
    expect(page.locator(".seeds > li")).to_have_count(3)


def test_without_a_mouse_one_finds_pins_weighs_and_understands(page: Page, stage: Stage) -> None:
    page.goto(stage.address)
    page.locator(".tile").first.wait_for()
    keys = page.keyboard
    keys.press("/")
    keys.type(stage.seed.title[:12], delay=15)
    page.get_by_role("option").nth(1).wait_for()
    keys.press("ArrowDown")
    keys.press("Enter")
    page.locator(".card").first.wait_for()
    # Focus has gone to the results; Tab reaches the first card, arrows move on it.
    for _ in range(8):
        keys.press("Tab")
        if page.evaluate("document.activeElement.closest('.card') !== null"):
            break
    keys.press("ArrowRight")
    expect(page.locator(".card :focus")).to_have_count(1)
    assert page.evaluate("document.activeElement.closest('.card').dataset.rank") == "1"
    keys.press("p")
    expect(page.locator(".seeds > li")).to_have_count(2)
    page.get_by_label("Reviews", exact=True).focus()
    for _ in range(5):
        keys.press("ArrowRight")
    page.wait_for_url(re.compile("reviews%3A1(%2C|&|$)"))
    card(page, 0).locator(".title").focus()
    keys.press("Enter")
    expect(page.get_by_role("region", name="Why this neighbour")).to_be_visible()


def test_a_change_arrives_without_a_reload_and_says_what_it_cost(page: Page, stage: Stage) -> None:
    opened(page, stage)
    page.locator(".listening.on").wait_for()
    item_id = ids(page)[0]
    stage.publish(stage.products[item_id].model_copy(update={"price": Decimal("4321.00"), "currency": "EUR"}))
    expect(page.locator(f'.card[data-id="{item_id}"] .price')).to_have_text("€4,321.00")
    entry = page.locator(".ticker li").filter(has_text=stage.products[item_id].title[:20]).first
    expect(entry).to_contain_text("no encoder call")
    fresh = stage.seed.model_copy(
        update={"product_id": "FRESH", "title": stage.seed.title + " (2027)", "group_id": None}
    )
    stage.publish(fresh)
    expect(page.locator('.card[data-id="FRESH"]')).to_be_visible()
    expect(page.locator(".ticker li").filter(has_text="(2027)").first).to_contain_text("encoder calls: 1")
    expect(page.locator('.card[data-id="FRESH"] .move')).to_have_text("new")


def test_a_shopper_is_seen_with_recommendations_and_reasons(page: Page, stage: Stage) -> None:
    page.goto(f"{stage.address}/?view=shopper")
    page.get_by_label("Shopper id").fill("u000003")
    page.get_by_role("button", name="Show").click()
    expect(page.locator(".recent li").first).to_be_visible()
    expect(page.locator(".tiles .because").first).to_contain_text("because of")
    expect(page).to_have_url(re.compile("user=u000003"))


def test_what_is_trending_in_a_window(page: Page, stage: Stage) -> None:
    page.goto(f"{stage.address}/?view=trending")
    page.get_by_role("button", name="30 days").click()
    expect(page.locator(".tiles li")).to_have_count(24)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator(".tiles li").nth(30)).to_be_visible()
    page.locator(".tile").first.click()
    expect(page.locator(".card").first).to_be_visible()


def test_the_pipeline_shows_lag_freshness_and_why_a_record_died(page: Page, stage: Stage) -> None:
    publisher = Publisher(stage.stack.settings, client_id="test-poison")
    publisher.send("catalog.products", key="bad", value=b'{"kind":"product_upserted","product_id":"bad"}')
    assert publisher.flush(30.0) == 0
    publisher.close()
    page.goto(f"{stage.address}/?view=pipeline")
    expect(page.get_by_role("row").filter(has_text="catalog.products").first).to_be_visible()
    expect(page.locator(".letters td").filter(has_text="title").first).to_be_visible()
    expect(page.locator(".releases .badge").first).to_have_text("live")
    assert "bad" not in page.locator(".letters tbody").inner_text().replace("product_id", "")


def test_live_and_candidate_stand_side_by_side(page: Page, stage: Stage) -> None:
    """The other release is answered by this test: a real one would be another model and a backfill."""
    live = stage.api.get("/v1/release").json()["release_id"]
    base = {
        "live": False,
        "searchable": True,
        "reason": "",
        "state": "verified",
        "collection": "items__other__1",
    }

    def answer(route: object) -> None:
        body = stage.api.post(
            "/v1/similar", json={"seeds": [{"item_id": stage.seed.product_id}], "limit": 24, "explain": True}
        ).json()
        body["items"] = body["items"][1:6][::-1]
        route.fulfill(json={**body, "release_id": "other"})  # type: ignore[attr-defined]

    page.route(
        "**/v1/releases", lambda route: route.fulfill(json={"releases": [{"release_id": "other", **base}]})
    )
    page.route(
        "**/v1/similar",
        lambda route: answer(route) if "other" in (route.request.post_data or "") else route.continue_(),
    )
    opened(page, stage)
    page.get_by_label("Compare with").select_option("other")
    expect(page.get_by_text("5 of 5 in both, 5 moved")).to_be_visible()
    columns = page.locator(".columns section")
    expect(columns).to_have_count(2)
    expect(columns.nth(0)).to_contain_text("only here")
    expect(columns.nth(1)).to_contain_text("▲")
    expect(page).to_have_url(re.compile("beside=other"))
    assert live not in page.url


def test_the_neighbourhood_is_drawn_as_a_map(page: Page, stage: Stage) -> None:
    opened(page, stage, "&panel=map")
    dots = page.locator(".map g")
    expect(dots).to_have_count(25)
    expect(page.locator(".map .seed")).to_have_count(1)
    dots.filter(has_not=page.locator(".seed")).nth(3).click(force=True)
    page.wait_for_url(re.compile("why="))


def test_chinese_and_dark_are_remembered(page: Page, stage: Stage) -> None:
    opened(page, stage)
    page.get_by_role("button", name="中文").click()
    page.get_by_role("button", name="深色").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    page.reload()
    expect(page.get_by_role("link", name="流水线")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_on_a_telephone_nothing_is_wider_than_the_screen(page: Page, stage: Stage) -> None:
    page.set_viewport_size(PHONE)
    for view in (
        "",
        f"?seed={stage.seed.product_id}",
        "?view=pipeline",
        "?view=trending&window=30d",
        "?view=shopper",
    ):
        page.goto(f"{stage.address}/{view}")
        page.locator("h1").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], view
    opened(page, stage)
    page.get_by_role("button", name="Weights · Preset · Filters").click()
    expect(page.get_by_label("Content", exact=True)).to_be_visible()
    card(page, 0).locator(".title").click()
    expect(page.get_by_role("region", name="Why this neighbour")).to_be_in_viewport()


def test_the_first_view_is_small_and_asks_nobody_else(page: Page, stage: Stage, watch: Watch) -> None:
    page.goto(stage.address)
    page.locator(".tile").first.wait_for()
    page.wait_for_timeout(300)
    assert 20_000 < watch.received_bytes < 200_000
    assert len(watch.requests) >= 5


@pytest.mark.parametrize(("size", "theme"), [("laptop", "light"), ("phone", "dark")])
def test_axe_finds_nothing(page: Page, stage: Stage, theme: str, size: str) -> None:
    support.require(None if support.AXE.exists() else "axe-core is not installed: make explorer")
    browser = page.context.browser
    assert browser is not None
    context = browser.new_context(
        viewport=PHONE if size == "phone" else {"width": 1440, "height": 900},
        color_scheme="dark" if theme == "dark" else "light",
        locale="en-GB",
        reduced_motion="reduce",
        bypass_csp=True,
    )
    seed = stage.seed.product_id
    views = (
        "", f"?seed={seed}", f"?seed={seed}&panel=map", f"?seed={seed}&brand=Nobody", "?view=pipeline",
        "?view=trending&window=30d", "?view=shopper&user=u000003",
    )  # fmt: skip
    found = []
    with context.new_page() as other:
        with_opinions(other, stage)
        for view in views:
            other.goto(f"{stage.address}/{view}")
            other.locator("h1").first.wait_for()
            other.wait_for_timeout(400)
            if view == "?view=pipeline":
                other.locator(".figures").nth(1).wait_for()
            if view == f"?seed={seed}":
                card(other, 0).locator(".title").click()
                other.locator(".dims").wait_for()
            found += [f"{view}: {line}" for line in support.violations(other)]
    context.close()
    assert found == []
