"""A browser for tests and benchmarks: Debian's Chromium on a closed network, and what a page may not do.

Reads   nothing
Writes  nothing
Never   reaches anything but loopback: every other host is unknown to it
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

EXPLORER = Path(__file__).parents[2] / "service" / "explorer"
AXE = EXPLORER / "node_modules" / "axe-core" / "axe.min.js"
PATIENCE_MS = 20_000.0
_FLAGS = (
    "--no-sandbox",  # CI is root in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
#: What is held against a page: WCAG 2.2 AA and axe's own best practices.
_AXE_OPTIONS = {"resultTypes": ["violations"]}


def missing() -> str | None:
    """Why no browser can be started; None if one can."""
    return None if shutil.which("chromium") else "there is no chromium: apt-get install chromium"


def require(reason: str | None) -> None:
    """Skip the test that asks, with the reason; where CI=true, fail it."""
    if reason is None:
        return
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason}; with CI=true this is a failure, not a skip", pytrace=False)
    pytest.skip(reason)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser. Playwright's loop runs in this thread meanwhile: nothing else may want one here."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watch:
    """What a page has said and asked for."""

    address: str
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    received_bytes: int = 0

    @property
    def elsewhere(self) -> list[str]:
        """Requests to other hosts than the service's."""
        own = urlsplit(self.address).netloc
        return [url for url in self.requests if urlsplit(url).netloc not in (own, "")]


def watched(page: Page, address: str) -> Watch:
    """Note everything that the page does from now on."""
    watch = Watch(address)

    def finished(request: Request) -> None:
        # Head and body as they came over the wire, compressed.
        sizes = request.sizes()
        watch.received_bytes += sizes["responseHeadersSize"] + sizes["responseBodySize"]

    page.on("console", lambda said: watch.errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: watch.errors.append(str(error)))
    page.on("request", lambda request: watch.requests.append(request.url))
    page.on("requestfinished", finished)
    return watch


def violations(page: Page) -> list[str]:
    """What axe finds, one line each. The page's context must have been made with `bypass_csp`."""
    page.add_script_tag(path=AXE)
    found: list[dict[str, Any]] = page.evaluate(
        "options => axe.run(document, options).then(result => result.violations)", _AXE_OPTIONS
    )
    return [
        f"{one['id']}: {one['help']}: {node['html'][:200]} {node.get('failureSummary', '')[:300]}"
        for one in found
        for node in one["nodes"]
    ]
