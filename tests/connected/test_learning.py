"""From events on either broker to a candidate with a verdict: archive, pairs, training, gate, release."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from adapters.kafka import Publisher
from adapters.redis_client import connect
from adapters.releases import ReleaseStore
from app.learning import follow, train_once
from app.learning_inputs import archive_figures
from app.settings import Settings, load_settings
from app.trainer_process import Job, TrainerProcess
from app.wiring import make_topics, open_store
from consumers.erasures import erasure_key
from model.release import first_release
from schemas.errors import Halt
from schemas.events import UserErased, UserEvent
from tests.consumers.state import State
from tests.support.draining import quick_settings
from tests.support.learning import COLOURS, QUICK, THINGS
from tests.support.servers import Broker, Redis
from tests.support.tiny_model import write_tiny_model

NOW = datetime(2026, 11, 25, tzinfo=UTC)
ITEMS = [f"{colour}-{thing}-{number}" for colour in COLOURS for thing in THINGS for number in range(4)]


def settings_of(broker: Broker, redis_server: Redis, namespace: str, folder: Path) -> Settings:
    base = load_settings(
        {
            "SIMSTREAM_NAMESPACE": namespace,
            "SIMSTREAM_REDIS__URL": redis_server.url,
            "SIMSTREAM_MODEL__NAME": str(write_tiny_model(folder / "tiny")),
            "SIMSTREAM_MODEL__DEVICE": "cpu",
            "SIMSTREAM_RELEASES__URL": str(folder / "releases"),
            "SIMSTREAM_ARCHIVE__FOLDER": str(folder / "archive"),
            "SIMSTREAM_TRAINING__FOLDER": str(folder / "training"),
            "SIMSTREAM_PAIRS__MAX_PAIRS": "120",
            "SIMSTREAM_GATE__LEAST_QUERIES": "20",
            "SIMSTREAM_GATE__SAMPLES": "200",
            "SIMSTREAM_GATE__MOST_SLICE_LOSS": "1",
        }
    )
    return base.model_copy(update={"kafka": quick_settings(broker)})


def publish(settings: Settings, sessions: int, *, first: int = 0, user: str | None = None) -> int:
    """Sessions of three items of one colour, ten minutes apart."""
    generator = np.random.default_rng(first)
    publisher = Publisher(settings.kafka)
    topic = settings.named_topics().events.name
    sent = 0
    for session in range(first, first + sessions):
        colour = generator.integers(len(COLOURS))
        for step, place in enumerate(generator.choice(16, 3, replace=False)):
            event = UserEvent(
                event_id=f"{session}-{step}",
                type="click",
                user_id=user or f"u{session % 7}",
                session_id=f"s{session}",
                product_id=ITEMS[colour * 16 + place],
                occurred_at=NOW + timedelta(minutes=10 * session, seconds=step),
            )
            publisher.send(topic, key=event.user_id, value=event.model_dump_json().encode())
            sent += 1
    assert publisher.flush(30.0) == 0
    publisher.close()
    return sent


def test_events_become_a_candidate_with_a_verdict(
    broker: Broker, redis_server: Redis, namespace: str, tmp_path: Path
) -> None:
    settings = settings_of(broker, redis_server, namespace, tmp_path)
    make_topics(settings)
    state = State(connect(settings.redis), open_store(settings))
    for item in ITEMS:
        state.put(item, title=item.replace("-", " "), category=[item.split("-")[1]])
    store = ReleaseStore(settings.releases)
    parent = first_release(settings.model, store, created_at=NOW).release_id

    sent = publish(settings, 100)
    assert follow(settings).added == sent
    assert follow(settings).records == 0
    more = publish(settings, 20, first=100, user="to be forgotten")
    assert follow(settings).added == more

    publisher = Publisher(settings.kafka)
    erased = UserErased(erased_at=NOW + timedelta(days=30)).model_dump_json().encode()
    kept = tmp_path / "training" / "20261125-120000-aaaaaa"
    kept.mkdir(parents=True)
    for file in ("run.json", "examples.json", "examples.npz"):
        (kept / file).write_text('{"parent": "another", "recipe": {}}')
    assert follow(settings).erased == 0
    assert (kept / "examples.json").exists()
    name = erasure_key("to be forgotten", settings.erasures.secret)
    publisher.send(settings.named_topics().erasures.name, key=name, value=erased)
    assert publisher.flush(30.0) == 0
    publisher.close()
    assert follow(settings).erased == more
    assert [file.name for file in kept.iterdir()] == ["run.json"]
    window = archive_figures(settings)["window"]
    assert isinstance(window, dict)
    assert (window["events"], window["shoppers"]) == (sent, 7)

    recipe = tmp_path / "recipe.json"
    recipe.write_text(QUICK.model_copy(update={"distil": 0.1, "epochs": 3}).model_dump_json())
    followed = settings.training.model_copy(update={"recipe": str(recipe)})
    settings = settings.model_copy(update={"training": followed})
    outcome = train_once(settings, tmp_path, parent=parent)
    assert outcome.manifest is not None
    standing = store.manifest(outcome.manifest.release_id)
    assert standing.parent == parent
    assert standing.verdict == outcome.verdict
    assert standing.training is not None
    assert standing.training.data["sessions"] == 100
    (whole,) = [one for one in standing.verdict.figures if one.name == "new window" and not one.slice]
    assert whole.queries == 40
    assert not list((tmp_path / "training").rglob("examples.*"))
    assert whole.after > whole.before


def test_a_trainer_in_a_process_of_its_own_says_how_it_ended(
    broker: Broker, redis_server: Redis, namespace: str, tmp_path: Path
) -> None:
    settings = settings_of(broker, redis_server, namespace, tmp_path)
    nowhere = settings.qdrant.model_copy(update={"url": f"edge:{tmp_path / 'index'}"})
    settings = settings.model_copy(update={"qdrant": nowhere})
    make_topics(settings)
    sent = publish(settings, 5)
    trainer = TrainerProcess(Job(settings, tmp_path))
    try:
        said = trainer.next(120)
        assert said == ("said", f"archive: {sent} records, {sent} added, 0 unreadable, 0 erased, 0 folded")
        assert os.getpriority(os.PRIO_PROCESS, trainer.pid) == settings.training.nice
        with pytest.raises(Halt, match="nothing is live yet"):
            trainer.next(120)
    finally:
        trainer.stop()


def test_a_trainer_that_is_killed_is_told_from_one_that_has_nothing_to_say(
    broker: Broker, redis_server: Redis, namespace: str, tmp_path: Path
) -> None:
    settings = settings_of(broker, redis_server, namespace, tmp_path)
    trainer = TrainerProcess(Job(settings, tmp_path, scheduled=True))
    try:
        while 'simstream_process_memory_bytes{process="trainer"}' not in trainer.metrics:
            assert trainer.next(60) is None or trainer.metrics
        assert 'simstream_gate_verdicts_total{result="refused"} 0.0' in trainer.metrics
        os.kill(trainer.pid, signal.SIGKILL)
        with pytest.raises(Halt, match="exit code -9"):
            trainer.next(60)
    finally:
        trainer.stop()
