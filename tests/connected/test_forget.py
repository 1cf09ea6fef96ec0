"""A shopper who asks to be forgotten is in no store of ours afterwards, nor once everything is read again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import cast

import pytest
import redis

from adapters.index_edge import EdgeIndex
from adapters.kafka_log import read_to_end
from adapters.redis_client import connect
from adapters.shopper_hash import shopper_hash
from app.forgetting import Forgotten, forget
from app.local import LocalRedis
from app.wiring import open_readers
from consumers.behaviour import BehaviourHandler
from consumers.dead_letters import DeadLetters
from consumers.products import ProductsHandler
from consumers.redrive import read_dead_letters
from consumers.reviews import ReviewsHandler
from schemas.errors import Transient
from schemas.vectors import BEHAVIOUR, SparseVector
from tests.support.draining import quick_settings
from tests.support.rebuilding import PARTITIONS, LivingShop, living, mixture, quick
from tests.support.servers import Kafka

NOW = datetime.now(UTC)
#: One who looks, buys and writes; the ids of the shop's shoppers begin alike.
USER, OTHER = "u3", "u5"


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody kills Redis here, so commits need not trail what it may lose."""
    for handler in (ProductsHandler, ReviewsHandler, BehaviourHandler):
        monkeypatch.setattr(handler, "commit_delay_seconds", 0.0)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[LocalRedis]:
    """One whose files hold nothing of other tests."""
    with LocalRedis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def shop(kafka: Kafka, own_redis: LocalRedis, namespace: str, tmp_path: Path) -> Iterator[LivingShop]:
    """A shop in which things have happened, and all of it has arrived."""
    index = EdgeIndex(tmp_path / "index")
    settings = quick(quick_settings(kafka, partitions=PARTITIONS), own_redis.url, namespace)
    settings = settings.model_copy(
        update={
            "archive": settings.archive.model_copy(update={"folder": str(tmp_path / "archive")}),
            "training": settings.training.model_copy(update={"folder": str(tmp_path / "training")}),
        }
    )
    with living(settings, index) as made:
        made.start()
        made.shop.publish(mixture(Random(5), count=600, now=NOW))
        for user in (USER, OTHER):
            for broken in (
                json.dumps({"user_id": user, "type": "stare"}).encode(),
                b"{no json of " + user.encode(),
            ):
                made.shop.send(made.names.topics.events.name, key=user, value=broken)
        made.drain()
        yield made
    index.close()


def traces(shop: LivingShop, files: Path, user: str) -> dict[str, int]:
    """Where the shopper can be found: in what Redis answers, in its files, in dead letters, in vectors."""
    name = shopper_hash(user, shop.settings.behaviour.sketch.key)
    member = str(int.from_bytes(name, "big", signed=True)).encode()
    entry = int.from_bytes(name[-4:], "big")
    client = connect(shop.settings.redis)
    assert isinstance(client, redis.Redis)
    found = dict.fromkeys(("keys", "members", "reviews", "files", "dead letters", "vectors"), 0)
    for key in client.scan_iter(count=1_000):
        found["keys"] += name.hex().encode() in key or user.encode() + b":" in key
        if client.type(key) == b"zset":
            found["members"] += client.zscore(key, member.decode()) is not None
        if client.type(key) == b"hash":
            found["reviews"] += sum(cast(bytes, value).endswith(name) for value in client.hvals(key))
    for file in files.rglob("*"):
        if file.is_file():
            body = file.read_bytes()
            found["files"] += sum(body.count(form) for form in (name.hex().encode(), name))
    topic = shop.names.topics.events.name
    for record in read_to_end(shop.settings.kafka, DeadLetters.topic_of(topic)):
        found["dead letters"] += record.key == user.encode()
    for point in shop.points(shop.collection).values():
        vector = point.vectors.get(BEHAVIOUR)
        if isinstance(vector, SparseVector):
            found["vectors"] += entry in vector.indices
    return found


def forgotten(shop: LivingShop, user: str) -> Forgotten:
    """As the command does."""
    return forget(shop.settings, user, collections=[shop.collection], timeout_seconds=60.0, say=print)


