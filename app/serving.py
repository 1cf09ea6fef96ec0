"""The query API put together from settings: as a part of a stack, or alone in its process.

Reads   settings; which releases and collections there are
Writes  which releases this process has loaded
Never   imports what learns or mines: that would be half of its start
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry

from adapters.audit import Audit
from adapters.child import calm_collector
from adapters.index import open_index
from adapters.index_port import VectorIndex
from app.live_state import LiveState
from app.settings import Settings
from app.watching import watched
from app.wiring import (
    LoadedReleases,
    alias_of,
    live_state,
    open_opinions,
    open_relations,
    open_reports,
    open_sink,
)
from app.written_collections import Instance
from service.access import Keyring
from service.api import create_app
from service.keyfile import KeyFile
from service.rulebook import RuleBook
from service.server import Service
from service.sink import EventSink

log = logging.getLogger(__name__)

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Failures:
    """The first thing that went wrong in any thread, and a way to wait for it or for a stop."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.first: BaseException | None = None

    def watch(self, work: Callable[[], object]) -> None:
        """Run `work`; its failure stops everything."""
        try:
            work()
        except BaseException as error:  # noqa: BLE001  raised again by whoever waits
            self.first = self.first or error
        finally:
            self.stopped.set()

    def check(self) -> None:
        """Raise what went wrong, if anything did."""
        if self.first is not None:
            raise self.first


def open_keys(settings: Settings) -> KeyFile:
    """The keys of the API; says so where the service is open to more than this machine."""
    keys = KeyFile(settings.api, Keyring(settings.api), audit=Audit(settings.audit))
    if not keys.ring and settings.service.host not in LOOPBACK:
        log.warning(
            "api_without_keys host=%s: everybody who reaches it may ask; `simstream keys new` makes a key",
            settings.service.host,
        )
    return keys


def make_service(
    settings: Settings,
    *,
    port: int,
    index: VectorIndex,
    releases: LoadedReleases,
    state: LiveState,
    sink: EventSink,
    rules: RuleBook,
    keys: KeyFile,
    registry: CollectorRegistry = REGISTRY,
) -> Service:
    """The service on an index and stores that are open, ready to run."""
    looked_at = watched(settings)
    return Service(
        create_app(
            index=index,
            store=state,
            releases=releases,
            settings=settings.service,
            alias=alias_of(settings),
            behaviour=state,
            keyring=keys.ring,
            notes=keys.notes,
            sink=sink,
            topics=settings.named_topics(),
            rules=rules,
            prices=settings.prices,
            relations=open_relations(settings),
            opinions=open_opinions(settings),
            reports=open_reports(settings),
            watched=looked_at,
            registry=registry,
        ),
        host=settings.service.host,
        port=port,
        limits=settings.service,
        ending=looked_at.close,
    )


def serve_alone(settings: Settings, *, port: int | None = None) -> None:
    """Only the service, in this thread, until it is told to stop; its encoder is loaded beside it.

    Raises what ended one of the threads beside it.
    """
    rules, keys = RuleBook(settings.rules), open_keys(settings)
    index = open_index(settings.qdrant)
    releases = LoadedReleases(settings)
    failures = Failures()
    # Until the release of what is live is loaded, the service says that it is not ready.
    instance = Instance(settings, index=index, releases=releases, alone=True)
    watchers = [
        threading.Thread(target=failures.watch, args=(one.run,), daemon=True)
        for one in (instance, rules, keys)
    ]
    for watcher in watchers:
        watcher.start()
    sink = open_sink(settings)
    service = make_service(
        settings,
        port=settings.service.port if port is None else port,
        index=index,
        releases=releases,
        state=live_state(settings),
        sink=sink,
        rules=rules,
        keys=keys,
    )
    log.info("service_listens address=%s", service.address)
    calm_collector()
    threading.Thread(target=_end_with, args=(failures, service), daemon=True).start()
    try:
        service.run()
    finally:
        sink.close()
        rules.stop()
        keys.stop()
        instance.stop()
        for watcher in watchers:
            watcher.join(30.0)
        releases.close()
        index.close()
    failures.check()


def _end_with(failures: Failures, service: Service) -> None:
    """A service that follows releases, rules or keys no more would go on with those of before: end it."""
    failures.stopped.wait()
    if failures.first is not None:
        log.error("service_ends reason=%r", failures.first)
        service.stop()
