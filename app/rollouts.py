"""Work on releases in this process: what the steps of consumers/rollout.py are made of, put together.

Reads   settings
Writes  what its parts write
Never   works on a rollout without the lease

`simstream consume embeddings` and `simstream up` run it; one process at a time holds the lease.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from adapters.index import open_index
from adapters.index_port import VectorIndex, release_of
from adapters.kafka import Publisher
from adapters.kafka_groups import GroupOffsets, remove_group
from adapters.redis_items import ItemStore
from adapters.redis_rollouts import RolloutBoard
from adapters.releases import ReleaseStore
from app.backfill_process import Backfill
from app.runners import embeddings_group
from app.settings import Settings
from app.wiring import alias_of, open_board, recipe_of
from app.written_collections import instance_name
from consumers.release_requests import ask_for
from consumers.rollout import Rollouts
from consumers.verification import Verified, Verifier
from schemas.releases import Manifest
from schemas.rollouts import ReleaseMoved, Rollout

log = logging.getLogger(__name__)

#: Texts that a candidate must tell apart before it is given a collection.
PROBES = ("a lamp of brass", "running shoes, size 42", "wireless headphones", "garden hose 20 m")


class RolloutWork:
    """Implements consumers.rollout.Work with the parts of this process.

    `writes` says whether this process still writes a collection: not every broker keeps a group whose members
    are there.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store: ItemStore,
        publisher: Publisher,
        index: VectorIndex,
        writes: Callable[[str], bool],
    ) -> None:
        self._writes = writes
        self._settings = settings
        self._store = store
        self._publisher = publisher
        self._index = index
        self._backfill: Backfill | None = None

    def check(self, rollout: Rollout) -> None:
        """See Work: the verdict, hashes, weights, dimension, and that it tells a few texts apart."""
        from model.release import try_release

        store = ReleaseStore(self._settings.releases)
        refuse_unless_passed(store.manifest(rollout.release_id), overruled=rollout.overruled)
        try_release(store, rollout.release_id, self._settings.model, probes=PROBES)

    def fill(self, rollout: Rollout) -> bool:
        """See Work."""
        if self._backfill is not None and self._backfill.collection != rollout.collection:
            self.stop_filling()
        if self._backfill is None:
            self._backfill = Backfill(self._settings, rollout)
            log.info("backfill_started collection=%s pid=%d", rollout.collection, self._backfill.pid)
        try:
            filled = self._backfill.ended()
        except BaseException:
            self.stop_filling()
            raise
        if filled or not self._backfill.running:
            self.stop_filling()
        return filled

    def stop_filling(self) -> None:
        """See Work."""
        if self._backfill is not None:
            self._backfill.stop()
            self._backfill = None

    def verify(self, rollout: Rollout) -> Verified:
        """See Work."""
        return Verifier(
            store=self._store,
            index=self._index,
            collection=rollout.collection,
            recipe=recipe_of(self._settings, rollout.collection),
        ).run(patience_seconds=self._settings.rollout.patience_seconds)

    def lag(self, collection: str) -> int:
        """See Work."""
        topics = self._settings.named_topics()
        with GroupOffsets(
            self._settings.kafka,
            group=embeddings_group(self._settings, collection),
            topics=(topics.changed.name, topics.changed_bulk.name),
        ) as group:
            return group.lag()

    def remove_group(self, collection: str) -> bool:
        """See Work."""
        if self._writes(collection):
            return False
        return remove_group(self._settings.kafka, embeddings_group(self._settings, collection))

    def tell(self, moved: ReleaseMoved) -> None:
        """See Work."""
        topic = self._settings.named_topics().releases.name
        self._publisher.send(topic, key=moved.release_id, value=moved.model_dump_json().encode())


def refuse_unless_passed(manifest: Manifest, *, overruled: bool) -> None:
    """A release that the gate refused stays a candidate. One without a verdict was not trained here.

    Raises ValueError with the gate's reasons.
    """
    verdict = manifest.verdict
    if verdict is None or verdict.passed or overruled:
        return
    reasons = "; ".join(verdict.reasons) or "its manifest names no reason"
    raise ValueError(
        f"the gate refused release {manifest.release_id!r}: {reasons}. `simstream releases show` has its "
        "figures, and `promote --against-the-gate` brings it live all the same"
    )


def request(settings: Settings, board: RolloutBoard, release: str, *, overrule: bool = False) -> Rollout:
    """The request for a release. One that is live by the alias has perhaps no record yet."""
    index = open_index(settings.qdrant)
    try:
        live = index.resolve(alias_of(settings))
        if live is not None and release_of(live) == release:
            raise ValueError(f"release {release!r} is live already")
        return ask_for(
            board, release, alias=alias_of(settings), standing=index.collections(), overrule=overrule
        )
    finally:
        index.close()


def make_rollouts(
    settings: Settings,
    *,
    store: ItemStore,
    publisher: Publisher,
    index: VectorIndex,
    writes: Callable[[str], bool],
) -> Rollouts:
    """Whoever holds the lease works on what is wanted."""
    return Rollouts(
        board=open_board(settings),
        index=index,
        alias=alias_of(settings),
        work=RolloutWork(settings, store=store, publisher=publisher, index=index, writes=writes),
        settings=settings.rollout,
        holder=instance_name(),
    )


@contextmanager
def rolling(rollouts: Rollouts) -> Iterator[None]:
    """Work on rollouts beside whatever the block does. Its end ends it; a fault of it is logged."""
    stopped = threading.Event()

    def work() -> None:
        try:
            rollouts.run(stopped)
        except BaseException as error:  # noqa: BLE001  writing goes on without it
            log.error("rollout_ended reason=%s", error)

    thread = threading.Thread(target=work, name="rollout", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(30.0)
