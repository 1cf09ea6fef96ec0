"""service/keys.py and service/access.py: what a key may do, how often, until when; its secrecy."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient

from service.access import OPEN_PATHS, Bucket, Keyring
from service.keys import ApiSettings, Scope, digest_of, new_key, parsed_key
from tests.service.shop import Shop
from tests.service.test_api import problem

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
READER, KEPT_READER = new_key("shop", frozenset({Scope.READ}))
#: The reader's successor while both are listed, and the one before, which ends tomorrow.
OLD_READER, KEPT_OLD_READER = new_key("shop", frozenset({Scope.READ}), NOW + timedelta(days=1))
GONE, KEPT_GONE = new_key("shop", frozenset({Scope.READ}), NOW - timedelta(seconds=1))
PUBLISHER, KEPT_PUBLISHER = new_key("tills", frozenset({Scope.PUBLISH}))
ADMIN, KEPT_ADMIN = new_key("ops", frozenset({Scope.READ, Scope.ADMIN}))
KEYS = tuple(kept.entry() for kept in (KEPT_OLD_READER, KEPT_READER, KEPT_GONE, KEPT_PUBLISHER, KEPT_ADMIN))


class Clock:
    """A monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        """Seconds."""
        return self.seconds


def keyring(clock: Clock | None = None, **settings: float) -> Keyring:
    made = ApiSettings.model_validate({"keys": KEYS, **settings})
    return Keyring(made, clock=lambda: NOW, monotonic=clock or Clock())


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def locked(shop: Shop) -> Iterator[TestClient]:
    """The shop's service, with keys."""
    with TestClient(shop.app(keyring=keyring()), raise_server_exceptions=False) as client:
        yield client


def test_no_path_answers_without_a_key_but_health(locked: TestClient, shop: Shop) -> None:
    paths = shop.app().openapi()["paths"]
    answered = set()
    for path, methods in paths.items():
        for method in methods:
            response = locked.request(method, path.replace("{", "").replace("}", ""))
            if response.status_code == 401:
                assert response.headers["www-authenticate"].startswith("Bearer")
                problem(response, 401)
            else:
                answered.add(path)
    assert answered == OPEN_PATHS
    for path in (
        "/docs",
        "/openapi.json",
        "/redoc",
        "/nothing",
        "/health/ready/",
        "//health/live",
        "/HEALTH/live",
    ):
        problem(locked.get(path), 401)


@pytest.mark.parametrize(
    "header",
    [
        "Bearer nonsense",
        "Bearer ",
        "Bearer",
        f"Basic {READER}",
        READER,
        f"Bearer {READER}x",
        f"Bearer {READER[:-1]}",
        f"Bearer {KEPT_READER.digest}",
        "Bearer ü",
        f"Bearer {GONE}",
    ],
    # Keys are new in each process, and names of tests must not be.
    ids=["nonsense", "empty", "alone", "basic", "bare", "longer", "shorter", "digest", "latin", "expired"],
)
def test_a_key_that_is_none_or_no_longer_one_is_refused(locked: TestClient, header: str) -> None:
    response = locked.get("/v1/items/s1", headers={b"Authorization": header.encode("latin-1")})
    problem(response, 401)
    assert READER not in response.text


def test_two_headers_are_refused_so_that_no_proxy_sees_another_one_than_we_do(locked: TestClient) -> None:
    response = locked.get(
        "/v1/items/s1",
        headers=[("Authorization", "Bearer nonsense"), ("Authorization", f"Bearer {READER}")],
    )
    problem(response, 401)


def test_the_old_key_and_the_new_one_work_side_by_side_until_the_old_one_ends(shop: Shop) -> None:
    for now, status in ((NOW, 200), (NOW + timedelta(days=1), 401)):
        ring = Keyring(ApiSettings(keys=KEYS), clock=lambda now=now: now)  # type: ignore[misc]
        with TestClient(shop.app(keyring=ring)) as client:
            assert client.get("/v1/items/s1", headers=bearer(READER)).status_code == 200
            assert client.get("/v1/items/s1", headers=bearer(OLD_READER)).status_code == status


