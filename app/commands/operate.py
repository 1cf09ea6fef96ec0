"""`simstream dlq` and `simstream reconcile`: what a person does when something was not as it should be."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from adapters.audit import Audit
from adapters.kafka_admin import open_admin, topic_ids
from app.commands.common import DataDir
from app.discovery import kafka_settings
from app.observability import configure_logging
from app.runners import reconciler
from app.settings import Settings, load_settings
from app.wiring import open_live_index, open_publisher, open_store, recipe_of
from consumers.redrive import DeadLetter, Identity, read_dead_letters, redrive

dlq = typer.Typer(no_args_is_help=True, help="Records that could not be applied: list, show, redrive.")

TopicOption = Annotated[
    str | None,
    typer.Option("--topic", help="Only this input topic; without it, every one that has dead letters."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@dlq.command("list")
def list_dead_letters(
    topic: TopicOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = Path("var"),
    redriven: Annotated[
        bool, typer.Option("--redriven", help="Show those already redriven as well.")
    ] = False,
) -> None:
    """Print identity, key and reason of each dead letter, oldest first."""
    found = [one for one in _letters(_settings(data_dir), topic) if redriven or not one.redriven]
    for one in found:
        if as_json:
            print(json.dumps(_described(one)))
        else:
            mark = " (redriven)" if one.redriven else ""
            print(f"{one.identity}  {one.topic}  key={_text(one.key)}  {one.died_at}{mark}\n    {one.error}")
    print(f"{len(found)} dead letters", file=sys.stderr)


@dlq.command("show")
def show_dead_letter(
    identity: Annotated[str, typer.Argument(help="TOPIC-ID:PARTITION:OFFSET, as `list` prints.")],
    data_dir: DataDir = Path("var"),
) -> None:
    """Print one dead letter whole: headers, reason, original bytes."""
    wanted = Identity.parse(identity)
    for one in _letters(_settings(data_dir), None):
        if one.identity == wanted:
            print(json.dumps(_described(one) | {"value": _text(one.value)}, indent=2))
            return
    raise ValueError(f"there is no dead letter {identity}: see `simstream dlq list --redriven`")


@dlq.command("redrive")
def redrive_dead_letters(
    identities: Annotated[list[str] | None, typer.Argument(help="Which ones, as `list` prints them.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that were never redriven.")] = False,
    topic: TopicOption = None,
    data_dir: DataDir = Path("var"),
) -> None:
    """Put dead letters onto their topic again, each at most once, whoever else does the same."""
    if bool(identities) == everything:
        raise ValueError("name the dead letters to redrive, or give --all")
    settings = _settings(data_dir)
    configure_logging(settings.log)
    wanted = {Identity.parse(text) for text in identities or []}
    redriven: list[str] = []
    with Audit(settings.audit).acting(
        "dlq.redrive", topic=topic, everything=everything, asked=sorted(map(str, wanted))
    ) as act:
        for name in _input_topics(settings, topic):
            done = redrive(
                settings.kafka,
                name,
                namespace=settings.namespace,
                chosen=lambda letter: everything or letter.identity in wanted,
            )
            redriven += [str(letter.identity) for letter in done]
            act.note(redriven=redriven)
            for letter in done:
                print(f"{letter.identity}  {name}")
    print(f"{len(redriven)} redriven", file=sys.stderr)


def reconcile(
    accept_deletes: Annotated[
        int, typer.Option(min=0, help="Allow so many points to be deleted beyond the free 1 %.")
    ] = 0,
) -> None:
    """Compare item state with the index, both ways, and announce what differs.

    The embedded stack does so at each start, and owns its index: there, start it again instead.
    """
    settings = load_settings()
    configure_logging(settings.log)
    index, collection = open_live_index(settings)
    publisher = open_publisher(settings, "reconcile")
    try:
        found = reconciler(
            settings,
            store=open_store(settings),
            publisher=publisher,
            index=index,
            collection=collection,
            recipe=recipe_of(settings, collection),
            weigh=True,
        ).run(accept_deletes=accept_deletes)
    finally:
        publisher.close()
        index.close()
    print(
        f"{found.items} items, {found.points} points; announced {found.announced}: "
        f"{found.outdated} outdated, {found.missing} missing, {found.surplus} to delete"
    )


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(dlq, name="dlq")
    app.command()(reconcile)


def _settings(data_dir: Path) -> Settings:
    settings = load_settings()
    return settings.model_copy(update={"kafka": kafka_settings(settings, data_dir)})


def _input_topics(settings: Settings, topic: str | None) -> list[str]:
    """Topics that have dead letters and exist; or the one asked for."""
    named = [one.name for one in settings.named_topics().declared() if one.has_dead_letters]
    if topic is None:
        return named
    if topic not in named:
        raise ValueError(f"topic {topic} has no dead letters: one of {', '.join(named)}")
    topic_ids(open_admin(settings.kafka), [topic])
    return [topic]


def _letters(settings: Settings, topic: str | None) -> list[DeadLetter]:
    return [one for name in _input_topics(settings, topic) for one in read_dead_letters(settings.kafka, name)]


def _described(letter: DeadLetter) -> dict[str, object]:
    return {
        "identity": str(letter.identity),
        "topic": letter.topic,
        "key": _text(letter.key),
        "error": letter.error,
        "died_at": letter.died_at,
        "redriven": letter.redriven,
        "headers": {name: _text(value) for name, value in letter.headers},
    }


def _text(value: bytes | None) -> str | None:
    """Bytes as text; what is no UTF-8 is shown as \\x.. ."""
    return None if value is None else value.decode("utf-8", "backslashreplace")
