"""From stars on catalog.reviews to a head, to opinions, to insights.opinions and to what queries ask for."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.kafka import Publisher
from adapters.kafka_admin import ensure_topics, open_admin
from adapters.kafka_log import read_to_end
from adapters.redis_client import RedisSettings
from adapters.releases import ReleaseSettings, ReleaseStore
from app import opinions
from app.local import LocalRedis
from app.settings import Settings
from app.wiring import open_opinions
from consumers.assembly import fingerprints_of
from consumers.opinion_figures import OpinionSettings
from consumers.runner import RunnerSettings
from model.opinion_settings import HeadSettings
from model.opinion_training import NothingLearned
from model.release import first_release
from model.settings import ModelSettings
from schemas.events import OpinionInsight, ReviewPosted, ReviewRemoved
from schemas.items import reviews_fingerprint
from schemas.parsing import parse_event
from schemas.vectors import REVIEWS
from tests.connected.test_pipeline import NOW, product
from tests.support.pipeline import Pipeline, RunnerThread
from tests.support.tiny_model import GRAPHS, write_tiny_model

PATIENCE_SECONDS = 60.0
ASPECTS = "drill: {good: [the red steel drill], bad: [the blue battery drill]}"


def review(number: int, product_id: str, *, good: bool) -> ReviewPosted:
    said = "The red steel drill." if good else "The blue battery drill."
    return ReviewPosted(
        review_id=f"r{number}",
        product_id=product_id,
        revision=1,
        occurred_at=NOW,
        rating=5 if good else 1,
        text=f"{said} Number {number}.",
    )


def said(pipeline: Pipeline) -> dict[str, dict[str, str]]:
    """What whoever reads the compacted topic knows."""
    records = read_to_end(pipeline.settings, pipeline.topics.insights_opinions.name)
    found = [parse_event(record.value or b"", OpinionInsight) for record in records]
    return {one.product_id: dict(one.tendencies) for one in found}


def wait_until_said(pipeline: Pipeline, running: RunnerThread, expected: dict[str, dict[str, str]]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while (found := said(pipeline)) != expected:
        running.check()
        assert time.monotonic() < until, found
        time.sleep(0.2)


@pytest.mark.parametrize("broker", ["tansu"], indirect=True)
def test_a_head_that_is_trained_hears_what_was_there_and_what_comes(
    pipeline: Pipeline, redis_server: LocalRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "aspects.yaml").write_text(ASPECTS)
    settings = Settings(
        namespace=pipeline.names.namespace,
        kafka=pipeline.settings,
        redis=RedisSettings(url=redis_server.url),
        releases=ReleaseSettings(url=str(tmp_path / "releases"), cache=str(tmp_path / "cache")),
        model=ModelSettings(
            name=str(write_tiny_model(tmp_path / "model")), engine="onnx", graphs=GRAPHS, threads=1
        ),
        opinion_heads=HeadSettings(
            url=str(tmp_path / "heads"), aspects=str(tmp_path / "aspects.yaml"), least=10
        ),
        opinions=OpinionSettings(least_reviews=2),
        loop=RunnerSettings(commit_interval_seconds=0.05),
    )
    release = first_release(
        settings.model, ReleaseStore(settings.releases), created_at=datetime.now(UTC)
    ).release_id
    monkeypatch.setattr(opinions, "live_release", lambda *_: release)
    ensure_topics(
        open_admin(pipeline.settings), [pipeline.topics.insights_opinions], partitions=1, replication_factor=1
    )
    pipeline.start_reviews()
    pipeline.publish([product("good"), product("bad"), product("late")])
    with pytest.raises(NothingLearned):
        opinions.train_opinions(settings, tmp_path, say=print)
    pipeline.publish(
        review(number, "good" if number % 2 else "bad", good=bool(number % 2)) for number in range(40)
    )
    pipeline.wait_until_drained()
    publisher = Publisher(pipeline.settings, client_id="test-opinions")
    judge = opinions.LiveJudge(settings, open_opinions(settings), None)
    running = RunnerThread(opinions.opinions_runner(settings, publisher=publisher, judge=judge), "opinions")
    try:
        assert judge() is None
        made = opinions.train_opinions(settings, tmp_path, say=print)
        assert (made.parent, open_opinions(settings).head()) == (release, made.release_id)
        wait_until_said(pipeline, running, {"good": {"drill": "good"}, "bad": {"drill": "bad"}})
        pipeline.publish([review(number, "late", good=False) for number in (50, 51)])
        wait_until_said(
            pipeline,
            running,
            {"good": {"drill": "good"}, "bad": {"drill": "bad"}, "late": {"drill": "bad"}},
        )
        pipeline.publish([ReviewRemoved(review_id="r51", product_id="late", revision=2, occurred_at=NOW)])
        wait_until_said(pipeline, running, {"good": {"drill": "good"}, "bad": {"drill": "bad"}, "late": {}})
        pipeline.wait_until_drained()
        found = {name: pipeline.point(name) for name in ("good", "bad", "late")}
        assert {name: one and one.payload.get("opinions") for name, one in found.items()} == {
            "good": ["drill: good"],
            "bad": ["drill: bad"],
            "late": None,
        }
        # The vector `reviews` is made of what they come to, and of the digest.
        states = pipeline.store.read(["good", "bad", "late"])
        for name, told in (("good", "Good drill. "), ("bad", "Bad drill. "), ("late", "")):
            point, reviews = found[name], states[name].reviews
            assert point is not None
            assert reviews is not None
            assert fingerprints_of(point)[REVIEWS] == reviews_fingerprint(told + reviews.digest)
        # Nothing is left to be heard.
        assert opinions.catch_up(settings, publisher) == 0
    finally:
        running.stop()
        publisher.close()
        judge.close()