def test_a_forgotten_shopper_is_nowhere_and_does_not_come_back_when_everything_is_read_again(
    shop: LivingShop, own_redis: LocalRedis
) -> None:
    before, other = traces(shop, own_redis.folder, USER), traces(shop, own_redis.folder, OTHER)
    print("before", before)
    assert all(before.values()), "the search has to find what it looks for"
    training = Path(shop.settings.training.folder)
    for name in ("20261125-120000-aaaaaa", "searches/20261125-120000-bbbbbb/replay-0.3"):
        (training / name).mkdir(parents=True)
        (training / name / "examples.json").write_text('["what they searched for"]')

    done = forgotten(shop, USER)

    print(done)
    assert done.pending == ()
    assert done.readers == 2
    assert done.keys > 0
    assert done.sketches == before["members"]
    assert done.dead_letters == 2
    assert done.redis_files_rewritten
    assert done.runs_examples == 2
    assert not list(training.rglob("examples.*"))
    assert not any(traces(shop, own_redis.folder, USER).values())

    again = sum(shop.read_again(consumer) for consumer in ("reviews", "behaviour"))
    shop.drain()
    after = traces(shop, own_redis.folder, USER)
    print(f"{again} records read again: {after}")
    assert again > 300
    assert not any(after.values())
    assert traces(shop, own_redis.folder, OTHER)["members"] == other["members"]


def test_what_was_cut_off_before_the_index_heard_of_it_is_done_by_the_same_command(
    shop: LivingShop, own_redis: LocalRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in Redis says any more which items it was about."""
    before = traces(shop, own_redis.folder, USER)

    def refuses(*_: object) -> None:
        raise Transient("the broker has not taken the announcements; give the command again")

    with monkeypatch.context() as cut_off:
        cut_off.setattr("app.forgetting._announce", refuses)
        with pytest.raises(Transient):
            forgotten(shop, USER)
    halfway = traces(shop, own_redis.folder, USER)
    assert (halfway["members"], halfway["vectors"]) == (0, before["vectors"])
    done = forgotten(shop, USER)
    assert (done.pending, done.sketches) == ((), before["members"])
    assert not any(traces(shop, own_redis.folder, USER).values())
    client = connect(shop.settings.redis)
    kept = {key.decode() for key in client.scan_iter(match="*erasures:*")}
    assert {key.rpartition("erasures:")[2] for key in kept} <= {"readers"}


def test_dead_letters_of_others_stay_as_they_were(shop: LivingShop) -> None:
    topic = shop.names.topics.events.name
    before = {one.identity: (one.key, one.value) for one in read_dead_letters(shop.settings.kafka, topic)}
    assert {key for key, _ in before.values()} == {USER.encode(), OTHER.encode()}
    forgotten(shop, USER)
    after = {one.identity: (one.key, one.value) for one in read_dead_letters(shop.settings.kafka, topic)}
    assert after == {one: letter for one, letter in before.items() if letter[0] == OTHER.encode()}
    assert len(after) == 2


def test_it_waits_for_a_reader_that_has_older_work_in_hand_and_says_which(shop: LivingShop) -> None:
    readers = open_readers(shop.settings)
    readers.report("slow-one", {})
    said: list[str] = []
    with pytest.raises(Exception, match="slow-one did not acknowledge"):
        forget(shop.settings, USER, collections=[], timeout_seconds=2.0, say=said.append)
    assert "waiting for" in said[0]
    readers.leave("slow-one")
    assert forgotten(shop, USER).pending == ()


def test_what_the_shopper_does_afterwards_counts_again(shop: LivingShop, own_redis: LocalRedis) -> None:
    forgotten(shop, USER)
    later = [
        event for event in mixture(Random(9), count=200, now=NOW) if getattr(event, "user_id", "") == USER
    ]
    moved = [
        event.model_copy(update={"occurred_at": datetime.now(UTC) + timedelta(seconds=1)}) for event in later
    ]
    assert moved
    shop.shop.publish(moved)
    shop.drain()
    assert traces(shop, own_redis.folder, USER)["keys"] > 0
