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
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx

from adapters.archive import Archive
from adapters.index import open_index
from adapters.index_port import release_of
from adapters.kafka_log import TopicLog
from adapters.metrics import TRAINING_RUNS_TOTAL, TRAINING_SECONDS
from adapters.redis_rollouts import TRAINER_LEASE, RolloutBoard
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
from consumers.archive import AHEAD_MS, DAY_MS, Archiver, Followed
from schemas.errors import Halt, Transient
from schemas.items import digest
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
#: A run that was begun longer ago than the schedule's interval is not gone on with: at least a day, and a
#: week where there is no interval.
_DAY_HOURS, _WEEK_HOURS = 24.0, 168.0


class TrainerLease:
    """The lease of a trainer that is the only one, or was. Thread-safe."""

    def __init__(self, board: RolloutBoard, holder: str, token: int, *, renewed: float) -> None:
        self._board = board
        self._holder = holder
        self._token = token
        self._renewed = renewed
        self._lost = False

    def renew(self) -> bool:
        """Hold on to it; False once another trainer has it. Raises Transient."""
        at = time.time()
        if self._lost or not self._board.renew(TRAINER_LEASE, self._holder, LEASE_SECONDS, token=self._token):
            self._lost = True
            return False
        self._renewed = at
        return True

    def check(self) -> None:
        """Raises Halt once another trainer has it. Not renewed lately, it waits while Redis is away."""
        # By a clock that goes on while a machine sleeps. So lately renewed, nobody else can have it.
        if not self._lost and 0 <= time.time() - self._renewed < LEASE_SECONDS / 2:
            return
        if not patiently("redis", self.renew):
            raise Halt(
                f"another trainer has taken over, for this one was silent for {LEASE_SECONDS:.0f} s or more "
                "(did it sleep?): the run is left to it, and nothing is published here"
            )

    def let_go(self) -> None:
        """Give it back; no effect if another trainer has it. Raises Transient."""
        self._board.let_go(TRAINER_LEASE, token=self._token)


@contextmanager
def the_only_trainer(settings: Settings) -> Iterator[TrainerLease]:
    """Hold the trainer's lease meanwhile, renewed on a thread. Raises Halt while another trainer runs.

    One that was killed is succeeded as soon as its lease has run out, and so is one that sleeps so long: what
    takes long asks the lease again and again (`check`).
    """
    board, holder = open_board(settings), f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
    started = time.time()
    token = patiently("redis", lambda: board.take(TRAINER_LEASE, holder, LEASE_SECONDS))
    if token is None:
        raise Halt(
            f"another trainer is at work ({board.holder(TRAINER_LEASE)}): wait for it, or, if it was killed, "
            f"for {LEASE_SECONDS:.0f} s"
        )
    lease, done = TrainerLease(board, holder, token, renewed=started), threading.Event()

    def renew() -> None:
        while not done.wait(LEASE_SECONDS / 3):
            try:
                if not lease.renew():
                    log.warning("trainer_lease_lost holder=%s", holder)
                    return
            except Transient as error:
                log.warning("trainer_lease_not_renewed reason=%s", error)

    renewing = threading.Thread(target=renew, name="trainer-lease", daemon=True)
    renewing.start()
    try:
        yield lease
    finally:
        done.set()
        renewing.join()
        with suppress(Transient):
            lease.let_go()


def live_release(settings: Settings, data_dir: Path) -> str:
    """The release that is live: as the embedded stack's service says, else by the index's alias.

    Raises Halt where neither is there, or the service refuses, Transient where it does not answer.
    """
    stack = find_stack(data_dir)
    if stack is not None:
        try:
            answer = httpx.get(f"{stack.http}/v1/release", timeout=30, headers=settings.api.client_headers())
            answer.raise_for_status()
            return str(answer.json()["release_id"])
        except httpx.HTTPError as error:
            said = f"the stack in {data_dir} does not say which release is live: {error}"
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500:
                raise Halt(said) from error
            raise Transient(said) from error
    index = open_index(settings.qdrant)
    try:
        collection = patiently("qdrant", lambda: index.resolve(alias_of(settings)))
    finally:
        index.close()
    if collection is None:
        raise Halt("nothing is live yet: start the stack first, or name a release with --parent")
    return release_of(collection)


def follow(settings: Settings) -> Followed:
    """Bring the archive up to the end of user.events. Raises Halt or Transient.

    Where somebody was forgotten since, examples of open runs and of searches go as well.
    """
    from model.run_folders import forget_examples

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
    found = archiver.run(patiently("kafka", lambda: TopicLog(settings.kafka, topics.events.name)))
    forget_examples(Path(settings.training.folder), erasures.reached)
    return found


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
    with the_only_trainer(settings) as lease:
        say(in_words(follow(settings)))
        start = parent or live_release(settings, data_dir)
        say(f"training from {start}")
        return train_once(settings, data_dir, parent=start, say=say, still_ours=lease.check)


