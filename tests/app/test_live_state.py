"""The service reads whichever generation is live, and looks for another once a second."""

from __future__ import annotations

from typing import Any, cast

import pytest

from app.live_state import LOOK_SECONDS, LiveState, State
from schemas.errors import Transient


class Reader:
    """Items and behaviour of one generation: it says which."""

    def __init__(self, generation: int) -> None:
        self.generation = generation

    def read(self, product_ids: list[str]) -> int:
        return self.generation

    def bought(self, user_id: str) -> int:
        return self.generation


class World:
    """The pointer, the clock, and how often somebody asked."""

    def __init__(self) -> None:
        self.live, self.now, self.asked = 1, 0.0, 0
        self.away = False
        self.state = LiveState(live=self._pointer, opened=self._opened, monotonic=lambda: self.now)

    def _pointer(self) -> int:
        self.asked += 1
        if self.away:
            raise Transient("Redis is away")
        return self.live

    def _opened(self, generation: int) -> State:
        reader = cast(Any, Reader(generation))
        return State(items=reader, behaviour=reader)

    def seen(self) -> set[object]:
        return {self.state.read(["p1"]), self.state.bought("u1")}


def test_another_generation_is_read_from_the_next_look_on() -> None:
    world = World()
    assert world.seen() == {1}
    world.live = 2
    assert world.seen() == {1}
    assert world.asked == 1
    world.now += LOOK_SECONDS
    assert world.seen() == {2}
    assert world.asked == 2


def test_a_redis_that_is_away_is_said_and_the_next_request_asks_again() -> None:
    world = World()
    world.away = True
    with pytest.raises(Transient):
        world.seen()
    world.away = False
    assert world.seen() == {1}
