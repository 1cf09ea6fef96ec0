"""The trainer put together: archive, catalogue, live release, run, candidate.

Reads   settings; user.events and user.erasures; item state; the release that is live
Writes  the archive, the run's folder, a candidate in the releases folder
Never   makes a candidate live: `simstream releases` does
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
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
from adapters.kafka_log import TopicLog
from adapters.metrics import TRAINING_RUNS_TOTAL, TRAINING_SECONDS
from adapters.redis_rollouts import TRAINER_LEASE
from adapters.releases import ReleaseStore
from app.discovery import find_stack
from app.learning_inputs import (
    BATCH,
    catalogue,
    labelled_pairs,
    neighbours_by_service,
    path_of,
    reported_pairs,
)
from app.rollouts import request
from app.runners import known_erasures
from app.settings import Settings
from app.wiring import alias_of, open_board, open_reports, open_store, patiently
from consumers.archive import DAY_MS, Archiver, Followed
from schemas.errors import Halt, Transient
from schemas.rollouts import Rollout

if TYPE_CHECKING:
    import pyarrow as pa

    from model.candidate import Outcome
    from model.examples import Prepared
    from model.recipe import Recipe
    from model.sessions import Item
    from model.text import ProductText

log = logging.getLogger(__name__)

#: How long a killed trainer keeps others away.
LEASE_SECONDS = 60.0


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
            answer = httpx.get(f"{stack.http}/v1/release", timeout=30, headers=settings.api.client_headers())
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
    topics, erasures = settings.named_topics(), known_erasures(settings)
    store = open_store(settings)

    def categories(product_ids: Sequence[str]) -> Mapping[str, str]:
        found = {}
        for start in range(0, len(product_ids), BATCH):
            for item, state in store.read(product_ids[start : start + BATCH]).items():
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


def in_words(found: Followed) -> str:
    """What a round of the archive did."""
    return "archive: " + ", ".join(f"{value} {name}" for name, value in found._asdict().items())


def one_run(
    settings: Settings,
    data_dir: Path,
    *,
    say: Callable[[str], None],
    parent: str | None = None,
) -> Outcome:
    """Follow the topics, train, judge, publish; where approval is automatic, ask for what passed.

    The parent is the live release, if none is named. Raises Halt while another trainer runs.
    """
    with the_only_trainer(settings):
        say(in_words(follow(settings)))
        start = parent or live_release(settings, data_dir)
        say(f"training from {start}")
        return train_once(settings, data_dir, parent=start, say=say)


def publish_wish(settings: Settings, data_dir: Path, outcome: Outcome, say: Callable[[str], None]) -> None:
    """Where approval is automatic, ask for a candidate that has passed the gate against what is live.

    One that was judged against another release is left to a person. Waits while a store is away.
    """
    found = outcome.manifest
    if found is None or not outcome.verdict.passed or settings.rollout.approval != "automatic":
        return
    live = live_release(settings, data_dir)
    others = sorted({one.release_id for one in _on_their_way(settings)} - {found.release_id})
    if found.parent != live or others:
        what = f"{', '.join(others)} is on its way" if others else f"{live} is live"
        say(
            f"{found.release_id} has passed, but against {found.parent}, and {what}: "
            "`simstream releases promote` brings it live all the same"
        )
        return
    asked = patiently("redis", lambda: request(settings, open_board(settings), found.release_id))
    say(f"{asked.collection} is filled and goes live by itself: see `simstream releases list`")


def on_its_way(settings: Settings) -> str | None:
    """A release that somebody has asked for and that is not live yet."""
    return next((one.release_id for one in _on_their_way(settings)), None)


def _on_their_way(settings: Settings) -> list[Rollout]:
    return patiently("redis", lambda: [one for one in open_board(settings).all() if one.wanted])


def reference_file(settings: Settings) -> Path:
    """What the last run saw, for the schedule."""
    return Path(settings.training.folder) / "reference.json"


def prepared_for(
    settings: Settings,
    data_dir: Path,
    *,
    parent: str,
    recipe: Recipe,
    recent: pa.Table,
    items: Mapping[str, Item],
    texts: ProductText,
) -> Prepared:
    """The examples of a run. Raises Halt where there is nothing to learn from."""
    from model.examples import prepare

    chosen, encoder = settings.training, ReleaseStore(settings.releases).manifest(parent).encoder
    prepared = prepare(
        recent=recent,
        past=Archive(Path(settings.archive.folder)).past(),
        catalogue=items,
        recipe=texts,
        settings=settings.pairs,
        replay=recipe.replay,
        seed=recipe.seed,
        golden=[*labelled_pairs(path_of(chosen.golden)), *reported_pairs(open_reports(settings))],
        labelled=labelled_pairs(path_of(chosen.labelled)),
        exposure=settings.exposure,
        prompts=(encoder.query_prompt, encoder.passage_prompt),
        period_ms=round(settings.archive.period_days * DAY_MS),
        hard_negatives=recipe.hard_negatives,
        nearest=neighbours_by_service(settings, data_dir, parent=parent)
        if recipe.hard_negatives and chosen.mine_with_index
        else None,
    )
    if not len(prepared.pairs):
        raise Halt(f"there is nothing to learn from yet: {dict(prepared.counts)}")
    return prepared


def train_once(
    settings: Settings,
    data_dir: Path,
    *,
    parent: str,
    say: Callable[[str], None] = lambda sentence: None,
) -> Outcome:
    """One run to its end; one that was killed, of the same parent and recipe, goes on where it was.

    Where approval is automatic, what has passed is asked for.
    """
    from model.candidate import finish, new_run, open_run
    from model.recipe import read_recipe
    from model.release import release_recipe
    from model.schedule import reference_of

    chosen = settings.training
    recipe = read_recipe(path_of(chosen.recipe))
    log.info("recipe_chosen recipe=%s", recipe.model_dump_json())
    store, now = ReleaseStore(settings.releases), datetime.now(UTC)
    runs = Path(chosen.folder)
    runs.mkdir(parents=True, exist_ok=True)
    archive = Archive(Path(settings.archive.folder))
    recent, items, texts = archive.recent(), catalogue(open_store(settings)), release_recipe(store, parent)
    seen = reference_of(recent, items, texts, ends=archive.positions(), at=now, settings=settings.pairs)
    run = open_run(runs, parent=parent, recipe=recipe)
    if run is None:
        prepared = prepared_for(
            settings, data_dir, parent=parent, recipe=recipe, recent=recent, items=items, texts=texts
        )
        run = new_run(runs, parent=parent, recipe=recipe, prepared=prepared, created_at=now)
    log.info("run_starts folder=%s parent=%s", run, parent)
    started = time.monotonic()
    try:
        outcome = finish(
            run,
            store=store,
            settings=settings.model,
            gate=settings.gate,
            created_at=now,
            processes=chosen.processes,
        )
    except BaseException:
        TRAINING_RUNS_TOTAL.labels(result="failed").inc()
        raise
    TRAINING_RUNS_TOTAL.labels(result="done").inc()
    TRAINING_SECONDS.set(time.monotonic() - started)
    publish_wish(settings, data_dir, outcome, say)
    # Only now: a run that is killed is still due, and goes on.
    aside = reference_file(settings).with_suffix(".tmp")
    aside.write_text(seen.model_dump_json())
    aside.replace(reference_file(settings))
    return outcome
