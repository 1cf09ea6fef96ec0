"""app/training_schedule.py: decisions are taken, kept and shown; a trainer by itself waits for its turn."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.archive import Archive
from app import learning
from app import training_schedule as module
from app.learning import publish_wish, reference_file, the_only_trainer
from app.settings import Settings
from app.trainer_process import on_its_device
from app.training_schedule import Schedule, last_decisions
from app.wiring import open_board
from consumers.archive import Followed
from consumers.release_requests import ask_for
from model.candidate import Outcome
from model.schedule import Reference
from schemas.errors import Halt
from schemas.releases import EncoderConfig, FileEntry, Manifest, Verdict
from tests.support.servers import Redis

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


class World:
    """The archive grows when it is followed; runs are counted and leave what they saw, as a real one does."""

    def __init__(self, settings: Settings, patch: pytest.MonkeyPatch) -> None:
        self.settings = settings
        self.now = NOW
        self.archive = Archive(Path(settings.archive.folder))
        self.arriving: Sequence[int] = ()
        self.runs: list[str] = []
        self.failures: list[BaseException] = []
        self.said: list[str] = []
        patch.setattr(module, "follow", self._follow)
        patch.setattr(module, "live_release", lambda settings, data_dir: "live")
        patch.setattr(module, "train_once", self._train)
        self.schedule = Schedule(settings, Path("var"), say=self.said.append, now=lambda: self.now)

    def _follow(self, settings: Settings) -> Followed:
        for count in self.arriving:
            start = self.archive.positions().get("t-0", 0)
            rows = [{"shopper": "s", "product": "p", "at_ms": start + row} for row in range(count)]
            self.archive.write(
                [{**row, "offset": start + place} for place, row in enumerate(rows)],
                part=("t", 0, start, start + count),
            )
        self.arriving = ()
        return Followed(0, 0, 0, 0, 0)

    def _train(
        self,
        settings: Settings,
        data_dir: Path,
        *,
        parent: str,
        say: Callable[[str], None],
        still_ours: Callable[[], None],
    ) -> Outcome:
        self.runs.append(parent)
        if self.failures:
            raise self.failures.pop()
        still_ours()
        seen = Reference(at=self.now, ends=self.archive.positions(), until_ms=0, cells={}, texts=[])
        reference_file(settings).write_text(seen.model_dump_json())
        return Outcome(Verdict(passed=False), None)


@pytest.fixture
def world(redis_server: Redis, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    settings = Settings.model_validate(
        {
            "redis": {"url": redis_server.url},
            "namespace": namespace,
            "archive": {"folder": str(tmp_path / "archive")},
            "training": {"folder": str(tmp_path / "training")},
            "schedule": {"least_events": 100, "new_events": 500, "interval_hours": 24, "least_hours": 1},
        }
    )
    return World(settings, monkeypatch)


def test_it_trains_when_there_is_a_reason_and_says_which(world: World) -> None:
    world.arriving = [60]
    assert not world.schedule.step().train
    world.arriving = [60]
    assert world.schedule.step().reason == "nothing was trained yet, and there are 120 events"
    assert world.runs == ["live"]
    world.now += timedelta(hours=30)
    assert "0 new events" in world.schedule.step().reason
    world.arriving = [100, 400]
    assert "the interval" in world.schedule.step().reason
    world.now += timedelta(minutes=59)
    world.arriving = [500]
    assert "lie between two" in world.schedule.step().reason
    world.now += timedelta(minutes=1)
    assert "enough that is new: 500 events" in world.schedule.step().reason
    assert len(world.runs) == 3
    assert [line.partition(":")[0] for line in world.said].count("training") == 3


def test_it_waits_while_a_release_is_on_its_way_for_it_would_be_judged_against_another(world: World) -> None:
    board = open_board(world.settings)
    world.arriving = [200]
    asked = ask_for(board, "next-1", alias="items", standing=[])
    assert world.schedule.step().reason == "next-1 is on its way to be live"
    board.change(asked, asked.model_copy(update={"wanted": False}))
    assert world.schedule.step().train


PASSED = Manifest(
    release_id="next-1",
    created_at=NOW,
    base_model="m",
    dimension=3,
    encoder=EncoderConfig(pooling="mean", max_length=8),
    files={"model.safetensors": FileEntry(sha256="0" * 64, size_bytes=1)},
    parent="live-1",
)


@pytest.mark.parametrize(
    ("live", "others", "asked"),
    [("live-1", [], True), ("live-2", [], False), ("live-1", ["other-1"], False)],
)
def test_only_what_was_judged_against_the_live_release_is_asked_for_by_itself(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, live: str, others: list[str], asked: bool
) -> None:
    monkeypatch.setattr(learning, "live_release", lambda settings, data_dir: live)
    settings = world.settings.model_copy(
        update={
            "rollout": world.settings.rollout.model_copy(update={"approval": "automatic"}),
            "qdrant": world.settings.qdrant.model_copy(update={"url": f"edge:{tmp_path / 'index'}"}),
        }
    )
    board = open_board(settings)
    for other in others:
        ask_for(board, other, alias="items", standing=[])
    said: list[str] = []
    for _ in range(2):  # by a trainer that was killed before it had put down what it saw
        publish_wish(settings, tmp_path, Outcome(Verdict(passed=True), PASSED), said.append)
    wanted = [one.release_id for one in board.all() if one.wanted]
    assert wanted == (["next-1"] if asked else others)
    assert ("goes live by itself" if asked else "has passed, but against live-1") in said[-1]
    publish_wish(settings, tmp_path, Outcome(Verdict(passed=False), PASSED), said.append)
    assert len(said) == 2


def test_what_was_decided_is_kept_and_shown(world: World) -> None:
    assert last_decisions(world.settings) == {}
    world.arriving = [120]
    world.schedule.step()
    world.schedule.step()
    found = last_decisions(world.settings)
    assert found["last"]["reason"].startswith("0 new events")
    assert found["last to train"]["reason"].startswith("nothing was trained yet")
    path = Path(world.settings.training.folder) / "decisions.jsonl"
    path.write_text(path.read_text() * 400)
    world.schedule.step()
    lines = path.read_text().splitlines()
    assert len(lines) == 500
    assert json.loads(lines[-1])["figures"] == {"new events": 0.0}


def test_beside_another_trainer_it_waits_and_goes_on(world: World) -> None:
    world.arriving = [200]
    with the_only_trainer(world.settings):
        with pytest.raises(Halt, match="another trainer"):
            world.schedule.step()
        stopped = threading.Event()
        looking = threading.Thread(target=world.schedule.run, args=(stopped,))
        looking.start()
        while not world.said:
            stopped.wait(0.01)
        stopped.set()
        looking.join(10)
        assert not looking.is_alive()
    assert world.runs == []
    assert "another trainer" in world.said[0]
    assert world.schedule.step().train
    assert world.runs == ["live"]


def test_a_run_that_fails_of_disk_memory_or_a_lost_file_is_tried_again_and_ends_no_trainer(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.settings = world.settings.model_copy(
        update={"schedule": world.settings.schedule.model_copy(update={"check_minutes": 1e-4})}
    )
    world.schedule = Schedule(world.settings, Path("var"), say=world.said.append, now=lambda: world.now)
    world.failures = [
        FileNotFoundError(2, "No such file", "events-x.parquet"),
        RuntimeError("CUDA out of memory"),
        OSError(28, "No space left on device"),
    ]
    world.arriving = [200]
    stopped = threading.Event()
    looking = threading.Thread(target=world.schedule.run, args=(stopped,))
    looking.start()
    while looking.is_alive() and len(world.runs) < 4:
        stopped.wait(0.01)
    alive = looking.is_alive()
    stopped.set()
    looking.join(10)
    assert alive
    assert world.runs == ["live"] * 4
    assert [line for line in world.said if line.startswith("not trained")] == [
        "not trained: OSError: [Errno 28] No space left on device",
        "not trained: RuntimeError: CUDA out of memory",
        "not trained: FileNotFoundError: [Errno 2] No such file: 'events-x.parquet'",
    ]
    traces = [one for one in caplog.records if one.msg.startswith("training_failed")]
    assert len(traces) == 3
    assert all(one.exc_info for one in traces)


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
def test_who_stops_the_trainer_is_obeyed(world: World, signal: type[BaseException]) -> None:
    world.arriving, world.failures = [200], [signal()]
    with pytest.raises(signal):
        world.schedule.run(threading.Event())
    assert world.runs == ["live"]


def test_the_trainer_has_its_own_device_where_one_is_set() -> None:
    settings = Settings.model_validate({"model": {"device": "cpu"}})
    assert on_its_device(settings).model.device == "cpu"
    own = Settings.model_validate({"model": {"device": "cpu"}, "training": {"device": "cuda:1"}})
    assert on_its_device(own).model.device == "cuda:1"
