"""What the service refuses, as exceptions: one for each thing that a caller can do about it."""

from __future__ import annotations

from schemas.api import Problem


class Unreachable(Exception):
    """No answer came: no connection, or none in time. Where it was `sent`, it may have been served."""

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class ApiError(Exception):
    """The service answered with a problem. `retry_after_seconds` is what it asks to be left alone for."""

    def __init__(self, problem: Problem, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}")
        self.problem = problem
        self.retry_after_seconds = retry_after_seconds

    @property
    def status(self) -> int:
        """The status of HTTP."""
        return self.problem.status


class Unauthorized(ApiError):
    """401: no key, or none that the service knows."""


class Forbidden(ApiError):
    """403: the key does not have the scope."""


class NotFound(ApiError):
    """404: no such item, release or route."""


class Conflict(ApiError):
    """409: the item waits for its first vectors; it will be found in a moment."""


class Gone(ApiError):
    """410: the item has left the catalogue."""


class Invalid(ApiError):
    """422: a field is wrong; `fields` says which and why."""

    @property
    def fields(self) -> dict[str, str]:
        """Message by field."""
        return {each["field"]: each.get("message", "") for each in self.problem.errors if "field" in each}


class TooManyRequests(ApiError):
    """429: the key is over its rate, and stayed so for as long as was retried."""


class Unavailable(ApiError):
    """503: `stores` are away, or (where it is empty) the service has too much to do."""

    @property
    def stores(self) -> list[str]:
        """What the service misses: index, items, behaviour, encoder, broker."""
        return [each["store"] for each in self.problem.errors if "store" in each]


BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
    503: Unavailable,
}
