"""The collections that a process writes, and the releases that an instance of the service can answer with.

Reads   records of the rollout, the alias
Writes  what consumers/embeddings.py writes; which releases this instance has loaded
Never   ends the writer of the live collection for the sake of another one

Any number of processes may write: partitions are shared by each collection's group.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable

from adapters.index_port import VectorIndex, release_of
from adapters.kafka import Publisher
from adapters.redis_items import ItemStore
from app.backfill_process import Running
from app.runners import embeddings_runner
from app.settings import Settings
from app.wiring import LoadedReleases, alias_of, collection_spec, open_board
from schemas.errors import Halt, Transient

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
#: A writer of a collection that is not live is started again so long after it failed, a release loaded again.
RETRY_SECONDS = 10.0


def instance_name() -> str:
    """Names this process among those that report what they have loaded."""
    return f"{socket.gethostname()}-{os.getpid()}"


class WrittenCollections:
    """Keeps every written collection equal to item state: the live one, and those on their way or in grace.

    `run` blocks. `at_start` is called with each collection whose writer has been started.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store: ItemStore,
        publisher: Publisher,
        index: VectorIndex,
        releases: LoadedReleases,
        at_start: Callable[[str], object] = lambda collection: None,
        accept_poison: int = 0,
    ) -> None:
        self._settings = settings
        self._store = store
        self._publisher = publisher
        self._index = index
        self._releases = releases
        self._at_start = at_start
        self._accept_poison = accept_poison
        self._board = open_board(settings)
        self._running: dict[str, Running] = {}
        self._not_before: dict[str, float] = {}
        self._stopped = threading.Event()
        #: Set once the group of the live collection has given this process partitions.
        self.assigned = threading.Event()

    def run(self) -> None:
        """Follow the records until stopped. Raises what ended the writer of the live collection."""
        try:
            while not self._stopped.is_set():
                self._look()
                self._stopped.wait(LOOK_SECONDS if self.assigned.is_set() else 0.05)
        finally:
            for running in self._running.values():
                running.runner.stop()
            for running in self._running.values():
                running.stop()

    def writes(self, collection: str) -> bool:
        """Whether this process has a writer of the collection."""
        return collection in self._running

    def stop(self) -> None:
        """End `run`, after the work in hand."""
        self._stopped.set()

    def _look(self) -> None:
        try:
            live = self._index.resolve(alias_of(self._settings))
            wanted = {one.collection for one in self._board.all() if one.written}
        except Transient as error:
            # Who writes goes on: what it needs it waits for by itself.
            log.warning("written_collections_unknown reason=%s", error)
            live, wanted = None, set(self._running)
        if live is not None:
            wanted.add(live)
        for collection, running in list(self._running.items()):
            if running.failed() or collection not in wanted:
                self._end(collection, running, live=live)
        for collection in sorted(wanted - set(self._running), key=lambda one: one != live):
            if time.monotonic() >= self._not_before.get(collection, 0.0):
                self._begin(collection, live=live)
        if live is not None:
            # What is no longer written here is not encoded for either.
            self._releases.keep({release_of(one) for one in (*wanted, *self._running)})
            if live in self._running and self._running[live].runner.assigned.is_set():
                self.assigned.set()

    def _begin(self, collection: str, *, live: str | None) -> None:
        try:
            release = self._releases.load(release_of(collection))
            spec = collection_spec(self._settings, release.manifest.dimension)
            self._index.ensure_collection(collection, spec)
        except (Transient, OSError, ValueError) as error:
            if collection == live and isinstance(error, ValueError):
                raise
            self._later(collection, error)
            return
        runner = embeddings_runner(
            self._settings,
            store=self._store,
            publisher=self._publisher,
            index=self._index,
            collection=collection,
            encoder=release.encoder,
            recipe=release.recipe,
            accept_poison=self._accept_poison,
        )
        self._running[collection] = Running(runner).start()
        log.info("collection_written collection=%s", collection)
        try:
            self._at_start(collection)
        except (Transient, Halt) as error:
            if collection == live:
                raise
            log.warning("collection_not_compared collection=%s reason=%s", collection, error)

    def _end(self, collection: str, running: Running, *, live: str | None) -> None:
        running.stop()
        del self._running[collection]
        try:
            running.check()
        except BaseException as error:
            if collection == live:
                raise
            self._later(collection, error)

    def _later(self, collection: str, error: BaseException) -> None:
        log.warning("collection_not_written collection=%s reason=%s", collection, error)
        self._not_before[collection] = time.monotonic() + RETRY_SECONDS


class Instance:
    """Loads the releases that this instance of the service may have to answer with, and says which it has.

    `alone`: nobody else in this process encodes, so what is not needed any more is let go.
    """

    def __init__(
        self, settings: Settings, *, index: VectorIndex, releases: LoadedReleases, alone: bool
    ) -> None:
        self._alone = alone
        self._settings = settings
        self._index = index
        self._releases = releases
        self._board = open_board(settings)
        self._name = f"service-{instance_name()}"
        self._not_before: dict[str, float] = {}
        self._stopped = threading.Event()

    def run(self) -> None:
        """Follow the records and the alias until stopped."""
        while not self._stopped.is_set():
            try:
                self._look()
            except Transient as error:
                log.warning("releases_unknown reason=%s", error)
            self._stopped.wait(LOOK_SECONDS)
        try:
            self._board.sign_off(self._name)
        except Transient:
            pass  # it is forgotten after some seconds of silence

    def stop(self) -> None:
        """End `run`."""
        self._stopped.set()

    def _look(self) -> None:
        live = self._index.resolve(alias_of(self._settings))
        if live is not None:
            self._load(release_of(live))
        needed = {one.release_id for one in self._board.all() if one.written}
        if live is not None:
            needed.add(release_of(live))
        for release_id in sorted(needed - self._releases.ids()):
            self._load(release_id)
        if self._alone and live is not None:
            self._releases.keep(needed)
        self._board.report(self._name, self._releases.ids())

    def _load(self, release_id: str) -> None:
        if release_id in self._releases.ids() or time.monotonic() < self._not_before.get(release_id, 0.0):
            return
        try:
            self._releases.load(release_id)
        except Exception as error:  # noqa: BLE001  every store of releases has faults of its own
            # What is loaded goes on answering.
            log.error("release_not_loaded release=%s reason=%s", release_id, str(error) or repr(error))
            self._not_before[release_id] = time.monotonic() + RETRY_SECONDS
