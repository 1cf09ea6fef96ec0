"""Brings a wanted release live, one recorded step at a time: check, backfill, verify, one alias change.

Reads   records of the rollout, the alias, which releases the service's instances have loaded
Writes  records (with the lease's token); the alias; announcements; removes what is pruned
Never   makes live what it has not verified itself, nor moves two collections at once

    candidate -> backfilling -> verified -> live -> retired -> (live again, or pruned)

Whatever is killed goes on from its record. The alias says what is live, so between the alias and the records
a kill may leave a difference: every step begins by setting the records right (`settle`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

from pydantic import Field

from adapters.index_port import VectorIndex, release_of
from adapters.metrics import RELEASES_REFUSED_TOTAL
from adapters.redis_rollouts import ROLLOUT_LEASE, Changed, Fenced, RolloutBoard
from consumers.verification import Verified
from schemas.errors import Halt, Transient
from schemas.events import Frozen
from schemas.rollouts import ReleaseMoved, Rollout, RolloutState

log = logging.getLogger(__name__)


class RolloutSettings(Frozen):
    """How releases go live.

    `approval` by hand: a candidate waits for `simstream releases promote`. `grace_seconds`: how long a
    retired collection is still written, so that a rollback is one alias change. `max_lag_records`: what the
    group of a collection that goes live may not have committed yet. `announce_per_second` throttles a
    backfill.
    """

    approval: Literal["by hand", "automatic"] = "by hand"
    grace_seconds: float = Field(default=24 * 3600.0, ge=0)
    max_lag_records: int = Field(default=200, ge=0)
    patience_seconds: float = Field(default=60.0, gt=0)
    announce_per_second: float = Field(default=2_000.0, gt=0)
    poll_seconds: float = Field(default=1.0, gt=0)
    lease_seconds: float = Field(default=15.0, gt=0)


class Work(Protocol):
    """What the steps are made of; app/rollouts.py puts it together."""

    def check(self, rollout: Rollout) -> None:
        """Ask for the gate's verdict, load the release, try it. Raises ValueError saying what is wrong."""
        ...

    def fill(self, rollout: Rollout) -> bool:
        """Start the backfill if it does not run; whether it has ended well.

        Raises Halt or ValueError with its reason if it ended otherwise.
        """
        ...

    def stop_filling(self) -> None:
        """End a backfill that runs; no effect where none does."""
        ...

    def verify(self, rollout: Rollout) -> Verified:
        """Compare the collection with item state."""
        ...

    def lag(self, collection: str) -> int:
        """Hints that the collection's group has not committed."""
        ...

    def remove_group(self, collection: str) -> bool:
        """Remove its group; False while somebody still reads in it."""
        ...

    def tell(self, moved: ReleaseMoved) -> None:
        """Announce a move, best effort."""
        ...


