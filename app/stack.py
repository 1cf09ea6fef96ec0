"""The whole of simstream, started and stopped as one: consumers, service; embedded, its servers as well.

Reads   settings
Writes  `stack.json` in the data folder once everything is ready, removed at the end
Never   leaves a server behind: the embedded ones end with this process, however it ends

This process owns the index: it runs the service and `embeddings`. The encoder is a child; `products` and
`reviews` share another, `behaviour` has its own, for each of them keeps an interpreter busy; so does the
trainer, where its schedule is enabled. Embedded, so are the broker and Redis, and the index is a folder. That
broker forgets everything when it ends, so every embedded start reconciles the index with item state.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from adapters.child import calm_collector
from adapters.index_port import release_of
from app.backfill_process import GRAPH_FROM_POINTS
from app.consumer_process import ConsumersProcess, registry_of
from app.discovery import Addresses, announce
from app.insights import insights_runner
from app.local import LocalRedis, TansuBroker
from app.observability import export_metrics
from app.opinions import LiveJudge, catch_up, opinions_runner
from app.relations import ScheduledMiner
from app.rollouts import make_rollouts, rolling
from app.runners import reconciler
from app.serving import Failures, make_service, open_keys
from app.settings import Settings
from app.store_figures import looking
from app.trainer_process import ScheduledTrainer
from app.wiring import (
    live_state,
    make_topics,
    open_live,
    open_opinions,
    open_publisher,
    open_sink,
    open_store,
    patiently,
    recipe_of,
)
from app.written_collections import Instance, WrittenCollections
from service.rulebook import RuleBook

log = logging.getLogger(__name__)

#: They parse and touch Redis alone; app/consumer_process.py runs them.
CHILDREN = (("products", "reviews"), ("behaviour",))
#: Tansu keeps a group's first member waiting for half its session timeout (45 s by default), and looks for
#: new records only after half of what a fetch may wait (500 ms by default); Apache Kafka answers at once.
_TANSU_OPTIONS = {
    "session.timeout.ms": "4000",
    "heartbeat.interval.ms": "1000",
    "fetch.wait.max.ms": "30",
}
#: A fetch costs Tansu 1.6 ms of a core: six consumers that ask every 20 ms kept half a core busy for nothing.
_TANSU_UNHURRIED_OPTIONS = {"fetch.wait.max.ms": "300"}
Say = Callable[[str], None]


@contextmanager
def embedded_servers(settings: Settings, data_dir: Path, say: Say) -> Iterator[Settings]:
    """Broker and Redis as children in `data_dir`; the settings that point at them and at a local index."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as children:
        # Redis first: its lock says who else runs in this folder before anything of theirs is touched.
        redis = children.enter_context(LocalRedis(data_dir / "redis"))
        broker = children.enter_context(TansuBroker(data_dir / "broker"))
        say(f"broker {broker.bootstrap_servers}, redis {redis.url}, index in {data_dir / 'index'}")
        yield settings.model_copy(
            update={
                "kafka": settings.kafka.model_copy(
                    update={
                        "bootstrap_servers": broker.bootstrap_servers,
                        "options": {**settings.kafka.options, **_TANSU_OPTIONS},
                        "unhurried_options": _TANSU_UNHURRIED_OPTIONS,
                        # Of two members that leave, Tansu 0.6 now and then keeps one, waits for it to lead
                        # the group, and gives nobody who comes later a partition.
                        "member_per_topic": False,
                        "replication_factor": 1,
                    }
                ),
                "redis": settings.redis.model_copy(update={"url": redis.url}),
                "qdrant": settings.qdrant.model_copy(update={"url": f"edge:{data_dir / 'index'}"}),
                "releases": settings.releases.model_copy(update={"url": str(data_dir / "releases")}),
                "opinion_heads": settings.opinion_heads.model_copy(
                    update={"url": str(data_dir / "opinions")}
                ),
            }
        )


