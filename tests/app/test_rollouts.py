"""A release goes live on running parts, while events arrive: one process, one backfill child, either broker.

The candidate's vectors are the live ones under a fixed rotation, so every vector is known.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from adapters.index_port import release_of
from adapters.releases import ReleaseSettings, ReleaseStore
from app.local import LocalRedis
from app.rollouts import make_rollouts, refuse_unless_passed, rolling
from app.runners import state_runner
from app.settings import Settings, load_settings
from app.wiring import make_topics, open_board, open_live, open_publisher, open_store
from app.written_collections import Instance, WrittenCollections
from consumers.release_requests import ask_back, ask_removal
from consumers.rollout import RolloutSettings
from model.release import first_release
from model.settings import ModelSettings
from schemas.releases import Manifest, Verdict
from schemas.rollouts import RolloutState
from tests.support.draining import quick_settings
from tests.support.release_shop import NOW, ReleaseShop, thread, until
from tests.support.rotated_model import permutation, write_rotated_model
from tests.support.servers import Broker
from tests.support.tiny_model import DIMENSION, GRAPHS, write_tiny_model

ITEMS = 60


@pytest.fixture
def settings(broker: Broker, redis_server: LocalRedis, namespace: str, tmp_path: Path) -> Settings:
    found = load_settings({"SIMSTREAM_NAMESPACE": namespace, "SIMSTREAM_LOG__LEVEL": "WARNING"})
    return found.model_copy(
        update={
            "kafka": quick_settings(broker),
            "redis": found.redis.model_copy(update={"url": redis_server.url}),
            "qdrant": found.qdrant.model_copy(update={"url": f"edge:{tmp_path / 'index'}"}),
            "releases": ReleaseSettings(url=str(tmp_path / "releases")),
            "model": ModelSettings(
                name=str(write_tiny_model(tmp_path / "model")), engine="onnx", graphs=GRAPHS, threads=1
            ),
            "rollout": RolloutSettings(poll_seconds=0.1, lease_seconds=3.0),
        }
    )


@pytest.fixture
def rotated(settings: Settings, tmp_path: Path) -> Manifest:
    """The candidate, published."""
    folder = write_rotated_model(tmp_path / "model", tmp_path / "rotated")
    store = ReleaseStore(settings.releases)
    return first_release(settings.model.model_copy(update={"name": str(folder)}), store, created_at=NOW)


@contextmanager
def running(settings: Settings) -> Iterator[ReleaseShop]:
    """The parts of one process of the stack, without HTTP."""
    with ExitStack() as opened:
        make_topics(settings)
        publisher = open_publisher(settings, "test")
        opened.callback(publisher.close)
        store = open_store(settings)
        index, _, releases = open_live(settings)
        opened.callback(index.close)
        opened.callback(releases.close)
        products = state_runner("products", settings, publisher=publisher)
        opened.enter_context(thread(products.run, products.stop))
        writers = WrittenCollections(
            settings, store=store, publisher=publisher, index=index, releases=releases
        )
        opened.enter_context(thread(writers.run, writers.stop))
        instance = Instance(settings, index=index, releases=releases, alone=False)
        opened.enter_context(thread(instance.run, instance.stop))
        rollouts = make_rollouts(
            settings, store=store, publisher=publisher, index=index, writes=writers.writes
        )
        opened.enter_context(rolling(rollouts))
        until(writers.assigned.is_set)
        yield ReleaseShop(settings, index, store, publisher, open_board(settings))


def test_a_release_is_filled_swapped_in_rolled_back_and_removed_while_events_arrive(
    settings: Settings, rotated: Manifest
) -> None:
    with running(settings) as shop:
        for number in range(ITEMS):
            shop.publish(number, 1)
        first = shop.live()
        until(lambda: all(shop.shows(first, number, 1) for number in range(ITEMS)))
        stopped = threading.Event()
        newest: dict[int, int] = {}

        def arrive() -> None:
            revision = 1
            while not stopped.wait(0.05):
                revision += 1
                number = revision % ITEMS
                title = f"a shoe of sort {revision}" if revision % 3 == 0 else None
                shop.publish(number, revision, title)
                newest[number] = revision

        events = threading.Thread(target=arrive, daemon=True)
        events.start()
        asked = shop.ask(rotated.release_id)
        ended = shop.follow(asked)
        assert ended.state is RolloutState.LIVE, ended.reason
        second = shop.live()
        assert second == asked.collection
        assert release_of(second) == rotated.release_id
        time.sleep(0.5)
        stopped.set()
        events.join()
        assert newest, "events have to arrive while it is filled"
        # Both collections are written: none of the events is missing in either.
        for collection in (first, second):
            until(lambda one=collection: all(shop.shows(one, *pair) for pair in newest.items()))  # type: ignore[misc]
        order = permutation(DIMENSION, 1).numpy()

        def rotated_exactly() -> bool:
            before, after = shop.vectors(first, ITEMS), shop.vectors(second, ITEMS)
            return all(np.allclose(after[one], before[one][order], atol=1e-4) for one in before)

        until(rotated_exactly)
        # Back, by one alias change.
        back = shop.follow(ask_back(shop.board))
        assert back.state is RolloutState.LIVE, back.reason
        assert shop.live() == first
        # And the other one is given up.
        ask_removal(shop.board, rotated.release_id)
        until(lambda: shop.index.collections() == [first])
        shop.publish(0, 1_000_000)
        until(lambda: shop.shows(first, 0, 1_000_000))


def test_what_the_gate_refused_stays_a_candidate_unless_a_person_overrules_it(rotated: Manifest) -> None:
    refuse_unless_passed(rotated, overruled=False)  # not trained here: no verdict
    worse = rotated.model_copy(
        update={"verdict": Verdict(passed=False, reasons=["golden pairs fell by 0.1"])}
    )
    with pytest.raises(
        ValueError, match=r"the gate refused release 'rotated-.*': golden pairs fell by 0\.1\."
    ):
        refuse_unless_passed(worse, overruled=False)
    refuse_unless_passed(worse, overruled=True)
    refuse_unless_passed(rotated.model_copy(update={"verdict": Verdict(passed=True)}), overruled=False)
