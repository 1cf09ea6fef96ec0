"""The way of a release, step by step: in order, refused with a reason, and from anywhere after a kill."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from adapters.index_edge import EdgeIndex
from adapters.redis_client import RedisSettings, connect
from adapters.redis_rollouts import ROLLOUT_LEASE, Fenced, RolloutBoard
from app.local import LocalRedis
from consumers.release_requests import ask_back, ask_for, ask_removal
from consumers.rollout import Rollouts, RolloutSettings
from consumers.verification import Verified
from schemas.errors import Halt
from schemas.rollouts import ReleaseMoved, Rollout, RolloutState
from schemas.vectors import CollectionSpec

ALIAS = "items"
LIVE = "items__r-1__1"
SPEC = CollectionSpec(dense={"content": 4})
WHOLE = Verified(3, 3, ())
State = RolloutState


class Killed(BaseException):
    """The process ends here."""


class ScriptedWork:
    """Implements consumers.rollout.Work: what a test says, on a real index."""

    def __init__(self, index: EdgeIndex) -> None:
        self.index = index
        self.wrong: str | None = None
        self.filling = 0
        self.found = WHOLE
        self.lags = 0
        self.read_by_somebody = False
        self.told: list[ReleaseMoved] = []
        self.fills: list[str] = []
        self.removed: list[str] = []

    def check(self, rollout: Rollout) -> None:
        if self.wrong is not None:
            raise ValueError(self.wrong)

    def fill(self, rollout: Rollout) -> bool:
        self.fills.append(rollout.collection)
        self.index.ensure_collection(rollout.collection, SPEC)
        self.filling -= 1
        return self.filling < 0

    def stop_filling(self) -> None:
        pass

    def verify(self, rollout: Rollout) -> Verified:
        assert rollout.collection in self.index.collections()
        return self.found

    def lag(self, collection: str) -> int:
        return self.lags

    def remove_group(self, collection: str) -> bool:
        self.removed.append(collection)
        return not self.read_by_somebody

    def tell(self, moved: ReleaseMoved) -> None:
        self.told.append(moved)


class World:
    """One shop with release r-1 live."""

    def __init__(self, folder: Path, redis_url: str, namespace: str) -> None:
        self.index = EdgeIndex(folder)
        self.index.ensure_collection(LIVE, SPEC)
        self.index.set_alias(ALIAS, LIVE)
        self.board = RolloutBoard(client=connect(RedisSettings(url=redis_url)), namespace=namespace)
        self.work = ScriptedWork(self.index)
        self.now = datetime(2026, 11, 25, 12, tzinfo=UTC)
        self.token = 0
        self.rollouts = self.process("first")

    def process(self, name: str, **settings: Any) -> Rollouts:
        """Another process, once the lease of the one before has run out."""
        self.board.let_go(ROLLOUT_LEASE, token=self.token)
        token = self.board.take(ROLLOUT_LEASE, name, 60.0)
        assert token is not None
        self.token = token
        return Rollouts(
            board=self.board,
            index=self.index,
            alias=ALIAS,
            work=self.work,
            settings=RolloutSettings(**settings),
            holder=name,
            now=lambda: self.now,
        )

    def step(self) -> bool:
        self.now += timedelta(seconds=1)
        moved = self.rollouts.step(self.token)
        self.check()
        return moved

    def steps(self) -> None:
        for _ in range(50):
            if not self.step():
                return
        raise AssertionError("it never comes to rest")

    def ask(self, release_id: str = "r-2", **more: Any) -> Rollout:
        return ask_for(self.board, release_id, alias=ALIAS, standing=self.index.collections(), **more)

    def states(self) -> dict[str, State]:
        return {one.collection: one.state for one in self.board.all()}

    def live(self) -> str | None:
        return self.index.resolve(ALIAS)

    def check(self) -> None:
        """What holds at every moment, killed or not."""
        live = [one for one in self.board.all() if one.state is State.LIVE]
        assert len(live) <= 1, live
        assert self.live() in self.index.collections()


@pytest.fixture
def world(tmp_path: Path, redis_server: LocalRedis, namespace: str) -> Any:
    made = World(tmp_path / "index", redis_server.url, namespace)
    yield made
    made.index.close()


def test_a_wanted_candidate_passes_every_state_and_the_one_before_is_retired(world: World) -> None:
    world.work.filling = 2
    world.steps()
    assert world.states() == {LIVE: State.LIVE}  # what the alias says, without a record before
    asked = world.ask()
    assert asked.collection == "items__r-2__1"
    seen = [asked.state]
    for _ in range(20):
        world.step()
        state = world.states()[asked.collection]
        if state is not seen[-1]:
            seen.append(state)
    assert seen == [State.CANDIDATE, State.BACKFILLING, State.VERIFIED, State.LIVE]
    assert world.live() == asked.collection
    assert world.states()[LIVE] is State.RETIRED
    told = [(one.release_id, one.state) for one in world.work.told]
    assert told == [
        ("r-1", State.LIVE),
        ("r-2", State.BACKFILLING),
        ("r-2", State.VERIFIED),
        ("r-1", State.RETIRED),
        ("r-2", State.LIVE),
    ]


def test_without_a_persons_word_a_candidate_stays_one(world: World) -> None:
    world.ask(wanted=False)
    world.steps()
    assert world.states()["items__r-2__1"] is State.CANDIDATE
    assert world.work.fills == []
    world.ask()  # `promote`
    world.steps()
    assert world.live() == "items__r-2__1"


def refusals(state: str) -> float:
    return REGISTRY.get_sample_value("simstream_releases_refused_total", {"state": state}) or 0.0


def test_a_bad_release_is_refused_with_its_reason_and_nothing_is_filled(world: World) -> None:
    before = refusals("candidate")
    world.work.wrong = "weight 'a' is not finite"
    asked = world.ask()
    world.steps()
    found = world.board.get(asked.collection)
    assert found is not None
    assert (found.state, found.wanted, found.reason) == (State.CANDIDATE, False, "weight 'a' is not finite")
    assert refusals("candidate") == before + 1
    assert world.work.fills == []
    assert world.live() == LIVE
    assert world.work.told[-1].reason == "weight 'a' is not finite"


def test_a_collection_that_is_not_whole_never_goes_live(world: World) -> None:
    world.work.found = Verified(3, 2, ("p1",))
    asked = world.ask()
    world.steps()
    found = world.board.get(asked.collection)
    assert found is not None
    assert not found.wanted
    assert found.reason == "it does not show every item as it is: 3 items, 2 points; not as their state: p1"
    assert world.live() == LIVE
    world.work.found = WHOLE
    world.ask()
    world.steps()
    assert world.live() == asked.collection


def test_it_waits_for_the_writer_and_for_every_instance_of_the_service(world: World) -> None:
    asked = world.ask()
    world.work.lags = 10_000
    world.steps()
    assert world.states()[asked.collection] is State.BACKFILLING
    world.work.lags = 0
    world.board.report("service-1", ["r-1"])
    world.board.report("service-2", ["r-1", "r-2"])
    world.steps()
    found = world.board.get(asked.collection)
    assert found is not None
    assert (found.state, found.wanted) == (State.VERIFIED, True)
    assert found.reason == "its encoder is not loaded yet by service-1"
    assert world.live() == LIVE
    world.board.report("service-1", ["r-1", "r-2"])
    world.steps()
    assert world.live() == asked.collection


def test_a_verdict_of_before_a_restart_is_not_trusted(world: World) -> None:
    world.board.report("service-1", [])
    asked = world.ask()
    world.steps()
    assert world.states()[asked.collection] is State.VERIFIED
    world.rollouts = world.process("second")
    world.board.sign_off("service-1")
    world.work.found = Verified(3, 3, ("p2",))
    world.steps()
    assert world.live() == LIVE


def test_a_rollback_is_the_alias_moved_back_and_passes_a_backfill_under_way(world: World) -> None:
    second = world.ask().collection
    world.steps()
    world.work.filling = 1_000
    world.ask("r-3")
    world.step()
    world.step()
    assert world.states()["items__r-3__1"] is State.BACKFILLING
    ask_back(world.board)
    world.step()
    assert world.live() == LIVE
    assert world.states() == {
        LIVE: State.LIVE,
        second: State.RETIRED,
        "items__r-3__1": State.BACKFILLING,
    }


def test_a_rollback_is_refused_while_the_old_collection_lags(world: World) -> None:
    second = world.ask().collection
    world.steps()
    world.work.lags = 5_000
    ask_back(world.board, "r-1")
    world.steps()
    found = world.board.get(LIVE)
    assert found is not None
    assert not found.wanted
    assert "is 5000 changes behind (at most 200 are allowed)" in found.reason
    assert world.live() == second


def test_what_is_retired_is_removed_after_its_grace_once_nobody_writes_it(world: World) -> None:
    world.rollouts = world.process("first", grace_seconds=100.0)
    world.ask()
    world.steps()
    assert LIVE in world.index.collections()
    world.now += timedelta(seconds=101)
    world.work.read_by_somebody = True
    world.steps()
    found = world.board.get(LIVE)
    assert found is not None
    assert found.pruned
    assert not found.written  # its writers end now
    assert LIVE in world.index.collections()
    world.work.read_by_somebody = False
    world.steps()
    assert world.index.collections() == ["items__r-2__1"]
    with pytest.raises(ValueError, match="there is nothing to go back to"):
        ask_back(world.board)
    assert world.ask("r-1").collection == "items__r-1__2"  # a name is never used twice


def test_what_is_wanted_back_is_not_removed_while_it_waits_for_an_encoder(world: World) -> None:
    world.rollouts = world.process("first", grace_seconds=100.0)
    world.ask()
    world.steps()
    world.now += timedelta(seconds=101)
    world.board.report("service-2", {"r-2"})
    asked = ask_back(world.board)
    world.steps()
    found = world.board.get(asked.collection)
    assert found is not None
    assert (found.wanted, found.pruned) == (True, False)
    assert "not loaded yet by service-2" in found.reason
    world.board.report("service-2", {"r-1", "r-2"})
    world.steps()
    assert world.live() == LIVE


def test_a_release_on_its_way_can_be_given_up_and_the_live_one_cannot(world: World) -> None:
    world.work.filling = 1_000
    asked = world.ask()
    for _ in range(3):
        world.step()
    ask_removal(world.board, "r-2")
    world.steps()
    assert asked.collection not in world.index.collections()
    with pytest.raises(ValueError, match="is live: promote another one, or roll back"):
        ask_removal(world.board, "r-1")
    with pytest.raises(ValueError, match="is live already"):
        world.ask("r-1")


def test_the_live_release_can_have_a_fresh_collection(world: World) -> None:
    world.steps()
    asked = world.ask("r-1", anew=True)
    assert asked.collection == "items__r-1__2"
    assert world.ask("r-1", anew=True) == asked  # an earlier call that was cut off is found again
    world.steps()
    assert world.live() == "items__r-1__2"
    assert world.states() == {LIVE: State.RETIRED, "items__r-1__2": State.LIVE}


def test_somebody_who_slept_moves_neither_a_record_nor_the_alias(world: World) -> None:
    world.ask()
    slept, rollouts = world.token, world.rollouts
    world.rollouts = world.process("second")
    with pytest.raises(Fenced):
        rollouts.step(slept)
    assert world.live() == LIVE
    world.steps()
    assert world.live() == "items__r-2__1"


def test_a_kill_between_the_alias_and_the_records_is_set_right_by_the_alias(world: World) -> None:
    world.ask()
    while world.states().get("items__r-2__1") is not State.VERIFIED:
        world.step()
    world.index.set_alias(ALIAS, "items__r-2__1")  # and the process is gone
    assert world.states()[LIVE] is State.LIVE  # the record is wrong
    world.rollouts = world.process("second")
    world.step()
    assert world.states() == {LIVE: State.RETIRED, "items__r-2__1": State.LIVE}
    # A person moved it back by hand: the records follow.
    world.index.set_alias(ALIAS, LIVE)
    world.step()
    assert world.states() == {LIVE: State.LIVE, "items__r-2__1": State.RETIRED}


def killed_at(world: World, effect: int, *, before: bool) -> bool:
    """Run until the given effect (a record, the alias, a removal) is made or about to be; whether it came."""
    counted = 0

    def mortal(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **named: Any) -> Any:
            nonlocal counted
            counted += 1
            if before and counted == effect:
                raise Killed
            answer = call(*args, **named)
            if counted == effect:
                raise Killed
            return answer

        return wrapped

    board, index = world.board, world.index
    names = [
        (board, "change"),
        (index, "set_alias"),
        (index, "drop_collection"),
        (index, "ensure_collection"),
    ]
    for owner, name in names:
        setattr(owner, name, mortal(getattr(owner, name)))
    try:
        world.steps()
    except Killed:
        return True
    finally:
        for owner, name in names:
            delattr(owner, name)
    return False


@pytest.mark.parametrize("before", [True, False], ids=["before the effect", "after it"])
def test_a_kill_at_any_effect_leaves_one_live_and_the_next_process_finishes(
    tmp_path: Path, redis_server: LocalRedis, namespace: str, before: bool
) -> None:
    """Promote, roll back, prune: cut off at every single effect, then gone on with by another process."""
    effects = 0
    for effect in range(1, 40):
        world = World(tmp_path / str(effect), redis_server.url, f"{namespace}{effect}.")
        try:
            world.rollouts = world.process("first", grace_seconds=0.0)
            world.ask()
            came = killed_at(world, effect, before=before)
            world.check()
            world.rollouts = world.process("second", grace_seconds=0.0)
            world.steps()
            assert world.live() == "items__r-2__1"
            assert world.index.collections() == ["items__r-2__1"]
            assert world.states() == {LIVE: State.RETIRED, "items__r-2__1": State.LIVE}
        finally:
            world.index.close()
        if not came:
            break
        effects += 1
    assert effects >= 9, effects
    print(f"killed at {effects} effects")


def test_a_backfill_that_gives_up_is_refused_with_its_sentence(world: World) -> None:
    def gives_up(rollout: Rollout) -> bool:
        raise Halt("the backfill does not come to an end")

    world.work.fill = gives_up  # type: ignore[method-assign]
    asked = world.ask()
    world.steps()
    found = world.board.get(asked.collection)
    assert found is not None
    assert (found.state, found.wanted) == (State.BACKFILLING, False)
    assert found.reason == "the backfill does not come to an end"