@contextmanager
def running(
    settings: Settings, *, data_dir: Path, port: int, embedded: bool, say: Say
) -> Iterator[tuple[Addresses, Settings, Failures]]:
    """Everything running and ready. Leaving stops it; `Failures` tells when something ended by itself."""
    with ExitStack() as opened:
        if embedded:
            settings = opened.enter_context(embedded_servers(settings, data_dir, say))
        trainer = ScheduledTrainer(settings, data_dir)
        addresses, failures = _start(
            opened, settings, port=port, embedded=embedded, say=say, more_metrics=(trainer.metrics,)
        )
        opened.callback(announce(addresses, data_dir).unlink, missing_ok=True)
        if settings.relations.every_minutes is not None:
            miner = ScheduledMiner(settings)
            _start_thread(opened, failures, miner.run, miner.stop)
        if settings.schedule.enabled:
            # Last, for it asks the service what is live; and its end is no failure of the stack.
            _start_thread(opened, failures, trainer.run, trainer.stop)
        calm_collector()
        yield addresses, settings, failures


def _start(
    opened: ExitStack,
    settings: Settings,
    *,
    port: int,
    embedded: bool,
    say: Say,
    more_metrics: Sequence[Callable[[], str]],
) -> tuple[Addresses, Failures]:
    """Open, wire and start everything; `opened` closes it in reverse."""
    rules, keys = RuleBook(settings.rules), open_keys(settings)
    patiently("kafka", lambda: make_topics(settings))
    store = open_store(settings)
    patiently("redis", store.ping)
    publisher = open_publisher(settings, "stack")
    opened.callback(publisher.close)
    index, collection, releases = open_live(settings)
    opened.callback(releases.close)
    opened.callback(index.close)
    points = index.count(collection)
    say(f"release {release_of(collection)}, collection {collection}, {points} points")
    if embedded and points > GRAPH_FROM_POINTS:
        say("building the search graph (nothing else runs meanwhile)")
        index.optimize(collection)

    def reconcile(written: str) -> None:
        """The embedded broker forgets hints when it ends, those of every collection."""
        found = reconciler(
            settings,
            store=store,
            publisher=publisher,
            index=index,
            collection=written,
            recipe=recipe_of(settings, written),
        ).run()
        say(f"reconciled: {found.items} items, {found.points} points, {found.announced} announced")

    failures = Failures()
    children = [ConsumersProcess(settings, consumers) for consumers in CHILDREN]
    writers = WrittenCollections(
        settings,
        store=store,
        publisher=publisher,
        index=index,
        releases=releases,
        at_start=reconcile if embedded else lambda written: None,
    )
    runners: list[WrittenCollections | ConsumersProcess] = [*children, writers]
    for runner in runners:
        _start_thread(opened, failures, runner.run, runner.stop)
    instance = Instance(settings, index=index, releases=releases, alone=False)
    _start_thread(opened, failures, instance.run, instance.stop)
    rollouts = make_rollouts(settings, store=store, publisher=publisher, index=index, writes=writers.writes)
    opened.enter_context(rolling(rollouts))
    opened.enter_context(looking(settings, index=index))
    registry = registry_of([*(child.metrics for child in children), *more_metrics])
    export_metrics(settings.metrics, process="stack", registry=registry)
    sink = open_sink(settings)
    opened.callback(sink.close)
    for book in (rules, keys):
        _start_thread(opened, failures, book.run, book.stop)
    service = make_service(
        settings,
        port=port,
        index=index,
        releases=releases,
        state=live_state(settings),
        sink=sink,
        rules=rules,
        keys=keys,
        registry=registry,
    )
    _start_thread(opened, failures, service.run, service.stop)
    if settings.insights.prices:
        insights = insights_runner(settings, publisher=publisher, index=index)
        _start_thread(opened, failures, insights.run, insights.stop)
    if settings.opinions.consume:
        judge = LiveJudge(settings, open_opinions(settings), releases)
        opened.callback(judge.close)
        listening = opinions_runner(settings, publisher=publisher, judge=judge)
        _start_thread(opened, failures, listening.run, listening.stop)
        if embedded:
            say(f"opinions: {catch_up(settings, publisher)} items are heard anew")
    for runner in runners:
        while not runner.assigned.wait(0.1):
            failures.check()
    return Addresses(settings.kafka.bootstrap_servers, settings.redis.url, service.address), failures


def _start_thread(
    opened: ExitStack, failures: Failures, run: Callable[[], None], stop: Callable[[], None]
) -> None:
    thread = threading.Thread(target=failures.watch, args=(run,), daemon=True)
    thread.start()

    def end() -> None:
        stop()
        thread.join(30.0)

    opened.callback(end)
