"""service/keyfile.py: keys change while the service runs; a file that is wrong leaves them as they were."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY

from adapters.audit import Audit, AuditSettings
from schemas.errors import Halt
from service.access import Keyring
from service.keyfile import KeyFile
from service.keys import ApiSettings, Scope, new_key
from service.watching import Watched
from tests.service.shop import Shop
from tests.service.test_feed import Topic, feed_of
from tests.service.test_keys import bearer
from tests.service.test_rulebook import rewrite
from tests.support.serving import serving

OLD, KEPT_OLD = new_key("shop", frozenset({Scope.READ}))
NEW, KEPT_NEW = new_key("shop-2027", frozenset({Scope.READ}))


def key_file(path: Path, *lines: str, audit: Path | None = None, **settings: float) -> KeyFile:
    path.write_text("\n".join(lines))
    made = ApiSettings.model_validate({"keys_file": path, **settings})
    return KeyFile(made, Keyring(made), audit=Audit(AuditSettings(file=audit)))


def refused() -> float:
    found = REGISTRY.get_sample_value("simstream_api_keys_refused")
    assert found is not None
    return found


def test_a_running_service_takes_new_keys_and_lets_the_old_ones_go(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    keys = key_file(path, KEPT_OLD.entry(), keys_look_seconds=0.01)
    looking = threading.Thread(target=keys.run, daemon=True)
    looking.start()

    def await_status(key: str, status: int) -> None:
        until = time.monotonic() + 20.0
        while httpx.get(f"{address}/v1/items/s1", headers=bearer(key)).status_code != status:
            assert time.monotonic() < until, f"never {status}"

    try:
        with serving(shop.app(keyring=keys.ring, notes=keys.notes)) as address:
            await_status(OLD, 200)
            await_status(NEW, 401)
            rewrite(path, f"{KEPT_OLD.entry()}\n{KEPT_NEW.entry()}\n")
            await_status(NEW, 200)
            await_status(OLD, 200)
            rewrite(path, KEPT_NEW.entry())
            await_status(OLD, 401)
            await_status(NEW, 200)
            # The whole of it once more with a file that is wrong: nothing changes, and the service says so.
            rewrite(path, KEPT_OLD.entry() + "\nshop:reader:0\n")
            until = time.monotonic() + 20.0
            while httpx.get(f"{address}/health/ready").json()["status"] != "degraded":
                assert time.monotonic() < until
            await_status(OLD, 401)
            await_status(NEW, 200)
    finally:
        keys.stop()
        looking.join(10.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no key"),
        ("\n , \n", "no key"),
        (f"shop:read:{OLD}", "entry 1: expected"),
        (f"{KEPT_OLD.entry()}\n{KEPT_NEW.entry()[:-1]}", "entry 2: expected"),
        (f"{KEPT_OLD.entry()}\n{KEPT_OLD.entry()}", "listed twice"),
        ("\x00\ufffd", "entry 1: expected"),
    ],
    ids=["empty", "blank", "key for digest", "short digest", "twice", "no text"],
)
def test_a_wrong_file_keeps_the_keys_and_is_told_once_without_its_content(
    text: str, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    keys = key_file(path, KEPT_NEW.entry())
    assert refused() == 0
    rewrite(path, text)
    keys.look()
    keys.look()
    assert keys.ring.find(NEW) == KEPT_NEW
    assert keys.ring.find(OLD) is None
    assert said in (keys.refused or "")
    assert refused() == 1
    assert sum(record.message.startswith("api_keys_refused") for record in caplog.records) == 1
    secret = OLD.removeprefix("simstream_")
    for told in (caplog.text, str(keys.notes())):
        assert secret[:20] not in told
        assert KEPT_OLD.digest[:20] not in told
    rewrite(path, KEPT_OLD.entry())
    keys.look()
    assert (keys.refused, refused()) == (None, 0)
    assert keys.ring.find(OLD) == KEPT_OLD


def test_the_service_does_not_start_with_a_file_that_is_missing_wrong_or_empty(tmp_path: Path) -> None:
    for text in ("", "shop:read:0"):
        with pytest.raises(Halt, match="SIMSTREAM_API__KEYS_FILE"):
            key_file(tmp_path / "keys", text)
    gone = ApiSettings(keys_file=tmp_path / "nowhere")
    with pytest.raises(Halt, match="cannot be read"):
        KeyFile(gone, Keyring(gone))


def test_without_a_file_the_ring_holds_what_settings_list() -> None:
    settings = ApiSettings(keys=(KEPT_OLD.entry(),))
    keys = KeyFile(settings, Keyring(settings))
    keys.look()
    assert keys.ring.find(OLD) == KEPT_OLD
    assert keys.notes() == {"keys": None}


def test_a_key_that_stays_goes_on_with_what_it_has_left_to_spend(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    keys = key_file(path, KEPT_OLD.entry(), rate_per_second=0.001, burst=2)
    with TestClient(shop.app(keyring=keys.ring)) as client:

        def status(key: str) -> int:
            return client.get("/v1/release", headers=bearer(key)).status_code

        assert [status(OLD), status(OLD), status(OLD)] == [200, 200, 429]
        rewrite(path, f"{KEPT_NEW.entry()}\n{KEPT_OLD.entry()}")
        keys.look()
        assert [status(OLD), status(NEW)] == [429, 200]


def test_the_audit_log_names_who_came_changed_and_went_but_no_hash(tmp_path: Path) -> None:
    path, log = tmp_path / "keys", tmp_path / "audit.jsonl"
    keys = key_file(path, KEPT_OLD.entry(), audit=log)
    assert not log.exists(), "a start changes nothing"
    rewrite(path, KEPT_NEW.entry().replace("shop-2027:read", "shop-2027:read+admin"))
    keys.look()
    rewrite(path, KEPT_NEW.entry())
    keys.look()
    first, second = map(json.loads, log.read_text().splitlines())
    assert (first["action"], first["by"], first["result"]) == ("keys.reload", "service", "done")
    assert first["what"]["added"] == ["shop-2027 (admin+read)"]
    assert first["what"]["removed"] == ["shop (read)"]
    assert second["what"]["changed"] == ["shop-2027 (admin+read) -> shop-2027 (read)"]
    assert KEPT_NEW.digest not in log.read_text()
    # It cannot be written any more: the keys change all the same, for that may be what saves the shop.
    log.unlink()
    log.mkdir()
    rewrite(path, KEPT_OLD.entry())
    keys.look()
    assert keys.ring.find(OLD) == KEPT_OLD


def test_a_stream_ends_with_the_key_that_asked_for_it(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    keys = key_file(path, KEPT_OLD.entry(), KEPT_NEW.entry())
    feed = feed_of(Topic())
    with serving(shop.app(keyring=keys.ring, watched=Watched(feed=feed))) as address:
        client = httpx.Client(timeout=20.0)
        with client.stream("GET", f"{address}/v1/updates", headers=bearer(OLD)) as answer:
            lines = answer.iter_lines()
            assert next(lines) == ": listening"
            rewrite(path, KEPT_NEW.entry())
            keys.look()
            assert list(lines) == [""]
        client.close()
