"""app/learning.py: one trainer at a time, which goes on with what it may, and waits for who is away."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.archive import Archive
from adapters.redis_rollouts import TRAINER_LEASE, RolloutBoard
from app import learning
from app.discovery import Addresses, announce
from app.learning import live_release, publish_wish, reference_file, the_only_trainer, train_once
from app.settings import Settings
from app.wiring import open_board
from model import candidate
from model.candidate import Outcome
from model.recipe import Recipe
from model.run_folders import forget_examples, has_examples, is_open
from model.schedule import Reference
from model.text import ProductText
from schemas.errors import Halt, Transient
from schemas.releases import EncoderConfig, FileEntry, Manifest, Verdict
from tests.support.learning import little_examples
from tests.support.servers import Redis


@pytest.fixture
def settings(redis_server: Redis, namespace: str, tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "redis": {"url": redis_server.url},
            "namespace": namespace,
            "archive": {"folder": str(tmp_path / "archive")},
            "training": {"folder": str(tmp_path / "training")},
        }
    )


def test_a_second_trainer_is_sent_away_and_a_later_one_is_not(settings: Settings) -> None:
    board = open_board(settings)
    with the_only_trainer(settings):
        holder = board.holder(TRAINER_LEASE)
        assert holder is not None
        with pytest.raises(Halt, match="another trainer is at work"), the_only_trainer(settings):
            pass
        assert board.holder(TRAINER_LEASE) == holder
    assert board.holder(TRAINER_LEASE) is None
    with pytest.raises(RuntimeError, match="no disk"), the_only_trainer(settings):
        raise RuntimeError("no disk")
    assert board.holder(TRAINER_LEASE) is None


def test_who_slept_while_another_trainer_took_over_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, whole = open_board(settings), RolloutBoard.renew
    monkeypatch.setattr(learning, "LEASE_SECONDS", 0.3)

    def asleep(*_: Any, **__: Any) -> bool:
        raise Transient("the machine sleeps")

    with the_only_trainer(settings) as lease:
        time.sleep(0.5)
        lease.check()  # renewed meanwhile
        monkeypatch.setattr(RolloutBoard, "renew", asleep)
        time.sleep(0.5)
        assert board.take(TRAINER_LEASE, "another", 60.0) is not None
        monkeypatch.setattr(RolloutBoard, "renew", whole)
        with pytest.raises(Halt, match="another trainer has taken over"):
            lease.check()
        with pytest.raises(Halt, match="another trainer has taken over"):
            lease.check()
    assert board.holder(TRAINER_LEASE) == "another"


# --- what is live ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (httpx.ConnectError("connection refused"), Transient),
        (httpx.ReadTimeout("timed out"), Transient),
        (503, Transient),
        (401, Halt),
    ],
)
def test_a_service_that_is_away_is_waited_for_and_one_that_refuses_is_not(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Exception | int,
    kind: type[BaseException],
) -> None:
    announce(Addresses("k", "r", "http://service"), tmp_path)

    def get(url: str, **_: Any) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer, request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)
    with pytest.raises(kind, match="does not say which release is live"):
        live_release(settings, tmp_path)


def test_what_has_passed_is_asked_for_once_the_service_is_back(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings.model_copy(
        update={"rollout": settings.rollout.model_copy(update={"approval": "automatic"})}
    )
    announce(Addresses("k", "r", "http://service"), tmp_path)
    asked = 0
    said: list[str] = []

    def get(url: str, **_: Any) -> httpx.Response:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise httpx.ConnectError("connection refused")
        return httpx.Response(200, json={"release_id": "another"}, request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)
    passed = Manifest(
        release_id="next-1",
        created_at=datetime.now(UTC),
        base_model="m",
        dimension=3,
        encoder=EncoderConfig(pooling="mean", max_length=8),
        files={"model.safetensors": FileEntry(sha256="0" * 64, size_bytes=1)},
        parent="live-1",
    )
    publish_wish(settings, tmp_path, Outcome(Verdict(passed=True), passed), said.append)
    assert asked == 2
    assert "another is live" in said[0]


# --- runs --------------------------------------------------------------------------------------------


class Runs:
    """Runs whose training is cut off or ends at once."""

    def __init__(self, settings: Settings, patch: pytest.MonkeyPatch) -> None:
        self.settings = settings
        self.said: list[str] = []
        self.made = 0
        self.while_made: Callable[[], None] = lambda: None
        self.killed = True
        self.folders: list[Path] = []
        self.archive = Archive(Path(settings.archive.folder))
        patch.setattr(learning, "catalogue", lambda store: {})
        patch.setattr(learning, "prepared_for", self._prepare)
        patch.setattr(learning, "follow", lambda settings: None)
        patch.setattr("model.release.release_recipe", lambda store, parent: ProductText())
        patch.setattr(candidate, "finish", self._finish)

    def _prepare(self, *_: Any, **__: Any) -> Any:
        self.made += 1
        self.while_made()
        return little_examples()

    def _finish(self, run: Path, **_: Any) -> Outcome:
        self.folders.append(run)
        if self.killed:
            raise KeyboardInterrupt
        (run / "result.json").write_text("{}")
        return Outcome(Verdict(passed=False), None)

    def events(self, count: int, at: datetime) -> None:
        start = self.archive.positions().get("t-0", 0)
        row = {"shopper": "s", "product": "p", "at_ms": round(at.timestamp() * 1000)}
        rows = [{**row, "offset": start + place} for place in range(count)]
        self.archive.write(rows, part=("t", 0, start, start + count))

    def train(self, *, ends: bool = False, **changes: Any) -> Path:
        """One run by settings with such changes of training, cut off unless it `ends`; its folder."""
        self.killed = not ends
        training = self.settings.training.model_copy(update=changes)
        settings = self.settings.model_copy(update={"training": training})
        if ends:
            train_once(settings, Path("var"), parent="live", say=self.said.append)
        else:
            with pytest.raises(KeyboardInterrupt):
                train_once(settings, Path("var"), parent="live", say=self.said.append)
        return self.folders[-1]


@pytest.fixture
def runs(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(settings, monkeypatch)


def dated(run: Path, ago: timedelta) -> Path:
    """The run as if it had been begun so long ago."""
    return run.rename(run.with_name(f"{datetime.now(UTC) - ago:%Y%m%d-%H%M%S}-aaaaaa"))


def test_a_run_that_is_resumed_says_so_and_puts_down_what_it_saw_when_it_was_begun(runs: Runs) -> None:
    now = datetime.now(UTC)
    runs.events(5, now - timedelta(hours=3))
    run = dated(runs.train(), timedelta(hours=2))
    saw = (run / "reference.json").read_bytes()
    assert runs.said == []
    runs.events(5, now)
    assert runs.train(ends=True) == run
    assert runs.made == 1
    assert f"going on with the run of {now - timedelta(hours=2):%Y-%m-%d}" in runs.said[0]
    assert reference_file(runs.settings).read_bytes() == saw
    assert Reference.model_validate_json(saw).ends == {"t-0": 5}


@pytest.mark.parametrize("given", ["golden", "labelled"])
def test_another_file_of_pairs_begins_another_run_and_the_same_again_goes_on(
    runs: Runs, tmp_path: Path, given: str
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    named: dict[str, Any] = {given: str(pairs)}
    pairs.write_text('{"a": "1", "b": "2"}\n')
    first = dated(runs.train(**named), timedelta(hours=1))
    pairs.write_text('{"a": "1", "b": "3"}\n')
    second = dated(runs.train(**named), timedelta(minutes=50))
    assert second != first
    pairs.write_text('{"a": "1", "b": "2"}\n')
    assert runs.train(**named) == first
    assert runs.made == 2


def test_other_settings_of_pairs_begin_another_run(runs: Runs) -> None:
    dated(runs.train(), timedelta(hours=1))
    dated(runs.train(mine_with_index=True), timedelta(minutes=50))
    pairs = runs.settings.pairs.model_copy(update={"distance": 7})
    runs.settings = runs.settings.model_copy(update={"pairs": pairs})
    runs.train()
    assert runs.made == 3


def test_a_run_older_than_the_interval_or_of_an_earlier_version_begins_anew(runs: Runs) -> None:
    old = dated(runs.train(), timedelta(days=8))
    before = dated(runs.train(), timedelta(days=1))
    assert runs.made == 2
    assert not is_open(old)
    assert not has_examples(old)
    (before / "reference.json").unlink()
    told = json.loads((before / "run.json").read_bytes())
    (before / "run.json").write_text(json.dumps({name: told[name] for name in ("parent", "recipe")}))
    runs.train(ends=True)
    assert runs.made == 3


def test_examples_that_are_made_while_somebody_is_forgotten_are_made_again(runs: Runs) -> None:
    training = Path(runs.settings.training.folder)

    def forgotten() -> None:
        runs.while_made = lambda: None
        forget_examples(training, {0: 1})

    runs.while_made = forgotten
    run = runs.train()
    assert runs.made == 2
    assert has_examples(run)
    assert forget_examples(training, {0: 2}) == 1
    dated(run, timedelta(hours=1))
    assert has_examples(runs.train())
    assert runs.made == 3


def test_an_event_of_a_clock_ahead_that_is_stored_already_is_left_out(runs: Runs) -> None:
    now = datetime.now(UTC)
    runs.events(3, now)
    runs.events(1, now + timedelta(days=365))
    assert learning.window(runs.settings, now).num_rows == 3
    seen = Reference.model_validate_json((runs.train() / "reference.json").read_bytes())
    assert seen.until_ms == round(now.timestamp() * 1000)
    assert (
        Recipe.model_validate(json.loads((runs.folders[0] / "run.json").read_bytes())["recipe"]) == Recipe()
    )
