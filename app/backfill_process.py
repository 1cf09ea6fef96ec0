"""The backfill of a collection, in a process of its own at the lowest priority.

Reads   item state, hints; settings and the rollout's record, from its parent
Writes  the collection, its group's commits, hints on the bulk lane; embedded, the search graph
Never   outlives its parent, nor leaves the collection half written and calls it filled

On the embedded index it owns the candidate's folder until it ends: the service's process opens it then, and
catches up from the group's commit. Every step may be repeated, so another child goes on where a killed one
has left off.
"""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection

from adapters.child import be_nice, calm_collector, end_with, ended, parent_connection, start_child
from adapters.index import EDGE, open_index
from adapters.kafka_groups import GroupOffsets
from adapters.process_memory import unwatch_memory, watch_memory
from adapters.releases import ReleaseStore
from app.observability import configure_logging
from app.runners import embeddings_group, embeddings_runner
from app.settings import Settings
from app.wiring import collection_spec, open_publisher, open_store, patiently
from consumers.backfill import BulkAnnouncer
from consumers.runner import Runner
from consumers.verification import Verifier
from consumers.work import Hint
from schemas.errors import Halt
from schemas.rollouts import Rollout

log = logging.getLogger(__name__)

NICE = 19
STOP_SECONDS = 30.0
#: From here on a search graph is built, which holds the interpreter for about 0.6 s per 1,000 points. With
#: filters a plain scan of 20,000 points takes 9 ms, the graph 1.5 ms (docs/decisions.md).
GRAPH_FROM_POINTS = 5_000


class Backfill:
    """One child that fills one collection. Not thread-safe: whoever works on rollouts owns it."""

    def __init__(self, settings: Settings, rollout: Rollout) -> None:
        self.collection = rollout.collection
        ours, theirs = socket.socketpair()
        self._connection = Connection(ours.detach())
        self._process: subprocess.Popen[bytes] = start_child(__name__, theirs)
        watch_memory("backfill", self._process.pid)
        self._connection.send((settings, rollout))

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def ended(self) -> bool:
        """Whether it has filled the collection. False while it works, or was killed (start another one).

        Raises Halt with its sentence if it gave up.
        """
        try:
            while self._connection.poll():
                kind, content = self._connection.recv()
                if kind == "filled":
                    self._process.wait(STOP_SECONDS)
                    return True
                raise Halt(content)
        except (EOFError, OSError):
            pass
        return False

    @property
    def running(self) -> bool:
        """Whether the child lives."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it; what it has written stays, and another one goes on."""
        self._connection.close()  # it ends by itself when its parent has gone
        ended(self._process, STOP_SECONDS)
        unwatch_memory("backfill", self._process.pid)


# --- the child ---------------------------------------------------------------------------------------


def serve(connection: Connection) -> int:
    """Fill what the parent names; the exit code."""
    be_nice(NICE)
    settings, rollout = connection.recv()
    configure_logging(settings.log)
    calm_collector()
    end_with(connection)  # what is uncommitted is read again
    try:
        backfill(settings, rollout)
    except (Halt, ValueError) as error:
        connection.send(("failed", str(error)))
        return 1
    connection.send(("filled", None))
    return 0


def backfill(settings: Settings, rollout: Rollout) -> None:
    """Fill one collection, see that it is whole, close it. Waits while a store is away.

    Raises ValueError or Halt saying why it cannot be filled.
    """
    from model.release import start_release

    with ExitStack() as opened:
        release = start_release(ReleaseStore(settings.releases), rollout.release_id, settings.model)
        opened.callback(release.encoder.close)
        store = open_store(settings)
        publisher = open_publisher(settings, "backfill")
        opened.callback(publisher.close)
        index = open_index(settings.qdrant)
        opened.callback(index.close)
        spec = collection_spec(settings, release.manifest.dimension)
        patiently("qdrant", lambda: index.ensure_collection(rollout.collection, spec))
        topics = settings.named_topics()
        group = opened.enter_context(
            GroupOffsets(
                settings.kafka,
                group=embeddings_group(settings, rollout.collection),
                topics=(topics.changed.name, topics.changed_bulk.name),
            )
        )
        patiently("kafka", group.start_at_ends)
        runner = embeddings_runner(
            settings,
            store=store,
            publisher=publisher,
            index=index,
            collection=rollout.collection,
            encoder=release.encoder,
            recipe=release.recipe,
        )
        with Running(runner) as running:
            announcer = BulkAnnouncer(
                store=store,
                publisher=publisher,
                topics=topics,
                per_second=settings.rollout.announce_per_second,
            )
            patiently("the walk over item state", lambda: announcer.announce_all(stopped=running.failed))
            while patiently("kafka", group.lag) > settings.rollout.max_lag_records:
                running.check()
                time.sleep(0.5)
            verifier = Verifier(
                store=store, index=index, collection=rollout.collection, recipe=release.recipe, rest=0.0
            )
            found = patiently(
                "verification",
                lambda: verifier.run(
                    patience_seconds=settings.rollout.patience_seconds, stopped=running.failed
                ),
            )
            running.check()
            if not found.whole:
                raise Halt(f"the backfill of {rollout.collection} does not come to an end: {found}")
        if settings.qdrant.url.startswith(EDGE) and found.points > GRAPH_FROM_POINTS:
            index.optimize(rollout.collection)
        log.info("collection_filled collection=%s points=%d", rollout.collection, found.points)


class Running:
    """A runner on a thread; leaving stops it, with the work in hand done and committed."""

    def __init__(self, runner: Runner[Hint]) -> None:
        self.runner = runner
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="embeddings", daemon=True)

    def _run(self) -> None:
        try:
            self.runner.run()
        except BaseException as error:  # noqa: BLE001  raised again by `check`
            self._failure = error

    def failed(self) -> bool:
        """Whether it has ended by itself."""
        return not self._thread.is_alive()

    def check(self) -> None:
        """Raise what it died of."""
        if self._failure is not None:
            raise self._failure

    def start(self) -> Running:
        """Start it."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ask for the end, and wait for it."""
        self.runner.stop()
        self._thread.join(STOP_SECONDS)

    def __enter__(self) -> Running:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


if __name__ == "__main__":
    sys.exit(serve(parent_connection()))
