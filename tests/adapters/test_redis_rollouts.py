"""Records of the rollout change by compare-and-set; a lease has one holder, and fences the one before."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from adapters.redis_client import RedisSettings, connect
from adapters.redis_rollouts import ROLLOUT_LEASE, TRAINER_LEASE, Changed, Fenced, RolloutBoard
from app.local import LocalRedis
from schemas.errors import Halt
from schemas.rollouts import Rollout

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
FIRST = Rollout(release_id="r-1", collection="items__r-1__1", since=NOW)


@pytest.fixture
def board(redis_server: LocalRedis, namespace: str) -> RolloutBoard:
    return RolloutBoard(client=connect(RedisSettings(url=redis_server.url)), namespace=namespace)


def test_a_record_changes_only_from_what_it_was_believed_to_be(board: RolloutBoard) -> None:
    board.change(None, FIRST)
    with pytest.raises(Changed):
        board.change(None, FIRST)
    wanted = board.change(FIRST, FIRST.model_copy(update={"wanted": True}))
    with pytest.raises(Changed):
        board.change(FIRST, FIRST.model_copy(update={"pruned": True}))
    assert board.all() == [wanted]
    assert board.get(FIRST.collection) == wanted
    assert board.get("items__other__1") is None


def test_a_holder_that_slept_is_refused_by_the_first_record_it_touches(board: RolloutBoard) -> None:
    first = board.take(ROLLOUT_LEASE, "a", 0.0)
    second = board.take(ROLLOUT_LEASE, "b", 10.0)
    assert first is not None
    assert second is not None
    assert second > first
    with pytest.raises(Fenced):
        board.change(None, FIRST, token=first)
    assert board.all() == []
    assert not board.renew(ROLLOUT_LEASE, "a", 10.0, token=first)
    board.let_go(ROLLOUT_LEASE, token=first)  # of no effect: it is not a's any more
    assert board.holder(ROLLOUT_LEASE) == "b"
    board.change(None, FIRST, token=second)


def test_a_lease_has_one_holder_until_it_ends_or_is_given_back(board: RolloutBoard) -> None:
    token = board.take(TRAINER_LEASE, "a", 60.0)
    assert token is not None
    assert board.take(TRAINER_LEASE, "b", 60.0) is None
    assert board.take(ROLLOUT_LEASE, "b", 60.0) is not None  # another lease
    assert board.renew(TRAINER_LEASE, "a", 60.0, token=token)
    board.let_go(TRAINER_LEASE, token=token)
    assert board.holder(TRAINER_LEASE) is None
    after = board.take(TRAINER_LEASE, "b", 60.0)
    assert after is not None
    assert after > token


def test_an_instance_that_fell_silent_no_longer_counts(board: RolloutBoard) -> None:
    board.report("one", ["r-2", "r-1"], now=1_000.0)
    board.report("two", ["r-1"], now=1_025.0)
    assert board.instances(now=1_026.0) == {"one": frozenset({"r-1", "r-2"}), "two": frozenset({"r-1"})}
    assert set(board.instances(now=1_040.0)) == {"two"}
    board.sign_off("two")
    assert board.instances(now=1_040.0) == {}


def test_a_record_of_another_version_halts_with_its_field(
    board: RolloutBoard, redis_server: LocalRedis, namespace: str
) -> None:
    board.change(None, FIRST)
    client = connect(RedisSettings(url=redis_server.url))
    strange = FIRST.model_dump_json().replace("candidate", "elsewhere")
    client.hset(f"{namespace}release:{{all}}:rollouts", "items__r-9__1", strange)
    with pytest.raises(Halt, match="field 'state'"):
        board.all()
