"""Asking for releases: what a command, the trainer or a rebuild does, and how it follows what comes of it.

Reads   records of the rollout
Writes  records: a new candidate, the wish to have it live, the mark of what is to be removed
Never   moves anything itself: consumers/rollout.py does, in whichever process holds the lease
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import UTC, datetime

from adapters.redis_rollouts import ROLLOUT_LEASE, Changed, RolloutBoard
from schemas.errors import Halt
from schemas.rollouts import Rollout, RolloutState

#: Nobody holding the lease for so long means that nobody works on rollouts.
PATIENCE_SECONDS = 30.0


def ask_for(
    board: RolloutBoard,
    release_id: str,
    *,
    alias: str,
    standing: Collection[str],
    wanted: bool = True,
    anew: bool = False,
    overrule: bool = False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Rollout:
    """Register a collection for a release, or find the one it has, and ask for it to be made live.

    `standing` are the collections that there are, for a name that is free. `anew` asks for a fresh collection
    of a release that has one (a rebuild). Without `wanted` it is registered and waits for a person;
    `overrule` asks for it even if the gate said no. Raises ValueError when the release is live already.
    """
    while True:
        own = [one for one in board.all() if one.release_id == release_id]
        open_ones = [one for one in own if not one.pruned]
        if anew:
            # A fresh collection that is on its way is that of an earlier call which was cut off.
            open_ones = [
                one for one in open_ones if one.state not in (RolloutState.LIVE, RolloutState.RETIRED)
            ]
        elif any(one.state is RolloutState.LIVE for one in open_ones):
            raise ValueError(f"release {release_id!r} is live already")
        with suppress(Changed):
            if open_ones:
                newest = open_ones[-1]
                if newest.wanted or not wanted:
                    return newest
                update = {"wanted": True, "overruled": overrule, "reason": ""}
                return board.change(newest, newest.model_copy(update=update))
            taken = {one.collection for one in own} | set(standing)
            number = 1
            while f"{alias}__{release_id}__{number}" in taken:
                number += 1
            return board.change(
                None,
                Rollout(
                    release_id=release_id,
                    collection=f"{alias}__{release_id}__{number}",
                    wanted=wanted,
                    overruled=overrule,
                    since=now(),
                ),
            )


def wait_until(
    board: RolloutBoard,
    collection: str,
    *,
    say: Callable[[Rollout], None],
    pause_seconds: float = 0.5,
    timeout_seconds: float | None = None,
) -> Rollout:
    """Follow a rollout that somebody asked for, until it is live or stands still; its last record.

    `say` hears every change. Raises Halt when time is over, or when nobody works on rollouts.
    """
    started = time.monotonic()
    before: Rollout | None = None
    while True:
        found = board.get(collection)
        if found is None:
            raise Halt(f"the record of {collection} has gone")
        if found != before:
            say(found)
            before = found
        if not found.wanted or found.pruned:
            return found
        if board.holder(ROLLOUT_LEASE) is None and time.monotonic() - started > PATIENCE_SECONDS:
            raise Halt(
                "nobody works on rollouts: start `simstream consume embeddings`, or `simstream up`; the "
                "request stands and is taken up then"
            )
        if timeout_seconds is not None and time.monotonic() - started > timeout_seconds:
            why = found.reason or "on its way"
            raise Halt(f"{collection} is {found.state} after {timeout_seconds:.0f} s: {why}")
        time.sleep(pause_seconds)


def ask_back(board: RolloutBoard, release_id: str | None = None) -> Rollout:
    """Ask for the collection that was live before, or for that of a release, which must still be written.

    Raises ValueError when there is nothing to go back to.
    """
    while True:
        retired = [
            one
            for one in board.all()
            if one.state is RolloutState.RETIRED
            and not one.pruned
            and (release_id is None or one.release_id == release_id)
        ]
        if not retired:
            which = "no collection" if release_id is None else f"no collection of release {release_id!r}"
            raise ValueError(
                f"{which} is retired and still written: there is nothing to go back to. A collection is kept "
                "for SIMSTREAM_ROLLOUT__GRACE_SECONDS; `simstream releases promote` fills a new one"
            )
        newest = max(retired, key=lambda one: one.since)
        if newest.wanted:
            return newest
        with suppress(Changed):
            return board.change(newest, newest.model_copy(update={"wanted": True, "reason": ""}))


def ask_removal(board: RolloutBoard, release_id: str | None = None) -> list[Rollout]:
    """Mark what is retired, or everything of one release, to be removed before its grace is over.

    Raises ValueError when the release is live or has no collection.
    """
    found = [one for one in board.all() if not one.pruned and release_id in (None, one.release_id)]
    if release_id is None:
        found = [one for one in found if one.state is RolloutState.RETIRED]
    elif any(one.state is RolloutState.LIVE for one in found):
        raise ValueError(f"release {release_id!r} is live: promote another one, or roll back, before")
    elif not found:
        raise ValueError(f"release {release_id!r} has no collection: see `simstream releases list`")
    marked = []
    for one in found:
        with suppress(Changed):  # it has just been asked for, or went live: it stays
            marked.append(board.change(one, one.model_copy(update={"pruned": True, "wanted": False})))
    return marked
