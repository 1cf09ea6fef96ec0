"""The path of a release from candidate to retired: its states, and the record of where it stands.

One record per collection, since a release may be brought live twice: `simstream rebuild` fills a second
collection of the live one. What is live is said by the alias alone; a record is set right by it, never the
other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime

from schemas.events import Frozen
from schemas.releases import ReleaseId


class RolloutState(StrEnum):
    """Where a collection stands."""

    CANDIDATE = "candidate"
    BACKFILLING = "backfilling"
    VERIFIED = "verified"
    LIVE = "live"
    RETIRED = "retired"


#: The moves that work may make. Setting a record right by the alias may make others, to and from `live`.
MOVES: Mapping[RolloutState, frozenset[RolloutState]] = {
    RolloutState.CANDIDATE: frozenset({RolloutState.BACKFILLING}),
    RolloutState.BACKFILLING: frozenset({RolloutState.VERIFIED}),
    RolloutState.VERIFIED: frozenset({RolloutState.LIVE, RolloutState.BACKFILLING}),
    RolloutState.LIVE: frozenset({RolloutState.RETIRED}),
    RolloutState.RETIRED: frozenset({RolloutState.LIVE}),
}


class Rollout(Frozen):
    """One collection on its way.

    `wanted` asks for it to be made live; `overruled`, even if the gate said no. `filled` says that the
    backfill has handed it over: from then on it is written as the live one is. `reason` says in a sentence
    why it stands still. `pruned` collections are written no more and removed.
    """

    release_id: ReleaseId
    collection: str
    state: RolloutState = RolloutState.CANDIDATE
    wanted: bool = False
    overruled: bool = False
    filled: bool = False
    pruned: bool = False
    reason: str = ""
    since: AwareDatetime

    @property
    def written(self) -> bool:
        """Whether the consumer of embeddings keeps the collection equal to item state."""
        return self.filled and not self.pruned

    def moved(self, state: RolloutState, *, now: AwareDatetime) -> Rollout:
        """The record after a move. Raises ValueError for a move that does not exist."""
        if state not in MOVES[self.state]:
            raise ValueError(f"{self.collection} cannot go from {self.state} to {state}")
        return self.placed(state, now=now)

    def placed(self, state: RolloutState, *, now: AwareDatetime) -> Rollout:
        """The record in another state, whatever it was in before: the alias has said so."""
        ended = state in (RolloutState.LIVE, RolloutState.RETIRED)
        change: dict[str, object] = {"state": state, "since": now, "reason": ""}
        if ended:
            change |= {"wanted": False, "filled": True}
        return self.model_copy(update=change)


class ReleaseMoved(Frozen):
    """What model.releases carries: a collection of a release has moved on. Best effort."""

    kind: Literal["release_moved"] = "release_moved"
    release_id: ReleaseId
    collection: str
    state: RolloutState
    reason: str = ""
    occurred_at: AwareDatetime
