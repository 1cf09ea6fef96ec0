"""What can go wrong with a query, each with its HTTP status: service/problems.py turns them into answers."""

from __future__ import annotations


class Refused(Exception):
    """A query that cannot be answered. `status` and `title` go into the problem; the text is its detail."""

    status = 400
    title = "Bad request"
    #: Whether the same request may succeed a little later: the answer then says when.
    passes = False

    def __init__(
        self,
        detail: str,
        *,
        errors: list[dict[str, str]] | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors or []
        self.retry_after_seconds = retry_after_seconds

    def headers(self) -> dict[str, str]:
        """Headers of the answer beside Retry-After."""
        return {}


class Forbidden(Refused):
    """The key is known and may not do this: 403, `scope` names what it lacks."""

    status = 403
    title = "Forbidden"

    def __init__(self, detail: str, *, scope: str) -> None:
        super().__init__(detail, errors=[{"scope": scope, "message": detail}])
        self.scope = scope

    def headers(self) -> dict[str, str]:
        """RFC 6750, section 3."""
        challenge = f'Bearer realm="simstream", error="insufficient_scope", scope="{self.scope}"'
        return {"WWW-Authenticate": challenge}


class TooManyRequests(Refused):
    """The key is over its rate: 429."""

    status = 429
    title = "Too many requests"
    passes = True


class Busy(Refused):
    """More is asked than this process can answer in time: 503, worth repeating a little later."""

    status = 503
    title = "Too busy"
    passes = True


class TooLarge(Refused):
    """An event that its topic does not take: 413."""

    status = 413
    title = "Event too large"


class UnknownItem(Refused):
    """No such item: 404."""

    status = 404
    title = "Unknown item"


class UnknownRelease(Refused):
    """No collection of the release that was named: 404."""

    status = 404
    title = "Unknown release"


class DeletedItem(Refused):
    """The item has left the catalogue: 410, so that a client can tell it from a misspelt id."""

    status = 410
    title = "Deleted item"


class NotSearchableYet(Refused):
    """The item is known and waits for its first vectors: 409, worth repeating in a second."""

    status = 409
    title = "Item not searchable yet"
    passes = True


class Unanswerable(Refused):
    """Well-formed, but nothing can come of it (seeds that cancel out, no usable dimension): 422."""

    status = 422
    title = "The query cannot be answered"


class Unavailable(Refused):
    """A store, the live collection or the encoder is missing: 503, `store` names it."""

    status = 503
    title = "Temporarily unavailable"
    passes = True

    def __init__(self, store: str, detail: str) -> None:
        super().__init__(detail, errors=[{"store": store, "message": detail}])
        self.store = store


def shown(item_id: str) -> str:
    """An id as it may stand in a message or a log line: escaped to ASCII, quoted, shortened."""
    short = item_id if len(item_id) <= 80 else item_id[:77] + "..."
    return ascii(short)
