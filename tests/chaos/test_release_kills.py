"""kill -9 of the process that works on a release, and of its backfill, at every state.

Apache Kafka, a real Redis, an index server over a socket; the owner is `simstream consume embeddings`.
Somebody looks all the time: two records never say live, and what the alias names always shows every item.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from adapters.index import open_index
from adapters.releases import ReleaseStore
from app.local import LocalRedis
from app.runners import state_runner
from app.settings import Settings, load_settings
from app.wiring import live_collection, make_topics, open_board, open_publisher, open_store
from consumers.release_requests import ask_back, ask_removal
from model.release import first_release
from schemas.rollouts import Rollout, RolloutState
from schemas.vectors import AnyOf, Where
from tests.support.commands import Command, command_environment
from tests.support.qdrant_rest import QdrantRest
from tests.support.release_shop import NOW, ReleaseShop, thread, until
from tests.support.rotated_model import permutation, write_rotated_model
from tests.support.servers import ApacheKafka
from tests.support.tiny_model import DIMENSION

ITEMS = 60
SECONDS = 240.0
LIVE_POINTS = Where(must_not=(AnyOf("deleted", (True,)),))


class Owner(Command):
    """`simstream consume embeddings`, started again under another number after each kill."""

    stop_timeout_seconds = 30.0

    def __init__(self, folder: Path, environment: Mapping[str, str], number: int) -> None:
        super().__init__(folder, environment, f"owner-{number}", "consume", "embeddings")

    def backfill_pid(self) -> int | None:
        """The process of its backfill, if one runs."""
        for folder in Path("/proc").iterdir():
            try:
                words = (folder / "cmdline").read_bytes()
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            if parent == self.pid and b"app.backfill_process" in words:
                return int(folder.name)
        return None


@pytest.fixture
def environment(kafka: ApacheKafka, namespace: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Servers of this test's own, as settings."""
    with LocalRedis(tmp_path / "redis") as redis, QdrantRest(tmp_path / "index") as server:
        yield command_environment(
            tmp_path,
            kafka=kafka.bootstrap_servers,
            namespace=namespace,
            redis=redis.url,
            index=server.url,
            partitions=2,
        ) | {
            "SIMSTREAM_ROLLOUT__POLL_SECONDS": "0.1",
            "SIMSTREAM_ROLLOUT__LEASE_SECONDS": "2",
            # Slow enough to be killed in the middle of it.
            "SIMSTREAM_ROLLOUT__ANNOUNCE_PER_SECOND": "20",
        }


class Watch:
    """Looks at records and alias all the time."""

    def __init__(self, shop: ReleaseShop) -> None:
        self._shop = shop
        self._stopped = threading.Event()
        self.wrong: list[str] = []
        self.looks = 0

    def run(self) -> None:
        """Until stopped."""
        while not self._stopped.wait(0.05):
            live = [one.collection for one in self._shop.board.all() if one.state is RolloutState.LIVE]
            if len(live) > 1:
                self.wrong.append(f"two live: {live}")
            collection = self._shop.live()
            shown = self._shop.index.count(collection, LIVE_POINTS)
            if shown < ITEMS:
                self.wrong.append(f"{collection} is live with {shown} of {ITEMS} items")
            self.looks += 1

    def stop(self) -> None:
        """End `run`."""
        self._stopped.set()


@contextmanager
def running(settings: Settings) -> Iterator[ReleaseShop]:
    """Item state and hints; nothing that writes the index."""
    with ExitStack() as opened:
        make_topics(settings)
        publisher = open_publisher(settings, "test")
        opened.callback(publisher.close)
        index = open_index(settings.qdrant)
        opened.callback(index.close)
        live_collection(settings, index)
        products = state_runner("products", settings, publisher=publisher)
        opened.enter_context(thread(products.run, products.stop))
        yield ReleaseShop(settings, index, open_store(settings), publisher, open_board(settings))


