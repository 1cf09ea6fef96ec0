"""`simstream doctor`: each planted fault is found with its remedy, and the other checks are made as well.

tests/connected/test_operations.py asks it about a whole stack that is well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from adapters.index_edge import EdgeIndex
from adapters.kafka import Publisher
from adapters.kafka_admin import delete_records, ensure_topics, open_admin
from adapters.kafka_groups import GroupOffsets
from adapters.redis_client import connect
from adapters.redis_nodes import RedisNodes, Vitals
from adapters.redis_rollouts import ROLLOUT_LEASE
from adapters.releases import ReleaseSettings, ReleaseStore
from app import doctor_releases, doctor_stores
from app.doctor import Finding, Report, clock, disks, examine, public_keys, service
from app.local import LocalRedis
from app.runners import state_group, state_runner
from app.settings import Settings, load_settings
from app.wiring import alias_of, make_topics, open_board, open_generations, open_publisher, patiently
from model.release import first_release
from model.settings import ModelSettings
from schemas.errors import Halt, Transient
from schemas.rollouts import Rollout, RolloutState
from schemas.topics import Topic
from schemas.vectors import CollectionSpec
from tests.support.draining import quick_settings
from tests.support.release_shop import thread
from tests.support.servers import ApacheKafka
from tests.support.tiny_model import GRAPHS, write_tiny_model

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
WELL = Vitals(
    name="redis:6379",
    version="7.2.4",
    policy="noeviction",
    used_bytes=100,
    allowed_bytes=1_000,
    keeps_log=True,
    log_written=True,
    fsync="everysec",
    ahead_seconds=0.4,
    within_seconds=0.01,
    cluster_ok=None,
)


@pytest.fixture
def settings(redis_server: LocalRedis, namespace: str, tmp_path: Path) -> Settings:
    """Redis of the session, an embedded index and releases of its own; no broker."""
    found = load_settings({"SIMSTREAM_NAMESPACE": namespace, "SIMSTREAM_KAFKA__PARTITIONS": "2"})
    return found.model_copy(
        update={
            "redis": found.redis.model_copy(update={"url": redis_server.url}),
            "qdrant": found.qdrant.model_copy(update={"url": f"edge:{tmp_path / 'index'}"}),
            "releases": ReleaseSettings(url=str(tmp_path / "releases"), cache=str(tmp_path / "cache")),
        }
    )


def said(findings: Iterable[Finding]) -> dict[str, str]:
    """What was found, by subject; every finding says what to do."""
    found = list(findings)
    assert all(one.remedy and one.finding and one.severity in ("fault", "warning") for one in found)
    return {one.subject: one.finding for one in found}


# --- the frame ---------------------------------------------------------------------------------------


def test_what_cannot_be_looked_at_is_a_finding_and_the_rest_is_looked_at() -> None:
    def away() -> Iterable[Finding]:
        raise Transient("the broker does not answer")

    def stopped() -> Iterable[Finding]:
        raise Halt("credentials refused")

    def warns() -> Iterable[Finding]:
        yield Finding("c", "warning", "s", "f", "r")

    report = examine(
        {"a": (away, "start it"), "b": (stopped, "mend them"), "c": (warns, "")}, patience_seconds=0.0
    )
    assert report.checked == ["a", "b", "c"]
    assert [(one.check, one.finding, one.remedy) for one in report.findings] == [
        ("a", "the broker does not answer", "start it"),
        ("b", "credentials refused", "mend them"),
        ("c", "f", "r"),
    ]


def test_a_broker_and_a_redis_that_are_away_do_not_hide_the_rest(
    settings: Settings, live: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in ("kafka_admin", "kafka_groups", "kafka_spans"):
        monkeypatch.setattr(f"adapters.{module}._TIMEOUT_SECONDS", 0.5)
    nowhere = settings.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    settings = settings.model_copy(update={"kafka": nowhere})
    report = examine(doctor_stores.checks(settings, tmp_path, embedded=False), patience_seconds=0.0)
    found = {one.check: one.remedy for one in report.findings}
    assert set(found) == {"topics", "groups", "service", "keys"}
    assert "SIMSTREAM_KAFKA__BOOTSTRAP_SERVERS" in found["topics"]
    gone = settings.redis.model_copy(update={"url": "redis://127.0.0.1:1/0"})
    settings = settings.model_copy(update={"redis": gone})
    report = examine(doctor_stores.checks(settings, tmp_path, embedded=False), patience_seconds=0.0)
    assert {one.check for one in report.findings} == {*found, "redis", "state", "rollouts"}
    assert len(report.checked) == 10
    assert report.exit_code == 1


def test_a_store_that_says_not_now_is_asked_again() -> None:
    answers: list[BaseException | None] = [Transient("not the leader"), Transient("not the leader"), None]

    def check() -> Iterable[Finding]:
        yield Finding("a", "warning", "s", "found before the answer failed", "r")
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    report = examine({"a": (check, "")}, patience_seconds=60.0)
    assert [one.finding for one in report.findings] == ["found before the answer failed"]
    assert answers == []


def test_the_exit_code_tells_faults_from_warnings_from_nothing() -> None:
    fault, warning = Finding("a", "fault", "", "", ""), Finding("a", "warning", "", "", "")
    assert [Report([], found).exit_code for found in ([], [warning], [warning, fault])] == [0, 3, 1]


@pytest.mark.parametrize(
    ("ahead", "within", "found"), [(0.5, 0.0, False), (-3.0, 0.1, True), (3.0, 0.1, True), (3.0, 2.0, False)]
)
def test_a_clock_is_off_when_the_time_of_the_answer_does_not_explain_it(
    ahead: float, within: float, found: bool
) -> None:
    assert bool(list(clock("redis", "r", ahead_seconds=ahead, within_seconds=within))) is found


@pytest.mark.parametrize(
    ("total_gib", "free_gib", "severity"),
    [(1_000.0, 100.0, None), (1_000.0, 4.0, "warning"), (1_000.0, 0.4, "fault"), (10.0, 2.0, None)],
)
def test_a_disk_that_is_nearly_full_is_found_once(
    settings: Settings, tmp_path: Path, total_gib: float, free_gib: float, severity: str | None
) -> None:
    def usage(path: Path) -> tuple[int, int, int]:
        assert path.exists()
        return int(total_gib * 1024**3), 0, int(free_gib * 1024**3)

    found = list(disks(settings, tmp_path, usage=usage))
    assert {one.severity for one in found} == ({severity} if severity else set())
    # The folders of this test lie on one or two disks, whatever there are of them.
    assert len(found) <= 2


def test_keys_that_anybody_knows_are_found_and_own_ones_are_not(settings: Settings, tmp_path: Path) -> None:
    sketch = settings.behaviour.sketch.model_copy(update={"hash_key": SecretStr("simstream")})
    public = settings.model_copy(
        update={"behaviour": settings.behaviour.model_copy(update={"sketch": sketch})}
    )
    subjects = [one.subject for one in public_keys(public)]
    assert subjects == ["SIMSTREAM_BEHAVIOUR__SKETCH__HASH_KEY", "SIMSTREAM_ERASURES__KEY"]
    assert list(doctor_stores.checks(public, tmp_path, embedded=True)["keys"][0]()) == []
    sketch = sketch.model_copy(update={"hash_key": SecretStr("our own")})
    own = settings.model_copy(
        update={
            "behaviour": settings.behaviour.model_copy(update={"sketch": sketch}),
            "erasures": settings.erasures.model_copy(update={"key": SecretStr("another")}),
        }
    )
    assert list(public_keys(own)) == []


# --- Redis -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ill", "finding"),
    [
        ({"version": "6.0.16"}, "version 6.0.16"),
        ({"policy": "allkeys-lru"}, "maxmemory-policy is allkeys-lru"),
        ({"keeps_log": False}, "keeps no append-only file"),
        ({"fsync": "no"}, "appendfsync is no"),
        ({"log_written": False}, "append-only file failed"),
        ({"used_bytes": 850}, "85% of its memory"),
        ({"ahead_seconds": 90.0}, "90.0 s ahead of"),
        ({"cluster_ok": False}, "the cluster is not ok"),
    ],
)
def test_a_redis_that_is_not_as_it_has_to_be_is_found(ill: dict[str, Any], finding: str) -> None:
    assert list(doctor_stores.of_node(WELL)) == []
    (text,) = said(doctor_stores.of_node(WELL._replace(**ill))).values()
    assert finding in text


def test_a_real_redis_tells_its_vitals_and_a_planted_policy_is_found(tmp_path: Path) -> None:
    with LocalRedis(tmp_path) as server:
        settings = load_settings({"SIMSTREAM_REDIS__URL": server.url})
        assert list(doctor_stores.redis_nodes(settings)) == []
        with connect(settings.redis) as client:
            client.config_set("maxmemory-policy", "volatile-lru")
            client.config_set("appendonly", "no")
            client.config_set("maxmemory", 1)
        found = [one.finding for one in doctor_stores.redis_nodes(settings)]
        assert [text.partition(":")[0] for text in found[:2]] == [
            "maxmemory-policy is volatile-lru",
            "it keeps no append-only file",
        ]
        assert "of its memory is in use" in found[2]


def test_the_vitals_of_a_cluster_are_those_of_each_node(redis_cluster: Any) -> None:
    settings = load_settings({"SIMSTREAM_REDIS__URL": redis_cluster.url, "SIMSTREAM_REDIS__CLUSTER": "true"})
    nodes = RedisNodes(connect(settings.redis)).vitals()
    assert len({one.name for one in nodes}) == 3
    assert all(one.cluster_ok for one in nodes)
    assert list(doctor_stores.redis_nodes(settings)) == []


def test_a_state_that_a_rebuild_has_left_is_found(settings: Settings) -> None:
    assert list(doctor_stores.generations(settings)) == []
    generations = open_generations(settings)
    generations.take_over(generations.make())
    assert list(said(doctor_stores.generations(settings))) == ["generations 1"]


# --- topics and groups -------------------------------------------------------------------------------


@pytest.fixture
def with_kafka(settings: Settings, kafka: ApacheKafka) -> Settings:
    """The settings, with a broker of Apache Kafka."""
    return settings.model_copy(update={"kafka": quick_settings(kafka)})


def test_topics_that_are_missing_or_made_otherwise_are_found(with_kafka: Settings) -> None:
    named = with_kafka.named_topics()
    theirs: list[Topic] = [
        replace(named.products, cleanup="delete", retention_ms=1_000),
        replace(named.events, max_message_bytes=1_000),
    ]
    ensure_topics(open_admin(with_kafka.kafka), theirs, partitions=1, replication_factor=1)
    ours = with_kafka.kafka.model_copy(update={"partitions": 2})
    with_kafka = with_kafka.model_copy(update={"kafka": ours})
    texts = [(one.subject, one.finding.partition(",")[0]) for one in doctor_stores.topics(with_kafka)]
    assert (named.updated.name, "does not exist") in texts
    assert (named.products.name, "cleanup.policy is delete") in texts
    assert (named.products.name, "retention.ms is 1000") in texts
    assert (named.events.name, "max.message.bytes is 1000") in texts
    assert (named.events.name, "1 partitions") in texts
    assert (named.reviews.dead_letters, "does not exist") in texts


def test_topics_as_they_are_made_here_are_well(with_kafka: Settings) -> None:
    make_topics(with_kafka)
    assert list(doctor_stores.topics(with_kafka)) == []


def found_in_groups(settings: Settings) -> list[Finding]:
    """A topic that was made a moment ago may have no leader yet."""
    return patiently("kafka", lambda: list(doctor_stores.groups(settings, tells_members=True)))


def test_a_group_without_a_member_far_behind_or_overtaken_by_retention_is_found(with_kafka: Settings) -> None:
    make_topics(with_kafka)
    events = with_kafka.named_topics().events.name
    group = state_group(with_kafka, "behaviour", 1)
    with GroupOffsets(with_kafka.kafka, group=group, topics=[events]) as offsets:
        offsets.start_at_ends()
    publisher = Publisher(with_kafka.kafka)
    for number in range(doctor_stores.LAG_RECORDS + 1):
        publisher.send(events, key=f"u{number}", value=b"{}")
    publisher.close()
    found = [one for one in found_in_groups(with_kafka) if one.subject == group]
    assert [one.finding for one in found] == [
        "nobody reads in it",
        f"{doctor_stores.LAG_RECORDS + 1} records behind",
    ]
    delete_records(open_admin(with_kafka.kafka), events, {0: 100})
    texts = said(found_in_groups(with_kafka))
    assert texts[f"{group}, {events}[0]"].startswith("100 records after its commit were removed")


def test_a_group_that_is_read_and_keeps_up_is_well(with_kafka: Settings) -> None:
    make_topics(with_kafka)
    publisher = open_publisher(with_kafka, "test")
    runner = state_runner("products", with_kafka, publisher=publisher)
    with thread(runner.run, runner.stop):
        assert runner.assigned.wait(30.0)
        subjects = {one.subject for one in found_in_groups(with_kafka)}
    publisher.close()
    assert state_group(with_kafka, "products", 1) not in subjects
    assert state_group(with_kafka, "reviews", 1) in subjects


# --- index, releases, rollouts -----------------------------------------------------------------------


@pytest.fixture
def live(settings: Settings, tmp_path: Path) -> str:
    """The collection of a tiny release, live in an index that nobody has open."""
    model = ModelSettings(
        name=str(write_tiny_model(tmp_path / "model")), engine="onnx", graphs=GRAPHS, threads=1
    )
    manifest = first_release(model, ReleaseStore(settings.releases), created_at=NOW)
    collection = f"{settings.namespace}items__{manifest.release_id}__1"
    index = EdgeIndex(tmp_path / "index")
    index.ensure_collection(collection, CollectionSpec(dense={"content": manifest.dimension}))
    index.set_alias(alias_of(settings), collection)
    index.close()
    return collection


def looked_at(settings: Settings) -> dict[str, str]:
    checks: list[Callable[[Settings], Iterable[Finding]]] = [
        doctor_releases.index_alias,
        doctor_releases.live_release,
        doctor_releases.rollouts,
    ]
    return said(one for check in checks for one in check(settings))


def test_a_live_release_that_is_whole_is_well(settings: Settings, live: str) -> None:
    assert looked_at(settings) == {}


def test_an_index_without_an_alias_and_one_that_points_nowhere_are_found(
    settings: Settings, tmp_path: Path
) -> None:
    assert looked_at(settings) == {alias_of(settings): "nothing is live: there is no such alias"}
    (tmp_path / "index" / "aliases.json").write_text(json.dumps({alias_of(settings): "items__gone__1"}))
    found = looked_at(settings)
    assert found[alias_of(settings)] == "it points at items__gone__1, which does not exist"
    assert "gone" in found["gone"]


def test_a_release_whose_file_was_altered_is_found(settings: Settings, live: str) -> None:
    (release,) = ReleaseStore(settings.releases).list()
    file = Path(settings.releases.url) / release / "config.json"
    file.write_text(file.read_text() + " ")
    assert "config.json" in looked_at(settings)[release]


def test_rollouts_that_nobody_works_on_differ_from_the_alias_or_wait_are_found(
    settings: Settings, live: str
) -> None:
    board = open_board(settings)
    other = live.replace("__1", "__2")
    asked = Rollout(
        release_id="r2", collection=other, state=RolloutState.LIVE, wanted=True, reason="", since=NOW
    )
    board.change(None, asked)
    found = looked_at(settings)
    assert found[live] == f"the alias says it is live, the records say {other}"
    assert found[other] == "r2 is asked for and nobody works on it"
    assert board.take(ROLLOUT_LEASE, "test", 30.0) is not None
    board.change(asked, waiting := asked.model_copy(update={"reason": "its writer has not caught up"}))
    board.report("service-1", ["another"])
    assert looked_at(settings) == {
        waiting.collection: "live: its writer has not caught up",
        "service-1": f"the encoder of {live.rsplit('__', 2)[1]} is not loaded there: it answers from the "
        "collection before",
    }


# --- the service -------------------------------------------------------------------------------------


def answering(
    status: int, body: dict[str, Any], *, at: datetime | None = None
) -> Callable[..., httpx.Response]:
    date = format_datetime(at or datetime.now(UTC), usegmt=True)
    return lambda url, timeout: httpx.Response(status, json=body, headers={"date": date})


def test_a_service_that_does_not_answer_is_not_ready_lacks_a_store_or_has_another_clock_is_found(
    settings: Settings, tmp_path: Path
) -> None:
    def asked(get: Callable[..., httpx.Response]) -> list[str]:
        return list(said(service(settings, tmp_path, get=get)).values())

    def refused(url: str, timeout: float) -> httpx.Response:
        raise httpx.ConnectError("refused")

    assert asked(answering(200, {"status": "ready", "missing": []})) == []
    assert asked(refused) == ["it does not answer: refused"]
    assert asked(answering(503, {"detail": "nothing is live yet"})) == ["nothing is live yet"]
    lacking = {"missing": [{"store": "broker", "message": "it is away"}]}
    assert asked(answering(200, lacking)) == ["it is away"]
    (text,) = asked(answering(200, {"missing": []}, at=datetime.now(UTC) - timedelta(minutes=5)))
    assert "behind this machine's" in text