class Rollouts:
    """Advances what is wanted while it holds the lease. One thread."""

    def __init__(
        self,
        *,
        board: RolloutBoard,
        index: VectorIndex,
        alias: str,
        work: Work,
        settings: RolloutSettings,
        holder: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._board = board
        self._index = index
        self._alias = alias
        self._work = work
        self._settings = settings
        self._holder = holder
        self._now = now
        # What this process has seen whole: a verdict of before a restart is not trusted.
        self._seen_whole: set[str] = set()
        for state in RolloutState:
            RELEASES_REFUSED_TOTAL.labels(state=state.value)

    def run(self, stopped: threading.Event) -> None:
        """Take the lease whenever it is free, and work while it is held. Waits while a store is away."""
        while not stopped.is_set():
            try:
                token = self._board.take(ROLLOUT_LEASE, self._holder, self._settings.lease_seconds)
                if token is not None:
                    self._hold(token, stopped)
            except Transient as error:
                log.warning("rollout_waits reason=%s", error)
            stopped.wait(self._settings.poll_seconds)

    def _hold(self, token: int, stopped: threading.Event) -> None:
        """Step until stopped or fenced; another thread renews the lease meanwhile."""
        ended = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(token, ended), name="rollout-lease", daemon=True)
        keeper.start()
        try:
            while not stopped.is_set() and not ended.is_set():
                try:
                    moved = self.step(token)
                except Changed:
                    continue  # somebody asked for something meanwhile: look again
                except Transient as error:
                    log.warning("rollout_waits reason=%s", error)
                    moved = False
                if not moved:
                    stopped.wait(self._settings.poll_seconds)
        except Fenced as error:
            log.warning("rollout_fenced reason=%s", error)
        finally:
            ended.set()
            self._work.stop_filling()
            keeper.join()
            with suppress(Transient):
                self._board.let_go(ROLLOUT_LEASE, token=token)

    def _keep(self, token: int, ended: threading.Event) -> None:
        seconds = self._settings.lease_seconds
        while not ended.wait(seconds / 3):
            try:
                if not self._board.renew(ROLLOUT_LEASE, self._holder, seconds, token=token):
                    ended.set()
            except Transient as error:
                log.warning("rollout_waits reason=%s", error)

    # --- one step ------------------------------------------------------------------------------------

    def step(self, token: int) -> bool:
        """Make one move, if one is due; whether one was made.

        Raises Fenced, Changed, Transient; whatever was done then is done again from the record.
        """
        if self.settle(token) is None:
            return False
        rollouts = self._board.all()
        wanted = [one for one in rollouts if one.wanted and not one.pruned]
        # A rollback first: it must not wait for whatever is on its way.
        wanted.sort(key=lambda one: one.state is not RolloutState.RETIRED)
        if not any(one.state is RolloutState.BACKFILLING and not one.filled for one in wanted):
            self._work.stop_filling()
        for rollout in wanted:
            if self._advance(rollout, token):
                return True
        return self._prune(rollouts, token)

    def settle(self, token: int) -> Rollout | None:
        """Set the records right by the alias; the live one, None while nothing is live."""
        collection = self._index.resolve(self._alias)
        if collection is None:
            return None
        now = self._now()
        records = {one.collection: one for one in self._board.all()}
        # Retired first: at no moment do two records say live.
        for one in records.values():
            if one.state is RolloutState.LIVE and one.collection != collection:
                self._put(one, one.placed(RolloutState.RETIRED, now=now), token)
        standing = records.get(collection)
        if standing is not None and standing.state is RolloutState.LIVE:
            return standing
        if standing is None:
            made = Rollout(release_id=release_of(collection), collection=collection, since=now)
            return self._put(None, made.placed(RolloutState.LIVE, now=now), token)
        return self._put(standing, standing.placed(RolloutState.LIVE, now=now), token)

    def _advance(self, rollout: Rollout, token: int) -> bool:
        try:
            match rollout.state:
                case RolloutState.CANDIDATE:
                    self._work.check(rollout)
                    self._move(rollout, RolloutState.BACKFILLING, token)
                    return True
                case RolloutState.BACKFILLING:
                    return self._backfilling(rollout, token)
                case RolloutState.VERIFIED:
                    return self._verified(rollout, token)
                case RolloutState.RETIRED:
                    return self._back(rollout, token)
                case RolloutState.LIVE:
                    self._put(rollout, rollout.model_copy(update={"wanted": False, "reason": ""}), token)
                    return True
        except (ValueError, Halt) as error:
            return self._refuse(rollout, str(error), token)

    def _backfilling(self, rollout: Rollout, token: int) -> bool:
        if not rollout.filled:
            if not self._work.fill(rollout):
                return False
            self._put(rollout, rollout.model_copy(update={"filled": True, "reason": ""}), token)
            return True
        if self._lags(rollout, token) or not self._whole(rollout, token):
            return False
        self._move(rollout, RolloutState.VERIFIED, token)
        return True

    def _verified(self, rollout: Rollout, token: int) -> bool:
        if not self._loaded_everywhere(rollout, token):
            return False
        if rollout.collection not in self._seen_whole and not self._whole(rollout, token):
            return False
        if self._lags(rollout, token):
            return False
        return self._make_live(rollout, token)

    def _back(self, rollout: Rollout, token: int) -> bool:
        """The alias back to a collection that is still written."""
        behind = self._work.lag(rollout.collection)
        if behind > self._settings.max_lag_records:
            raise ValueError(
                f"{rollout.collection} is {behind} changes behind (at most {self._settings.max_lag_records} "
                "are allowed): rolling back would show old prices. Is its writer running? Ask again when it "
                "has caught up"
            )
        return self._loaded_everywhere(rollout, token) and self._make_live(rollout, token)

    def _make_live(self, rollout: Rollout, token: int) -> bool:
        # The index knows no tokens, so whoever slept is asked once more, right before.
        if not self._board.renew(ROLLOUT_LEASE, self._holder, self._settings.lease_seconds, token=token):
            raise Fenced("another process has taken over the rollout of releases")
        self._index.set_alias(self._alias, rollout.collection)
        log.info("release_live release=%s collection=%s", rollout.release_id, rollout.collection)
        self.settle(token)
        return True

    # --- conditions ----------------------------------------------------------------------------------

    def _lags(self, rollout: Rollout, token: int) -> bool:
        if self._work.lag(rollout.collection) <= self._settings.max_lag_records:
            return False
        self._wait_for(rollout, "its writer has not caught up with what arrives", token)
        return True

    def _whole(self, rollout: Rollout, token: int) -> bool:
        found = self._work.verify(rollout)
        if not found.whole:
            self._refuse(rollout, f"it does not show every item as it is: {found}", token)
            return False
        self._seen_whole.add(rollout.collection)
        return True

    def _loaded_everywhere(self, rollout: Rollout, token: int) -> bool:
        without = sorted(
            name for name, releases in self._board.instances().items() if rollout.release_id not in releases
        )
        if without:
            self._wait_for(rollout, f"its encoder is not loaded yet by {', '.join(without)}", token)
        return not without

    # --- records -------------------------------------------------------------------------------------

    def _wait_for(self, rollout: Rollout, what: str, token: int) -> None:
        if rollout.reason != what:
            log.info("rollout_waits collection=%s reason=%s", rollout.collection, what)
            self._put(rollout, rollout.model_copy(update={"reason": what}), token)

    def _refuse(self, rollout: Rollout, why: str, token: int) -> bool:
        RELEASES_REFUSED_TOTAL.labels(state=rollout.state.value).inc()
        log.warning("release_refused release=%s reason=%s", rollout.release_id, why)
        self._put(rollout, rollout.model_copy(update={"wanted": False, "reason": why}), token)
        return True

    def _move(self, rollout: Rollout, state: RolloutState, token: int) -> Rollout:
        return self._put(rollout, rollout.moved(state, now=self._now()), token)

    def _put(self, before: Rollout | None, after: Rollout, token: int) -> Rollout:
        """Change a record, and say so where somebody should hear of it."""
        self._board.change(before, after, token=token)
        refused = before is not None and before.wanted and not after.wanted and bool(after.reason)
        if before is None or before.state is not after.state or refused:
            self._work.tell(
                ReleaseMoved(
                    release_id=after.release_id,
                    collection=after.collection,
                    state=after.state,
                    reason=after.reason,
                    occurred_at=self._now(),
                )
            )
        return after

    # --- the end -------------------------------------------------------------------------------------

    def _prune(self, rollouts: list[Rollout], token: int) -> bool:
        """Mark what is retired for longer than the grace; remove what is marked once nobody writes it."""
        oldest = self._now() - timedelta(seconds=self._settings.grace_seconds)
        for one in rollouts:
            due = one.state is RolloutState.RETIRED and one.since <= oldest
            # One that is wanted back, and waits for an encoder, stays.
            if due and not one.pruned and not one.wanted:
                self._put(one, one.model_copy(update={"pruned": True}), token)
                return True
        marked = [one for one in rollouts if one.pruned]
        standing = set(self._index.collections()) if marked else set()
        for one in marked:
            if one.collection not in standing or self._index.resolve(self._alias) == one.collection:
                continue
            if self._work.remove_group(one.collection):
                self._index.drop_collection(one.collection)
                log.info("collection_removed collection=%s", one.collection)
                return True
        return False
