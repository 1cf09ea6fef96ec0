"""Who asked to be forgotten, and when: events of theirs up to then are nobody's business any more.

Reads   user.erasures: every partition, without a group; to the end before anything else, then as it grows
Writes  through `Report`, how far this process has drawn the consequences
Never   knows a user id: the topic names shoppers by an HMAC under a key used for nothing else
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from pydantic import SecretStr

from adapters.kafka import Record
from consumers.progress import Progress
from schemas.errors import Transient
from schemas.events import Frozen, UserErased
from schemas.parsing import InvalidEvent, parse_event

log = logging.getLogger(__name__)

Poll = Callable[[float], Iterable[Record]]
#: Next offsets by partition.
Reached = Mapping[int, int]
Report = Callable[[Reached], None]
#: How often a reader says that it lives.
_REPORT_SECONDS = 5.0


class ErasureSettings(Frozen):
    """The key of user.erasures. Changing it forgets who asked to be forgotten: keep it with the topic."""

    key: SecretStr = SecretStr("")

    @property
    def secret(self) -> bytes:
        """The key as bytes; a public one where none is set."""
        return (self.key.get_secret_value() or "simstream-erasures").encode()


def erasure_key(user_id: str, key: bytes) -> str:
    """What a shopper is called on user.erasures."""
    return hmac.new(key, user_id.encode(), hashlib.sha256).hexdigest()


class OlderWork:
    """What was in hand when a process learned of erasures: read before, and perhaps without, them."""

    def __init__(self, reached: Reached, stays: Iterable[Progress]) -> None:
        self.reached = reached
        self._open = [one for stay in stays for one in stay.in_flight if not one.settled]

    def done(self) -> bool:
        """Whether all of it is settled, or its partition has gone elsewhere."""
        while self._open and (self._open[-1].settled or self._open[-1].abandoned):
            self._open.pop()
        return not self._open


class Erasures:
    """The latest erasure of each shopper, in memory: about 150 bytes each."""

    def __init__(self, *, key: bytes) -> None:
        self._key = key
        self._latest: dict[str, float] = {}
        self._reached: dict[int, int] = {}
        self._acknowledged: Reached = {}
        self._stop = threading.Event()
        self._follower: threading.Thread | None = None
        #: What ended the following, if something did: whoever applies events must not go on without.
        self.fatal: BaseException | None = None

    def take(self, records: Iterable[Record]) -> None:
        """Learn from records of the topic; what cannot be read is said and passed over."""
        reached = dict(self._reached)
        for record in records:
            name = (record.key or b"").decode(errors="replace")
            reached[record.partition] = max(record.offset + 1, reached.get(record.partition, 0))
            if record.value is None:  # compacted away: the shop took its erasure back
                self._latest.pop(name, None)
                continue
            try:
                at = parse_event(record.value, UserErased).erased_at.timestamp()
            except InvalidEvent as error:
                log.error(
                    "erasure_unreadable topic=%s partition=%d offset=%d reason=%s",
                    record.topic,
                    record.partition,
                    record.offset,
                    error,
                )
                continue
            self._latest[name] = max(at, self._latest.get(name, at))
        if reached != self._reached:
            self._reached = reached

    def covers(self, user_id: str, *seconds: float) -> bool:
        """Whether this shopper's event is to be ignored: one of its times is not later than the erasure."""
        if not self._latest:
            return False
        return self.covers_name(erasure_key(user_id, self._key), *seconds)

    def covers_name(self, name: str, *seconds: float) -> bool:
        """As `covers`, for a shopper by the name that `erasure_key` gives."""
        at = self._latest.get(name)
        return at is not None and min(seconds) <= at

    @property
    def reached(self) -> Reached:
        """How far the topic is known here. Another object when that grows; none is ever changed."""
        return self._reached

    def acknowledge(self, reached: Reached) -> None:
        """Events that were read before those erasures were known are done, or dropped for good."""
        self._acknowledged = reached

    def follow(
        self, poll: Poll, *, release: Callable[[], None] = lambda: None, report: Report | None = None
    ) -> None:
        """Go on learning on a thread of its own, until `close`; `release` is then called there, once.

        `report` is told what has been acknowledged, at once and then again and again. It may raise Transient.
        Anything else ends it as `fatal`, and nothing is released: what is in hand may not be done, so
        `forget` waits until this process has been silent for long.
        """

        def run() -> None:
            told: Reached | None = None
            next_report = 0.0
            try:
                while not self._stop.is_set():
                    try:
                        self.take(poll(0.5))
                        acknowledged, now = self._acknowledged, time.monotonic()
                        if report is not None and (acknowledged != told or now >= next_report):
                            report(acknowledged)
                            told, next_report = acknowledged, now + _REPORT_SECONDS
                    except Transient as error:
                        log.warning("consumer_waits consumer=%s reason=%s", "erasures", error)
                        self._stop.wait(1.0)
                release()
            except BaseException as error:  # noqa: BLE001  handed to the handler's loop, which raises it
                log.error("erasures_not_followed reason=%r", error)
                self.fatal = error

        self._follower = threading.Thread(target=run, name="erasures", daemon=True)
        self._follower.start()

    def close(self) -> None:
        """Stop following, and let go of the topic."""
        self._stop.set()
        if self._follower is not None:
            self._follower.join(5.0)