def test_kills_at_every_state_end_in_one_live_release_that_shows_everything(
    environment: dict[str, str], tmp_path: Path
) -> None:
    settings = load_settings(environment)
    owners: list[Owner] = []

    def start() -> Owner:
        owners.append(Owner(tmp_path / "owners", environment, len(owners) + 1).start())
        return owners[-1]

    with running(settings) as shop, ExitStack() as ending:

        def end_owners() -> None:
            for one in owners:
                one.stop()

        ending.callback(end_owners)
        first = shop.live()
        for number in range(ITEMS):
            shop.publish(number, 1)
        owner = start()
        until(lambda: all(shop.shows(first, number, 1) for number in range(ITEMS)), SECONDS)
        rotated = write_rotated_model(tmp_path / "model", tmp_path / "rotated")
        candidate = first_release(
            settings.model.model_copy(update={"name": str(rotated)}),
            ReleaseStore(settings.releases),
            created_at=NOW,
        ).release_id
        watch = Watch(shop)
        ending.enter_context(thread(watch.run, watch.stop))
        newest: dict[int, int] = {}
        stopped = threading.Event()

        def arrive() -> None:
            revision = 1
            while not stopped.wait(0.2):
                revision += 1
                title = f"a shoe of sort {revision}" if revision % 3 == 0 else None
                shop.publish(revision % ITEMS, revision, title)
                newest[revision % ITEMS] = revision

        events = threading.Thread(target=arrive, daemon=True)
        events.start()
        ending.callback(stopped.set)
        # An instance without the encoder: the release waits at `verified` until it has signed off.
        held = "service-held"

        def seen(condition: Callable[[Rollout], bool]) -> Callable[[], bool]:
            def holds() -> bool:
                shop.board.report(held, [])
                found = shop.board.get(second)
                return found is not None and condition(found)

            return holds

        second = shop.ask(candidate).collection
        kills: list[str] = []

        def kill(what: str, condition: Callable[[], bool]) -> None:
            nonlocal owner
            until(condition, SECONDS)
            owner.kill()
            kills.append(what)
            owner = start()

        kill("candidate", seen(lambda one: one.state is RolloutState.CANDIDATE))
        until(lambda: owner.backfill_pid() is not None, SECONDS)
        until(lambda: second in shop.index.collections(), SECONDS)
        os.kill(owner.backfill_pid() or 0, signal.SIGKILL)
        kills.append("the backfill alone")
        half = Where()
        kill("backfilling", lambda: shop.index.count(second, half) > 0)
        kill("filled", seen(lambda one: one.filled))
        kill("verified", seen(lambda one: one.state is RolloutState.VERIFIED))
        until(seen(lambda one: bool(one.reason)), SECONDS)
        assert shop.live() == first
        shop.board.sign_off(held)
        kill("live", lambda: shop.live() == second)
        until(
            lambda: (
                [one.state for one in shop.board.all() if one.collection == first] == [RolloutState.RETIRED]
            )
        )

        def back() -> bool:
            found = shop.board.get(first)
            if found is not None and found.state is RolloutState.RETIRED and not found.wanted:
                ask_back(shop.board)  # refused while its writer has not caught up: asked again
            return shop.live() == first

        kill("rolled back", back)
        stopped.set()
        events.join()
        for collection in (first, second):
            until(lambda one=collection: all(shop.shows(one, *pair) for pair in newest.items()), SECONDS)  # type: ignore[misc]
        order = permutation(DIMENSION, 1).numpy()

        def rotated_exactly() -> bool:
            before, after = shop.vectors(first, ITEMS), shop.vectors(second, ITEMS)
            return all(np.allclose(after[one], before[one][order], atol=1e-4) for one in before)

        until(rotated_exactly, SECONDS)
        ask_removal(shop.board, candidate)
        kill("being removed", lambda: True)
        until(lambda: shop.index.collections() == [first], SECONDS)
        assert watch.looks > 100
        print(f"{len(kills)} kills ({', '.join(kills)}), {len(newest)} items changed, {watch.looks} looks")
        assert watch.wrong == []
