"""The service beside what it follows: a fault that passes is waited for, and one that does not ends it."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app import written_collections
from app.serving import Failures, serve_alone
from app.settings import load_settings
from app.written_collections import Instance, WrittenCollections
from schemas.errors import Halt, Transient

LIVE = "items__r2__1"


class Index:
    """One collection, which is live."""

    def resolve(self, alias: str) -> str:
        return LIVE


class Board:
    """No rollout; remembers what was reported."""

    def __init__(self) -> None:
        self.reported: list[set[str]] = []

    def all(self) -> list[Any]:
        return []

    def report(self, name: str, releases: set[str]) -> None:
        self.reported.append(releases)

    def sign_off(self, name: str) -> None:
        self.reported.append(set())


class Releases:
    """Fails to load as often as the test says, then loads."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.loaded: set[str] = set()

    def ids(self) -> set[str]:
        return set(self.loaded)

    def load(self, release_id: str) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.loaded.add(release_id)

    def keep(self, release_ids: set[str]) -> None:
        self.loaded &= set(release_ids)


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    """What is written about rollouts, and a quick look at it."""
    found = Board()
    monkeypatch.setattr(written_collections, "open_board", lambda _: found)
    monkeypatch.setattr(written_collections, "LOOK_SECONDS", 0.005)
    monkeypatch.setattr(written_collections, "RETRY_SECONDS", 0.01)
    return found


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_release_that_cannot_be_read_just_now_is_loaded_later(board: Board) -> None:
    """On NFS, or in a store of objects with exceptions of its own."""
    stale = OSError(errno.ESTALE, "Stale file handle", "/releases/r2/manifest.json")
    parts: dict[str, Any] = {
        "index": Index(),
        "releases": Releases(stale, RuntimeError("SlowDown"), Transient("away"), ValueError("truncated")),
    }
    instance = Instance(load_settings({}), alone=True, **parts)
    failures = Failures()
    following = threading.Thread(target=failures.watch, args=(instance.run,), daemon=True)
    following.start()
    until(lambda: {"r2"} in board.reported or not following.is_alive())
    failures.check()
    assert set() in board.reported, "it reported nothing while it could not load"
    instance.stop()
    following.join(10)
    assert parts["releases"].failures == []


def test_a_writer_that_cannot_begin_just_now_ends_nobody(board: Board) -> None:
    """Neither its own process nor, of another collection, the writer of the live one."""
    stale = OSError(errno.ESTALE, "Stale file handle", "/releases/r2/manifest.json")
    parts: dict[str, Any] = {"store": None, "publisher": None, "index": Index(), "releases": Releases()}
    writers = WrittenCollections(load_settings({}), **parts)
    for collection in (LIVE, "items__r3__1"):
        for failure in (stale, Transient("away")):
            parts["releases"].failures = [failure]
            writers._begin(collection, live=LIVE)  # noqa: SLF001
            assert not writers.writes(collection)
    parts["releases"].failures = [ValueError("made by another version")]
    with pytest.raises(ValueError, match="another version"):
        writers._begin(LIVE, live=LIVE)  # noqa: SLF001


@pytest.mark.parametrize("ended_by", [Halt("Redis refused the credentials"), RuntimeError("a fault of ours")])
def test_a_service_that_follows_releases_no_more_ends_and_says_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    ended_by: BaseException,
) -> None:
    """It would go on with the release of then, whatever goes live."""

    def run(self: Instance) -> None:
        raise ended_by

    monkeypatch.setattr(Instance, "run", run)
    settings = load_settings({"SIMSTREAM_QDRANT__URL": f"edge:{tmp_path / 'index'}"})
    failures = Failures()
    with caplog.at_level(logging.ERROR):
        service = threading.Thread(
            target=failures.watch, args=(lambda: serve_alone(settings, port=0),), daemon=True
        )
        service.start()
        service.join(30)
    assert not service.is_alive(), "it goes on"
    assert failures.first is ended_by
    assert any(one.getMessage() == f"service_ends reason={ended_by!r}" for one in caplog.records)
