"""`simstream rebuild` and `simstream export-state`: state and index made anew, and what state is."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from adapters.audit import Action, Audit
from adapters.index import EDGE, open_index
from adapters.index_port import release_of
from adapters.redis_client import connect
from adapters.redis_nodes import RedisNodes
from adapters.state_export import export_state
from app.commands.common import DataDir, say
from app.commands.releases import Timeout, Wait, follow
from app.discovery import stack_settings
from app.observability import configure_logging
from app.rebuild import FromLog, remove_retired
from app.settings import Settings, load_settings
from app.wiring import alias_of, live_generation, open_board, open_live, open_publisher
from consumers.release_requests import ask_for
from schemas.errors import Halt

_EMBEDDED = (
    "the embedded stack cannot be rebuilt from the log: its broker keeps nothing across a restart, and its "
    "index has one owner. Item state is on disk, and `simstream rebuild` without --from-log makes the index "
    "anew from it. To rebuild from the log, keep the topics on Apache Kafka and the index on a Qdrant server"
)


def rebuild(
    from_log: Annotated[
        bool,
        typer.Option("--from-log", help="State as well, from the topics; else from the state there is."),
    ] = False,
    accept_missing: Annotated[
        int,
        typer.Option(min=0, help="With --from-log: lose so many items that the topics no longer hold."),
    ] = 0,
    drop_retired: Annotated[
        bool,
        typer.Option("--drop-retired", help="Rebuild nothing: remove the state that rebuilds have replaced."),
    ] = False,
    data_dir: DataDir = Path("var"),
    wait: Wait = True,
    timeout: Timeout = None,
) -> None:
    """Make a fresh collection of the live release and switch to it; queries are answered all the while.

    Without --from-log the processes of `consume embeddings` or `up` do it, as they bring a release live; this
    command asks them, and follows it.

    With --from-log this process does it: products, reviews and behaviour are read from the beginning of their
    topics into fresh state beside the live one. The consumers of the old state stop at the switch, and go on
    with the new one when they are started again.
    """
    settings = load_settings()
    configure_logging(settings.log)
    audit = Audit(settings.audit)
    if drop_retired:
        with audit.acting("rebuild.drop_retired") as act:
            removed = remove_retired(settings)
            act.note(keys=removed)
        print(f"{removed} keys of retired state removed")
    elif from_log:
        with audit.acting("rebuild.from_log", accept_missing=accept_missing) as act:
            _from_log(settings, accept_missing=accept_missing, act=act)
    else:
        with audit.acting("rebuild") as act:
            _ask(stack_settings(settings, data_dir), wait=wait, timeout=timeout, act=act)


def _ask(settings: Settings, *, wait: bool, timeout: float | None, act: Action) -> None:
    board, alias = open_board(settings), alias_of(settings)
    index = open_index(settings.qdrant)
    try:
        live = index.resolve(alias)
        if live is None:
            raise Halt("nothing is live yet: start `simstream up` or `simstream consume embeddings`")
        asked = ask_for(board, release_of(live), alias=alias, standing=index.collections(), anew=True)
    finally:
        index.close()
    act.note(collection=asked.collection)
    follow(board, asked, wait=wait, timeout=timeout, act=act)


def _from_log(settings: Settings, *, accept_missing: int, act: Action) -> None:
    if settings.qdrant.url.startswith(EDGE):
        raise Halt(_EMBEDDED)
    with ExitStack() as opened:
        index, live, releases = open_live(settings)
        opened.callback(releases.close)
        opened.callback(index.close)
        release = releases.loaded(release_of(live))
        publisher = open_publisher(settings, "rebuild")
        opened.callback(publisher.close)
        done = FromLog(
            settings,
            index=index,
            release_id=release_of(live),
            encoder=release.encoder,
            recipe=release.recipe,
            publisher=publisher,
            say=say,
        ).run(accept_missing=accept_missing)
    act.note(report=list(done.sentences()))
    for sentence in done.sentences():
        print(sentence)


def export(
    generation: Annotated[
        int | None, typer.Option(min=1, help="Of this generation of the state; without it, of the live one.")
    ] = None,
) -> None:
    """Print state as canonical lines: equal state is equal bytes, so two exports can be compared.

    Left out is what says how events arrived and not what they come to (adapters/state_export.py).
    """
    settings = load_settings()
    number = live_generation(settings) if generation is None else generation
    nodes = RedisNodes(connect(settings.redis))
    for line in export_state(nodes=nodes, namespace=settings.namespace, generation=number):
        sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(rebuild)
    app.command("export-state")(export)
