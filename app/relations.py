"""The miner of relations put together: the archive, followed and read, becomes a run in Redis.

Reads   settings; user.events and user.erasures by way of the archive (app/learning.py follows it)
Writes  the archive; a run of relations in Redis
Never   holds up whoever serves: `ScheduledMiner` works in a process of its own, at low priority
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

from adapters.archive import Archive
from adapters.child import be_nice, end_with, ended, parent_connection, start_child
from app.observability import configure_logging
from app.settings import Settings
from app.wiring import open_relations
from consumers.baskets import read_archive
from consumers.relations import Found, mine
from schemas.errors import Halt, Transient
from schemas.relations import Run

log = logging.getLogger(__name__)

#: A run in hand is dropped when the parent stops it: what it has written is never read.
STOP_SECONDS = 10.0


def mine_once(settings: Settings) -> Run:
    """Bring the archive up to now, mine its window, and make that what is read. Raises Halt or Transient."""
    from app.learning import follow

    try:
        follow(settings)
    except Halt as error:
        # The trainer follows the same archive: what is there is as good.
        log.info("archive_not_followed reason=%s", error)
    found = mine(read_archive(Archive(Path(settings.archive.folder)).recent()), settings.relations)
    return publish(settings, found, now=datetime.now(UTC))


def publish(settings: Settings, found: Found, *, now: datetime) -> Run:
    """Make what was found what is read, unless another miner has published since."""
    run = Run(
        run=f"{now:%Y%m%dT%H%M%S%f}",
        mined_at=now,
        baskets=found.baskets,
        visits=found.visits,
        items=len(found.mined),
        pairs=found.pairs,
    )
    keep_seconds = round(settings.relations.kept_days * 86_400)
    if not open_relations(settings).put(run, found.mined, keep_seconds=keep_seconds):
        log.warning("relations_overtaken run=%s", run.run)
        return run
    log.info(
        "relations_mined run=%s baskets=%d visits=%d items=%d pairs=%d",
        run.run,
        run.baskets,
        run.visits,
        run.items,
        run.pairs,
    )
    return run


class ScheduledMiner:
    """Mines every so often, each time in a child. It serves nobody: its faults are logged and end nothing."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopped = threading.Event()

    def run(self) -> None:
        """Until `stop`."""
        every = self._settings.relations.every_minutes or 0.0
        while not self._stopped.wait(every * 60):
            ours, theirs = socket.socketpair()
            child = start_child(__name__, theirs)
            with Connection(ours.detach()) as connection:
                connection.send(self._settings)
                while child.poll() is None and not self._stopped.wait(0.5):
                    pass
            code = ended(child, STOP_SECONDS)
            if code and not self._stopped.is_set():
                log.error("relations_not_mined exit_code=%d", code)

    def stop(self) -> None:
        """End `run` and the child."""
        self._stopped.set()


def serve(connection: Connection) -> int:
    """The child: one run; the exit code."""
    settings: Settings = connection.recv()
    be_nice(settings.training.nice)
    configure_logging(settings.log)
    end_with(connection)
    try:
        mine_once(settings)
    except (Halt, Transient) as error:
        log.error("relations_not_mined reason=%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(serve(parent_connection()))
