"""When a call is made once more, and after how long. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from client.errors import ApiError, TooManyRequests, Unavailable, Unreachable


@dataclass(frozen=True, slots=True)
class Retries:
    """Up to `attempts` calls. A wait is what the service asks for, else doubles from `first_wait_seconds`.

    Every call may be repeated: reading changes nothing, and an event that is posted twice counts once. What
    the service asks for beyond `longest_wait_seconds` is not waited for: the error is raised at once.
    """

    attempts: int = 4
    first_wait_seconds: float = 0.2
    longest_wait_seconds: float = 10.0
    #: Uniform in [0, 1): spreads clients that were refused together.
    draw: Callable[[], float] = random.random

    def wait_seconds(self, attempt: int, error: ApiError | Unreachable) -> float | None:
        """How long to wait after the `attempt`-th failure (from 1); None: give up."""
        if attempt >= self.attempts or not isinstance(error, TooManyRequests | Unavailable | Unreachable):
            return None
        asked = error.retry_after_seconds if isinstance(error, ApiError) else None
        if asked is not None:
            if asked > self.longest_wait_seconds:
                return None
            # Never earlier than asked, a little later so that not everybody comes at once.
            return float(asked * (1.0 + 0.2 * self.draw()))
        wait = min(self.longest_wait_seconds, self.first_wait_seconds * 2.0 ** (attempt - 1))
        return float(wait * (0.5 + 0.5 * self.draw()))
