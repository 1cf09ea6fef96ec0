"""When a call is made once more, and after how long. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from client.errors import ApiError, TooManyRequests, Unavailable, Unreachable


@dataclass(frozen=True, slots=True)
class Retries:
    """Up to `attempts` calls. A wait is what the service asks for, else doubles from `first_wait_seconds`.

    Most calls may be repeated: reading changes nothing, and an event that is posted twice counts once. A
    report counts as often as it arrives, so it is sent again only where it cannot have counted: over the
    key's rate, or without a connection. What the service asks for beyond `longest_wait_seconds` is not
    waited for: the error is raised at once.
    """

    attempts: int = 4
    first_wait_seconds: float = 0.2
    longest_wait_seconds: float = 10.0
    #: Uniform in [0, 1): spreads clients that were refused together.
    draw: Callable[[], float] = random.random

    def wait_seconds(
        self, attempt: int, error: ApiError | Unreachable, *, repeatable: bool = True
    ) -> float | None:
        """How long to wait after the `attempt`-th failure (from 1); None: give up.

        A call that is not `repeatable` must not arrive twice.
        """
        if attempt >= self.attempts or not isinstance(error, TooManyRequests | Unavailable | Unreachable):
            return None
        if not repeatable and not _untaken(error):
            return None
        asked = error.retry_after_seconds if isinstance(error, ApiError) else None
        if asked is not None:
            if asked > self.longest_wait_seconds:
                return None
            # Never earlier than asked, a little later so that not everybody comes at once.
            return float(asked * (1.0 + 0.2 * self.draw()))
        wait = min(self.longest_wait_seconds, self.first_wait_seconds * 2.0 ** (attempt - 1))
        return float(wait * (0.5 + 0.5 * self.draw()))


def _untaken(error: ApiError | Unreachable) -> bool:
    """Whether the service has certainly done nothing; of 503 that is not known, its work may go on."""
    return not error.sent if isinstance(error, Unreachable) else isinstance(error, TooManyRequests)
