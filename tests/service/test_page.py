"""service/page.py: the explorer is open to everybody, and may load nothing that is not the service's."""

from __future__ import annotations

import gzip
import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from service.access import Keyring
from service.docs_page import PATHS
from service.keys import ApiSettings, Scope, new_key
from service.page import FOLDER, Page, policy
from service.presets import PRESETS
from service.settings import ServiceSettings
from tests.service.shop import Shop
from tests.service.test_api import problem

FILES = ("/", "/explorer/app.js", "/explorer/index.css", "/explorer/icon.svg")


def facts(text: str) -> dict[str, Any]:
    """What the page says of its service."""
    found = re.search(r'data-service="([^"]*)"', text)
    assert found is not None
    said: dict[str, Any] = json.loads(html.unescape(found[1]))
    return said


@pytest.mark.parametrize("path", FILES)
def test_every_file_of_the_page_is_served_with_a_strict_policy(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    said = answer.headers["content-security-policy"]
    assert "default-src 'none'" in said
    assert "unsafe" not in said
    assert "http" not in said
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.head(path).status_code == 200


def test_the_page_has_nothing_inline_and_names_no_other_host() -> None:
    for path in FOLDER.iterdir():
        text = path.read_text()
        if path.suffix == ".html":
            assert not re.search(r"<script(?![^>]*\bsrc=)", text)
            assert "<style" not in text
            assert not re.search(r"\s(style|on\w+)=", text)
        # Names of XML's own vocabularies are never asked for.
        hosts = set(re.findall(r"https?://[\w.-]+", text)) - {"http://www.w3.org"}
        assert hosts == set(), path.name


def test_files_come_compressed_where_a_browser_takes_that(client: TestClient) -> None:
    packed = client.get("/explorer/app.js", headers={"Accept-Encoding": "gzip"})
    plain = client.get("/explorer/app.js", headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content == (FOLDER / "app.js").read_bytes()
    assert len(gzip.compress(plain.content)) < len(plain.content) / 2


def test_the_page_says_what_its_sliders_start_from(client: TestClient) -> None:
    said = facts(client.get("/").text)
    assert said["keys"] is False
    assert said["images"] is False
    assert said["weights"][""] == ServiceSettings().weights
    assert {name: said["weights"][name] for name in PRESETS} == {
        name: dict(preset.weights) for name, preset in PRESETS.items()
    }


def test_with_keys_the_page_is_open_and_the_api_is_not(shop: Shop) -> None:
    _, kept = new_key("reader", frozenset({Scope.READ}))
    with TestClient(shop.app(keyring=Keyring(ApiSettings(keys=(kept.entry(),))))) as client:
        for path in FILES:
            assert client.get(path).status_code == 200
        assert facts(client.get("/").text)["keys"] is True
        for path in (
            "/v1/updates",
            "/v1/pipeline",
            "/v1/releases",
            "/explorer/other.js",
            "/explorer/",
            "/index.html",
        ):
            problem(client.get(path), 401)
        problem(client.post("/v1/map", json={"item_ids": ["s1"]}), 401)


def test_pictures_come_from_where_the_settings_say_and_nowhere_else() -> None:
    assert "img-src 'self';" in policy()
    assert "img-src 'self' https://img.example.com;" in policy(["https://img.example.com"])
    page = Page(keys=False, weights={}, image_origins=["https://img.example.com"])
    assert "/" in page.paths
    with pytest.raises(ValidationError, match="a scheme and a host"):
        ServiceSettings(image_origins=("https://img.example.com; script-src *",))
    assert ServiceSettings(image_origins=("https://*.example.com:8443",)).image_origins


def test_a_folder_without_a_page_has_no_paths(tmp_path: Path) -> None:
    assert Page(keys=False, weights={}, folder=tmp_path).paths == frozenset()


@pytest.mark.parametrize("path", PATHS)
def test_the_documentation_comes_from_here_under_a_policy_of_its_own(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    said = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in said
    assert "http" not in said
    again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    if path == "/docs":
        assert not re.search(r"https?://|<script(?![^>]*\bsrc=)", answer.text)
    # FastAPI's own pages load their scripts from a public host.
    assert client.get("/redoc").status_code == 404
