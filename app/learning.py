"""The trainer put together: archive, catalogue, live release, run, candidate.

Reads   settings; user.events and user.erasures; item state; the release that is live
Writes  the archive, the run's folder, a candidate in the releases folder
Never   makes a candidate live: `simstream releases` does
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx

from adapters.archive import Archive
from adapters.index import open_index
from adapters.index_port import release_of
from adapters.kafka_log import TopicLog, read_to_end
from adapters.redis_items import ItemStore
from adapters.redis_rollouts import TRAINER_LEASE
from adapters.releases import ReleaseStore
from app.discovery import find_stack
from app.rollouts import request
from app.settings import Settings
from app.wiring import alias_of, open_board, open_store, patiently
from consumers.archive import DAY_MS, Archiver, Followed
from consumers.erasures import Erasures
from schemas.errors import Halt, Transient

if TYPE_CHECKING:
    from model.candidate import Outcome
    from model.examples import Item

log = logging.getLogger(__name__)

#: How long a killed trainer keeps others away.
LEASE_SECONDS = 60.0
#: Items read from Redis at a time.
_BATCH = 1_000


@contextmanager
def the_only_trainer(settings: Settings) -> Iterator[None]:
    """Hold the trainer's lease meanwhile, renewed on a thread. Raises Halt while another trainer runs.

    One that was killed is succeeded as soon as its lease has run out.
    """
    board, holder = open_board(settings), f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
    token = patiently("redis", lambda: board.take(TRAINER_LEASE, holder, LEASE_SECONDS))
    if token is None:
        raise Halt(
            f"another trainer is at work ({board.holder(TRAINER_LEASE)}): wait for it, or, if it was killed, "
            f"for {LEASE_SECONDS:.0f} s"
        )
    done = threading.Event()

    def renew() -> None:
        while not done.wait(LEASE_SECONDS / 3):
            try:
                if not board.renew(TRAINER_LEASE, holder, LEASE_SECONDS, token=token):
                    log.warning("trainer_lease_lost holder=%s", holder)
                    return
            except Transient as error:
                log.warning("trainer_lease_not_renewed reason=%s", error)

    renewing = threading.Thread(target=renew, name="trainer-lease", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        done.set()
        renewing.join()
        with suppress(Transient):
            board.let_go(TRAINER_LEASE, token=token)


def live_release(settings: Settings, data_dir: Path) -> str:
    """The release that is live: as the embedded stack's service says, else by the index's alias.

    Raises Halt where neither is there.
    """
    stack = find_stack(data_dir)
    if stack is not None:
        try:
            answer = httpx.get(f"{stack.http}/v1/release", timeout=30)
            answer.raise_for_status()
            return str(answer.json()["release_id"])
        except httpx.HTTPError as error:
            raise Halt(f"the stack in {data_dir} does not say which release is live: {error}") from error
    index = open_index(settings.qdrant)
    try:
        collection = patiently("qdrant", lambda: index.resolve(alias_of(settings)))
    finally:
        index.close()
    if collection is None:
        raise Halt("nothing is live yet: start the stack first, or name a release with --parent")
    return release_of(collection)


def follow(settings: Settings) -> Followed:
    """Bring the archive up to the end of user.events. Raises Halt or Transient."""
    topics = settings.named_topics()
    erasures = Erasures(key=settings.erasures.secret)
    erasures.take(patiently("kafka", lambda: list(read_to_end(settings.kafka, topics.erasures.name))))
    store = open_store(settings)

    def categories(product_ids: Sequence[str]) -> Mapping[str, str]:
        found = {}
        for start in range(0, len(product_ids), _BATCH):
            for item, state in store.read(product_ids[start : start + _BATCH]).items():
                if state.product is not None:
                    found[item] = state.product.category[0] if state.product.category else ""
        return found

    archiver = Archiver(
        archive=Archive(Path(settings.archive.folder)),
        settings=settings.archive,
        erasures=erasures,
        erasures_key=settings.erasures.secret,
        categories=categories,
        good_rating=settings.behaviour.sketch.good_rating,
    )
    return archiver.run(patiently("kafka", lambda: TopicLog(settings.kafka, topics.events.name)))


def archive_figures(settings: Settings) -> dict[str, object]:
    """What the archive holds, in numbers; no shopper is named."""
    held = Archive(Path(settings.archive.folder))
    figures: dict[str, object] = {"folder": str(held.folder)}
    period_ms = round(settings.archive.period_days * DAY_MS)
    for name, table in (("window", held.recent()), ("past", held.past())):
        times = table["at_ms"].to_pylist()
        figures[name] = {
            "events": table.num_rows,
            "shoppers": len(set(table["shopper"].to_pylist())),
            "products": len(set(table["product"].to_pylist())),
            "from": _day(min(times)) if times else None,
            "to": _day(max(times)) if times else None,
        }
        periods = Counter(_day(at // period_ms * period_ms) for at in times)
        figures[f"{name}, events by period"] = dict(sorted(periods.items()))
        figures[f"{name}, events by category"] = dict(Counter(table["category"].to_pylist()).most_common(10))
    positions = {f"{part.topic}, partition {part.partition}": part.end for part in held.parts()}
    figures["next offset"] = positions
    return figures


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).date().isoformat()


def in_words(found: Followed) -> str:
    """What a round of the archive did."""
    return "archive: " + ", ".join(f"{value} {name}" for name, value in found._asdict().items())


def one_run(
    settings: Settings,
    data_dir: Path,
    *,
    say: Callable[[str], None],
    recipe_file: Path | None = None,
    golden: Path | None = None,
    parent: str | None = None,
) -> Outcome:
    """Follow the topics, train, judge, publish; where approval is automatic, ask for what passed.

    The parent is the live release, if none is named. Raises Halt while another trainer runs.
    """
    with the_only_trainer(settings):
        say(in_words(follow(settings)))
        start = parent or live_release(settings, data_dir)
        say(f"training from {start}")
        outcome = train_once(settings, parent=start, recipe_file=recipe_file, golden=golden)
    publish_wish(settings, outcome, say)
    return outcome


def publish_wish(settings: Settings, outcome: Outcome, say: Callable[[str], None]) -> None:
    """Where approval is automatic, ask for a candidate that has passed the gate."""
    if outcome.manifest is not None and outcome.verdict.passed and settings.rollout.approval == "automatic":
        asked = request(settings, open_board(settings), outcome.manifest.release_id)
        say(f"{asked.collection} is filled and goes live by itself: see `simstream releases list`")


def reference_file(settings: Settings) -> Path:
    """What the last run saw, for the schedule."""
    return Path(settings.training.folder) / "reference.json"


def train_once(settings: Settings, *, parent: str, recipe_file: Path | None, golden: Path | None) -> Outcome:
    """One run to its end; one that was killed, of the same parent and recipe, goes on where it was."""
    from model.candidate import finish, new_run, open_run
    from model.examples import prepare
    from model.recipe import read_recipe
    from model.release import release_recipe
    from model.schedule import reference_of

    recipe = read_recipe(
        recipe_file or (Path(settings.training.recipe) if settings.training.recipe else None)
    )
    log.info("recipe %s", recipe.model_dump_json())
    store, now = ReleaseStore(settings.releases), datetime.now(UTC)
    runs = Path(settings.training.folder)
    runs.mkdir(parents=True, exist_ok=True)
    archive = Archive(Path(settings.archive.folder))
    recent, items, texts = archive.recent(), catalogue(open_store(settings)), release_recipe(store, parent)
    seen = reference_of(recent, items, texts, ends=archive.positions(), at=now)
    run = open_run(runs, parent=parent, recipe=recipe)
    if run is None:
        encoder = store.manifest(parent).encoder
        prepared = prepare(
            recent=recent,
            past=archive.past(),
            catalogue=items,
            recipe=texts,
            settings=settings.pairs,
            replay=recipe.replay,
            seed=recipe.seed,
            labelled=_labelled(golden),
            prompts=(encoder.query_prompt, encoder.passage_prompt),
            period_ms=round(settings.archive.period_days * DAY_MS),
        )
        if not len(prepared.pairs):
            raise Halt(f"there is nothing to learn from yet: {dict(prepared.counts)}")
        run = new_run(runs, parent=parent, recipe=recipe, prepared=prepared, created_at=now)
    log.info("run_starts folder=%s parent=%s", run, parent)
    outcome = finish(run, store=store, settings=settings.model, gate=settings.gate, created_at=now)
    # Only now: a run that is killed is still due, and goes on.
    aside = reference_file(settings).with_suffix(".tmp")
    aside.write_text(seen.model_dump_json())
    aside.replace(reference_file(settings))
    return outcome


def catalogue(store: ItemStore) -> dict[str, Item]:
    """Every live item, as training sees it."""
    from model.examples import Item

    found: dict[str, Item] = {}
    for ids in store.scan_ids(batch=_BATCH):
        for item, state in store.read(ids).items():
            if state.product is not None:
                found[item] = Item(state.product, state.reviews.digest if state.reviews is not None else "")
    return found


def _labelled(path: Path | None) -> list[tuple[str, str]]:
    """Pairs of products that belong together: JSON Lines with `a`, `b`; `label` 0 for those that do not."""
    if path is None:
        return []
    pairs = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if line.strip():
            try:
                row = json.loads(line)
                if row.get("label", 1):
                    pairs.append((str(row["a"]), str(row["b"])))
            except (ValueError, KeyError, AttributeError) as error:
                raise ValueError(
                    f"{path}, line {number}: expected an object with a and b ({error})"
                ) from None
    return pairs