def test_a_wrong_scope_is_named(locked: TestClient) -> None:
    refused = locked.get("/v1/items/s1", headers=bearer(PUBLISHER))
    assert problem(refused, 403)["errors"][0]["scope"] == "read"
    assert 'scope="read"' in refused.headers["www-authenticate"]
    for key, status in ((READER, 403), (PUBLISHER, 422)):
        assert locked.post("/v1/events", json={}, headers=bearer(key)).status_code == status, key


def test_only_admins_ask_a_release_by_name(locked: TestClient) -> None:
    body = {"seeds": [{"item_id": "s1"}], "release_id": "r1"}
    calls = (
        ("POST", "/v1/similar", body),
        ("POST", "/v1/search", {"text": "shoe", "release_id": "r1"}),
        ("GET", "/v1/items/s1/similar?release_id=r1", None),
    )
    for method, path, sent in calls:
        refused = locked.request(method, path, json=sent, headers=bearer(READER))
        assert problem(refused, 403)["errors"][0]["scope"] == "admin"
        assert locked.request(method, path, json=sent, headers=bearer(ADMIN)).status_code == 200
    refused = locked.get("/v1/users/u/recommendations?release_id=r1", headers=bearer(READER))
    problem(refused, 403)


def test_over_its_rate_a_key_is_told_when_to_come_back_and_others_are_not_hurt(shop: Shop) -> None:
    clock = Clock()
    ring = keyring(clock, rate_per_second=0.5, burst=3)
    with TestClient(shop.app(keyring=ring)) as client:

        def status(key: str) -> int:
            return client.get("/v1/release", headers=bearer(key)).status_code

        assert [status(READER) for _ in range(4)] == [200, 200, 200, 429]
        refused = client.get("/v1/release", headers=bearer(READER))
        problem(refused, 429)
        assert refused.headers["retry-after"] == "2"
        assert status(ADMIN) == 200
        clock.seconds += 2.0
        assert [status(READER), status(READER)] == [200, 429]


def test_a_bucket_never_holds_more_than_its_burst_and_lets_large_costs_pass_when_full() -> None:
    clock = Clock()
    bucket = Bucket(rate_per_second=10.0, burst=5.0, monotonic=clock)
    clock.seconds += 1_000.0
    assert [bucket.wait_seconds() for _ in range(5)] == [0.0] * 5
    assert bucket.wait_seconds() == pytest.approx(0.1)
    clock.seconds += 0.5
    assert bucket.wait_seconds(20.0) == 0.0
    assert bucket.wait_seconds() == pytest.approx(1.6)


def test_keys_stand_in_no_log_no_metric_and_no_answer(
    locked: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    texts = [
        locked.get("/v1/items/s1", headers=bearer(READER)).text,
        locked.get("/v1/items/s1", headers=bearer(READER[:-1])).text,
        locked.post("/v1/similar", content=b"{", headers=bearer(READER)).text,
        locked.get("/metrics", headers=bearer(READER)).text,
        caplog.text,
    ]
    secret = READER.removeprefix("simstream_")
    assert all(secret[:20] not in text and KEPT_READER.digest not in text for text in texts)


def test_an_entry_comes_back_as_it_was_written() -> None:
    for entry in KEYS:
        assert parsed_key(entry).entry() == entry
    assert parsed_key(f"a:read:{'0' * 64}:2027-01-31").expires_at == datetime(2027, 1, 31, tzinfo=UTC)
    assert digest_of(READER) == KEPT_READER.digest
    assert len({new_key("a", frozenset({Scope.READ}))[0] for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "entry",
    [
        READER,
        f"shop:read:{READER}",
        f"shop:reader:{'0' * 64}",
        f"shop::{'0' * 64}",
        f"shop:read:{'0' * 63}",
        f"sh op:read:{'0' * 64}",
        f"shop:read:{'0' * 64}:soon",
    ],
    ids=["key", "key for digest", "scope", "no scope", "short digest", "name", "date"],
)
def test_an_entry_that_is_none_is_refused_without_being_repeated(entry: str) -> None:
    with pytest.raises(ValueError, match=r"expected|scopes|no date") as caught:
        parsed_key(entry)
    assert READER not in str(caught.value)
