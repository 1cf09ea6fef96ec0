"""A backup that is older than what has happened, state and index lost whole: both come back to the same."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from adapters.index_edge import EdgeIndex
from adapters.kafka_groups import GroupOffsets, group_members
from adapters.kafka_reader import Partition
from adapters.redis_backup import read_backup, remove_keys, standing_keys
from adapters.redis_client import connect
from adapters.redis_nodes import RedisNodes
from adapters.releases import ReleaseSettings, ReleaseStore
from app.backup import STATE_FILE, back_up, restore
from app.local import LocalRedis
from app.rebuild import remove_retired
from app.runners import state_group
from app.wiring import open_generations
from model.release import first_release
from model.settings import ModelSettings
from schemas.errors import Halt
from schemas.vectors import item_vectors
from tests.support.draining import quick_settings
from tests.support.rebuilding import PARTITIONS, LivingShop, living, mixture, prompt_commits, quick, unlike
from tests.support.servers import Kafka
from tests.support.tiny_model import GRAPHS, write_tiny_model

NOW = datetime.now(UTC)
FIRST, SINCE = 400, 300


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt_commits(monkeypatch)


@pytest.fixture
def shop(kafka: Kafka, redis_server: LocalRedis, namespace: str, tmp_path: Path) -> Iterator[LivingShop]:
    """An empty shop; nothing runs yet."""
    index = EdgeIndex(tmp_path / "index")
    settings = quick(quick_settings(kafka, partitions=PARTITIONS), redis_server.url, namespace)
    releases = ReleaseSettings(url=str(tmp_path / "releases"), cache=str(tmp_path / "cache"))
    with living(settings.model_copy(update={"releases": releases}), index) as made:
        yield made
    index.close()


def lose_everything(shop: LivingShop, tmp_path: Path) -> None:
    """Redis without this namespace, an index without a point, a releases folder without a release."""
    nodes = RedisNodes(connect(shop.settings.redis))
    remove_keys(nodes, namespace=shop.settings.namespace, generation=1)
    assert standing_keys(nodes, namespace=shop.settings.namespace, generation=1) == 0
    shop.index.drop_collection(shop.collection)
    shop.index.ensure_collection(shop.collection, item_vectors(shop.encoder.dimension))
    (tmp_path / "releases").rename(tmp_path / "lost")


def catch_up(shop: LivingShop) -> None:
    shop.start()
    shop.drain()
    while shop.reconcile():
        shop.drain()
    shop.drain()


def test_state_index_and_releases_that_were_lost_come_back_from_an_older_backup(
    shop: LivingShop, tmp_path: Path
) -> None:
    model = ModelSettings(
        name=str(write_tiny_model(tmp_path / "model")), engine="onnx", graphs=GRAPHS, threads=1
    )
    release = first_release(model, ReleaseStore(shop.settings.releases), created_at=NOW)
    draw = Random(11)
    shop.start()
    shop.shop.publish(mixture(draw, count=FIRST, now=NOW))
    # While consumers write: what is half way is read again after the restore.
    told = back_up(shop.settings, tmp_path / "backup")
    shop.shop.publish(mixture(draw, count=SINCE, now=NOW, first=FIRST))
    shop.drain()
    shop.reconcile()
    shop.drain()
    expected, points = shop.export(1), shop.points(shop.collection)
    assert len(points) > 5

    with pytest.raises(Halt, match=r"consumers run \(.*behaviour.*\): stop them"):
        restore(shop.settings, tmp_path / "backup", replace=True)
    shop.stop()
    with pytest.raises(Halt, match="give --replace"):
        restore(shop.settings, tmp_path / "backup")

    lose_everything(shop, tmp_path)
    began = time.monotonic()
    assert restore(shop.settings, tmp_path / "backup") == told
    restored = shop.export(1)
    assert len(list(read_backup(tmp_path / "backup" / STATE_FILE))) == told.keys
    catch_up(shop)
    took = time.monotonic() - began
    assert restored != expected, "the backup was not older than what has happened"
    assert shop.export(1) == expected
    assert unlike(points, shop.points(shop.collection)) == []
    assert ReleaseStore(shop.settings.releases).manifest(release.release_id).files == release.files
    print(f"{told.keys} keys restored, {FIRST + SINCE} events, equal after {took:.1f} s")


def test_without_the_commits_going_back_what_happened_since_is_missing(
    shop: LivingShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.start()
    shop.shop.publish(mixture(Random(11), count=FIRST, now=NOW))
    shop.drain()
    back_up(shop.settings, tmp_path / "backup")
    shop.shop.publish(mixture(Random(12), count=SINCE, now=NOW, first=FIRST))
    shop.drain()
    expected = shop.export(1)
    shop.stop()
    monkeypatch.setattr("app.backup.GroupOffsets.commit", lambda self, offsets: None)
    restore(shop.settings, tmp_path / "backup", replace=True)
    shop.start()
    shop.drain()
    assert shop.export(1) != expected


def test_a_backup_that_is_not_whole_or_whose_topics_no_longer_reach_back_is_refused(
    shop: LivingShop, tmp_path: Path
) -> None:
    shop.start()
    shop.shop.publish(mixture(Random(11), count=50, now=NOW))
    shop.drain()
    folder = tmp_path / "backup"
    with pytest.raises(Halt, match="holds no whole backup"):
        restore(shop.settings, folder)
    back_up(shop.settings, folder)
    with pytest.raises(Halt, match="holds a backup already"):
        back_up(shop.settings, folder)
    shop.shop.publish(mixture(Random(12), count=50, now=NOW, first=50))
    shop.drain()
    shop.stop()
    shop.cut(shop.names.topics.events.name)
    with pytest.raises(Halt, match=r"begins at \d+, and the backup at \d+.*rebuild --from-log"):
        restore(shop.settings, folder, replace=True)
    with (folder / STATE_FILE).open("ab") as file:
        file.write(b"x")
    with pytest.raises(Halt, match="altered or cut off"):
        restore(shop.settings, folder, replace=True)
    with pytest.raises(Halt, match="is of namespace"):
        restore(shop.settings.model_copy(update={"namespace": "another."}), folder)


def test_a_backup_of_before_a_rebuild_waits_for_its_readers_and_is_read_from_its_own_commits(
    shop: LivingShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.start()
    shop.shop.publish(mixture(Random(11), count=50, now=NOW))
    shop.drain()
    told = back_up(shop.settings, tmp_path / "backup")
    generations = open_generations(shop.settings)
    rebuilt = shop.rebuild().run().generation
    shop.stop()
    # The state of the backup has gone; the one that is live is another, and somebody works on it.
    assert remove_retired(shop.settings) > 0
    shop.start("reviews")
    shop.shop.publish(mixture(Random(12), count=1, now=NOW, first=50))
    wait_for_a_member(shop, rebuilt)
    with pytest.raises(Halt, match=rf"consumers run \(.*reviews-g{rebuilt}\): stop them"):
        restore(shop.settings, tmp_path / "backup", replace=True)
    shop.stop()
    with pytest.raises(Halt, match="give --replace"):
        restore(shop.settings, tmp_path / "backup")

    live: list[int] = []
    commit = GroupOffsets.commit

    def committing(self: GroupOffsets, offsets: Mapping[Partition, int]) -> None:
        live.append(generations.live())
        commit(self, offsets)

    monkeypatch.setattr("app.backup.GroupOffsets.commit", committing)
    restore(shop.settings, tmp_path / "backup", replace=True)
    assert live == [rebuilt] * 3, (
        "whoever was started meanwhile worked on the restored state from old commits"
    )
    assert generations.live() == told.generation == 1
    assert generations.retired() == [rebuilt]
    assert generations.make() == rebuilt + 1


def wait_for_a_member(shop: LivingShop, generation: int) -> None:
    group, deadline = state_group(shop.settings, "reviews", generation), time.monotonic() + 30.0
    while not group_members(shop.settings.kafka, [group])[group]:
        assert time.monotonic() < deadline, "nobody has joined"
        time.sleep(0.1)
