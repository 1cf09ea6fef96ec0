"""`simstream up`, `consume`, `serve`, `topics`: what runs for ever, and what has to be there first."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from adapters.child import calm_collector
from app.commands.common import say
from app.observability import configure_logging, export_metrics, start_tracing
from app.runners import state_runner
from app.settings import load_settings
from app.wiring import (
    make_topics,
    open_live,
    open_live_index,
    open_opinions,
    open_publisher,
    open_store,
    patiently,
)


class Consumer(StrEnum):
    """Which consumer a process runs."""

    PRODUCTS = "products"
    REVIEWS = "reviews"
    BEHAVIOUR = "behaviour"
    EMBEDDINGS = "embeddings"
    INSIGHTS = "insights"
    OPINIONS = "opinions"


DataDir = Annotated[Path, typer.Option("--data-dir", help="Where the embedded stack keeps its data.")]


def up(
    embedded: Annotated[
        bool,
        typer.Option("--embedded", help="Bring the broker, Redis and the index along: no Docker, no Java."),
    ] = False,
    data_dir: DataDir = Path("var"),
    port: Annotated[int | None, typer.Option(help="Port of the query API; 0 picks a free one.")] = None,
) -> None:
    """Run everything by one command: topics, consumers, query API; with --embedded the servers as well."""
    from app.stack import running

    settings = load_settings()
    configure_logging(settings.log)
    start_tracing(settings.tracing, process="stack")
    _stop_on_sigterm()
    port = settings.service.port if port is None else port
    with running(settings, data_dir=data_dir, port=port, embedded=embedded, say=say) as (where, _, failures):
        say(f"ready: explorer and API {where.http} (documentation at {where.http}/docs), Kafka {where.kafka}")
        failures.stopped.wait()
        failures.check()


def consume(
    consumer: Annotated[Consumer, typer.Argument(help="Which one.")],
    accept_poison: Annotated[
        int, typer.Option(min=0, help="Let so many unreadable records pass before judging their share.")
    ] = 0,
) -> None:
    """Run one consumer, for one process or pod."""
    settings = load_settings()
    if consumer is Consumer.OPINIONS and not settings.opinions.consume:
        raise ValueError(
            "nobody would read what is heard of reviews: set SIMSTREAM_OPINIONS__CONSUME=true everywhere"
        )
    configure_logging(settings.log)
    export_metrics(settings.metrics, process=consumer.value)
    start_tracing(settings.tracing, process=consumer.value)
    calm_collector()
    patiently("kafka", lambda: make_topics(settings))
    store = open_store(settings)
    patiently("redis", store.ping)
    publisher = open_publisher(settings, consumer.value)
    opened = ExitStack()
    opened.callback(publisher.close)
    # Imported where it is needed: all of it takes a processor three times as long as what products needs.
    if consumer is Consumer.INSIGHTS:
        from app.insights import insights_runner

        index, _ = open_live_index(settings)
        opened.callback(index.close)
        found = insights_runner(settings, publisher=publisher, index=index, accept_poison=accept_poison)
        run, stop = found.run, found.stop
    elif consumer is Consumer.OPINIONS:
        from app.opinions import LiveJudge, opinions_runner

        judge = LiveJudge(settings, open_opinions(settings), None)
        opened.callback(judge.close)
        heard = opinions_runner(settings, publisher=publisher, judge=judge, accept_poison=accept_poison)
        run, stop = heard.run, heard.stop
    elif consumer is not Consumer.EMBEDDINGS:
        runner = state_runner(consumer.value, settings, publisher=publisher, accept_poison=accept_poison)
        run, stop = runner.run, runner.stop
    else:
        from app.rollouts import make_rollouts, rolling
        from app.store_figures import looking
        from app.written_collections import WrittenCollections

        index, _, releases = open_live(settings)
        opened.callback(releases.close)
        opened.callback(index.close)
        writers = WrittenCollections(
            settings,
            store=store,
            publisher=publisher,
            index=index,
            releases=releases,
            accept_poison=accept_poison,
        )
        run, stop = writers.run, writers.stop
        opened.enter_context(looking(settings, index=index))
        opened.enter_context(
            rolling(
                make_rollouts(settings, store=store, publisher=publisher, index=index, writes=writers.writes)
            )
        )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop())
    with opened:
        run()


def serve(
    port: Annotated[int | None, typer.Option(help="Port of the query API; 0 picks a free one.")] = None,
) -> None:
    """Run the query API alone."""
    from app.serving import serve_alone

    settings = load_settings()
    configure_logging(settings.log)
    export_metrics(settings.metrics, process="service")
    start_tracing(settings.tracing, process="service")
    serve_alone(settings, port=port)


def topics() -> None:
    """Create the topics that are missing, with the partitions, cleanup and retention simstream needs."""
    settings = load_settings()
    made = patiently("kafka", lambda: make_topics(settings))
    print("\n".join(f"created {name}" for name in made) or "all topics exist")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (up, consume, serve, topics):
        app.command()(command)


def _stop_on_sigterm() -> None:
    """SIGTERM ends a stack as Ctrl-C does: in order."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