def publish_wish(settings: Settings, data_dir: Path, outcome: Outcome, say: Callable[[str], None]) -> None:
    """Where approval is automatic, ask for a candidate that has passed the gate against what is live.

    One that was judged against another release is left to a person. Waits while a store, or the service that
    says what is live, is away.
    """
    found = outcome.manifest
    if found is None or not outcome.verdict.passed or settings.rollout.approval != "automatic":
        return
    live = patiently("service", lambda: live_release(settings, data_dir))
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


def window(settings: Settings, now: datetime) -> pa.Table:
    """The archive's window up to now. An archive of an earlier version may hold an event of a clock ahead."""
    import pyarrow.compute as pc

    latest_ms = round(now.timestamp() * 1000) + AHEAD_MS
    return Archive(Path(settings.archive.folder)).recent().filter(pc.field("at_ms") <= latest_ms)


def given_examples(settings: Settings) -> str:
    """Names what a person had a say in when examples are made now: with other files or settings, another.

    Not events, the catalogue and reports, which come by themselves: a run keeps to those of its beginning.
    """
    chosen = settings.training
    files = [
        path.read_text() if path is not None else None
        for path in map(path_of, (chosen.golden, chosen.labelled))
    ]
    made_by = [one.model_dump(mode="json") for one in (settings.pairs, settings.exposure)]
    return digest(files, made_by, settings.archive.period_days, chosen.mine_with_index)


def train_once(
    settings: Settings,
    data_dir: Path,
    *,
    parent: str,
    say: Callable[[str], None] = lambda sentence: None,
    still_ours: Callable[[], None] = lambda: None,
) -> Outcome:
    """One run to its end. One that was killed goes on where it was: of the same parent and recipe, given the
    same, begun no longer ago than the schedule's interval, and nobody was forgotten since.

    Where approval is automatic, what has passed is asked for. `still_ours` raises once another trainer has
    taken over.
    """
    from model.candidate import finish, open_run
    from model.recipe import read_recipe
    from model.run_folders import REFERENCE, begun_at, settle

    chosen = settings.training
    recipe = read_recipe(path_of(chosen.recipe))
    log.info("recipe_chosen recipe=%s", recipe.model_dump_json())
    store, now = ReleaseStore(settings.releases), datetime.now(UTC)
    runs = Path(chosen.folder)
    runs.mkdir(parents=True, exist_ok=True)
    since = now - timedelta(hours=max(_DAY_HOURS, settings.schedule.interval_hours or _WEEK_HOURS))
    settle(runs, since=since)
    given = given_examples(settings)
    run = open_run(runs, parent=parent, recipe=recipe, given=given, since=since)
    if run is None:
        run = _begun(settings, data_dir, parent=parent, recipe=recipe, given=given, now=now)
    else:
        say(f"going on with the run of {begun_at(run):%Y-%m-%d %H:%M} UTC, on its examples of then")
        log.info("run_resumed folder=%s since=%s", run, begun_at(run).isoformat())
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
            still_ours=still_ours,
        )
    except BaseException:
        TRAINING_RUNS_TOTAL.labels(result="failed").inc()
        raise
    TRAINING_RUNS_TOTAL.labels(result="done").inc()
    TRAINING_SECONDS.set(time.monotonic() - started)
    publish_wish(settings, data_dir, outcome, say)
    # Only now: a run that is killed is still due, and goes on. It saw what there was when it was begun.
    aside = reference_file(settings).with_suffix(".tmp")
    aside.write_bytes((run / REFERENCE).read_bytes())
    aside.replace(reference_file(settings))
    return outcome


def _begun(
    settings: Settings, data_dir: Path, *, parent: str, recipe: Recipe, given: str, now: datetime
) -> Path:
    """The folder of a new run. Its examples are made again where somebody is forgotten meanwhile."""
    from model.candidate import new_run
    from model.release import release_recipe
    from model.run_folders import erasures_known
    from model.schedule import reference_of

    runs = Path(settings.training.folder)
    texts = release_recipe(ReleaseStore(settings.releases), parent)
    while True:
        known, recent, items = erasures_known(runs), window(settings, now), catalogue(open_store(settings))
        ends = Archive(Path(settings.archive.folder)).positions()
        prepared = prepared_for(
            settings, data_dir, parent=parent, recipe=recipe, recent=recent, items=items, texts=texts
        )
        if erasures_known(runs) == known:
            break
        follow(settings)
    return new_run(
        runs,
        parent=parent,
        recipe=recipe,
        prepared=prepared,
        created_at=now,
        given=given,
        reference=reference_of(recent, items, texts, ends=ends, at=now, settings=settings.pairs),
    )
