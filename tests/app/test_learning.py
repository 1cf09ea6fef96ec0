"""app/learning.py: one trainer at a time."""

from __future__ import annotations

import pytest

from adapters.redis_rollouts import TRAINER_LEASE
from app.learning import the_only_trainer
from app.settings import Settings
from app.wiring import open_board
from schemas.errors import Halt
from tests.support.servers import Redis


@pytest.fixture
def settings(redis_server: Redis, namespace: str) -> Settings:
    return Settings.model_validate({"redis": {"url": redis_server.url}, "namespace": namespace})


def test_a_second_trainer_is_sent_away_and_a_later_one_is_not(settings: Settings) -> None:
    board = open_board(settings)
    with the_only_trainer(settings):
        holder = board.holder(TRAINER_LEASE)
        assert holder is not None
        with pytest.raises(Halt, match="another trainer is at work"), the_only_trainer(settings):
            pass
        assert board.holder(TRAINER_LEASE) == holder
    assert board.holder(TRAINER_LEASE) is None
    with pytest.raises(RuntimeError, match="no disk"), the_only_trainer(settings):
        raise RuntimeError("no disk")
    assert board.holder(TRAINER_LEASE) is None
