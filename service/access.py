"""Who may ask what, and how often: keys, scopes, a rate per key.

Reads   the header Authorization
Writes  the caller into the request's scope, for rules that only a route knows
Never   lets a path answer that it does not know to be open; never repeats a key, right or wrong, in any form
"""

from __future__ import annotations

import hmac
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from fastapi import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from service import problems
from service.errors import Forbidden, TooManyRequests
from service.keys import ApiKey, ApiSettings, Scope, digest_of

#: What answers without a key, beside the explorer's files: orchestrators ask, it says nothing about anybody.
OPEN_PATHS = frozenset({"/health/live", "/health/ready"})
#: Where writing needs another scope than reading. Anything else, unknown paths included, is reading.
PUBLISHING = frozenset({"/v1/events", "/v1/products", "/v1/reviews"})
_CALLER = "simstream.caller"


class Bucket:
    """A token bucket: `burst` at once, `rate_per_second` from then on. Thread-safe."""

    def __init__(self, *, rate_per_second: float, burst: float, monotonic: Callable[[], float]) -> None:
        self._rate = rate_per_second
        self._burst = burst
        self._monotonic = monotonic
        self._left = burst
        self._at = monotonic()
        self._lock = threading.Lock()

    def wait_seconds(self, cost: float = 1.0) -> float:
        """0 and the tokens are taken; or how long until there are enough, and nothing is taken.

        What costs more than the bucket holds is let through when it is full, and leaves a debt.
        """
        with self._lock:
            now = self._monotonic()
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
            self._at = now
            missing = min(cost, self._burst) - self._left
            if missing > 0:
                return missing / self._rate
            self._left -= cost
            return 0.0


class Keyring:
    """The keys of this process and what each has left to spend. A new list takes the place of the old one."""

    def __init__(
        self,
        settings: ApiSettings,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._bucket = partial(
            Bucket, rate_per_second=settings.rate_per_second, burst=settings.burst, monotonic=monotonic
        )
        self._keys: Mapping[str, tuple[ApiKey, Bucket]] = {}
        self.replace(settings.parsed())

    def __bool__(self) -> bool:
        return bool(self._keys)

    def replace(self, keys: Sequence[ApiKey]) -> None:
        """These are the keys from now on. One that stays goes on with what it has left to spend."""
        before = self._keys
        self._keys = {
            key.digest: (key, before[key.digest][1] if key.digest in before else self._bucket())
            for key in keys
        }

    def find(self, presented: str) -> ApiKey | None:
        """The key, if it is one; every entry is compared, in constant time."""
        digest = digest_of(presented)
        found = None
        for key, _ in self._keys.values():
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def expired(self, key: ApiKey) -> bool:
        """Whether it is past its time."""
        return key.expires_at is not None and self._clock() >= key.expires_at

    def good(self, key: ApiKey) -> bool:
        """Whether a key that was found before is still listed and within its time."""
        listed = self._keys.get(key.digest)
        return listed is not None and not self.expired(listed[0])

    def spend(self, key: ApiKey, cost: float = 1.0) -> None:
        """Take from the key's rate. Raises TooManyRequests saying when to come back."""
        listed = self._keys.get(key.digest)
        # One that was taken off the list while its request is in hand has nothing left to save.
        wait = listed[1].wait_seconds(cost) if listed is not None else 0.0
        if wait > 0:
            raise TooManyRequests(f"key {key.name!r} is over its rate", retry_after_seconds=math.ceil(wait))


class Caller:
    """Who asks. Without a keyring, anybody: every scope, no rate."""

    def __init__(self, keyring: Keyring | None = None, key: ApiKey | None = None) -> None:
        self._keyring = keyring
        self._key = key

    def good(self) -> bool:
        """Whether the key would still be let in: for answers that go on and on."""
        return self._keyring is None or self._key is None or self._keyring.good(self._key)

    def require(self, scope: Scope, what: str) -> None:
        """Raises Forbidden, naming the scope, where the key does not have it."""
        if self._key is not None and scope not in self._key.scopes:
            raise Forbidden(f"{what} needs a key with the scope {scope.value!r}", scope=scope.value)

    def spend(self, cost: float) -> None:
        """Take more from the rate than the one request. Raises TooManyRequests."""
        if self._keyring is not None and self._key is not None and cost > 0:
            self._keyring.spend(self._key, cost)


def caller(request: Request) -> Caller:
    """Who sent a request."""
    found: Caller = request.scope.get(_CALLER) or Caller()
    return found


class Access:
    """Answers 401, 403 and 429 before anything else of a request is looked at. Plain ASGI."""

    def __init__(self, app: ASGIApp, *, keyring: Keyring, page: Collection[str] = ()) -> None:
        """`page` are the paths of the explorer's own files: the same for everybody."""
        self._app = app
        self._keyring = keyring
        self._open = OPEN_PATHS.union(page)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] not in ("http", "websocket") or not self._keyring or scope["path"] in self._open:
            await self._app(scope, receive, send)
            return
        refused = self._refused(scope)
        if refused is None:
            await self._app(scope, receive, send)
        else:
            await refused(scope, receive, send)

    def _refused(self, scope: AsgiScope) -> Response | None:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if not given:
            return _unauthorized("this service answers to keys: send Authorization: Bearer KEY")
        scheme, _, presented = given[0].decode("latin-1").partition(" ")
        if len(given) > 1 or scheme.lower() != "bearer":
            return _unauthorized("send one header Authorization: Bearer KEY")
        key = self._keyring.find(presented.strip())
        if key is None:
            return _unauthorized("no such key", error="invalid_token")
        if self._keyring.expired(key):
            return _unauthorized(f"the key of {key.name!r} has expired", error="invalid_token")
        who = Caller(self._keyring, key)
        writes = scope.get("method") == "POST" and scope["path"] in PUBLISHING
        try:
            self._keyring.spend(key)
            who.require(Scope.PUBLISH if writes else Scope.READ, "this route")
        except (TooManyRequests, Forbidden) as error:
            return problems.of(error)
        scope[_CALLER] = who
        return None


def _unauthorized(detail: str, *, error: str | None = None) -> Response:
    challenge = 'Bearer realm="simstream"' + (f', error="{error}"' if error else "")
    return problems.problem(401, detail, headers={"WWW-Authenticate": challenge})
