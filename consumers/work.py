"""What the embeddings consumer has in hand: one entry per item, however many hints point at it.

Pure bookkeeping under one lock: two lanes, live before bulk, bulk with a guaranteed share. An entry can wait
in two queues at once: `due` (its state should be compared with its point) and `unencoded` (its text awaits
the encoder), so that a new price never waits for an encode.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from consumers.assembly import Encoded, Wanted
from consumers.progress import Delivery

LIVE, BULK = 0, 1
#: Vectors that an entry keeps until they can be written: of its two texts, and of what these were before.
_KEPT_VECTORS = 4
_UNMOVED: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Hint:
    """One ItemChanged as far as the work needs it, and the lane it came in.

    `weigh` asks to compare the weights of the item's shoppers too, which costs a look at each of them.
    """

    product_id: str
    lane: int
    occurred_at: datetime
    consumed_at: datetime | None
    weigh: bool = False
    #: Where the change stands in its trace, if it has one.
    place: str | None = None


@dataclass(slots=True)
class Entry:
    """One item in hand."""

    product_id: str
    lane: int
    occurred_at: datetime
    consumed_at: datetime | None
    deliveries: list[Delivery[Hint]] = field(default_factory=list)
    wanted: tuple[Wanted, ...] = ()
    #: Vectors that have come, by fingerprint, and what the encoder has in hand.
    encoded: dict[str, Encoded] = field(default_factory=dict)
    encoding: frozenset[str] = frozenset()
    encoded_at: datetime | None = None
    #: We have written the point anew around an old vector. If that undid a later vector of the partition's
    #: next owner (we were paused), nobody else will write it again: the encode is owed, owner or not.
    owes_text: bool = False
    encoder_calls: int = 0
    #: Monotonic seconds at which the oldest hint still open came into hand.
    since: float = field(default_factory=time.monotonic)

    #: Where its traced changes stand since a text was encoded for them, by where their hints stood.
    moved: Mapping[str, str] = field(default_factory=lambda: _UNMOVED)

    @property
    def weigh(self) -> bool:
        """Whether one of its hints asks for the weights of shoppers."""
        return any(delivery.event.weigh for delivery in self.deliveries)

    def hints_traced(self) -> list[str]:
        """Where those of its hints stood in their traces that have one."""
        return [place for delivery in self.deliveries if (place := delivery.event.place) is not None]

    def stands(self, hint: str) -> str:
        """Where the change of a traced hint stands by now."""
        return self.moved.get(hint, hint)


class Worklist:
    """The queues. Every method is thread-safe; `take_*` wait until there is work or the list is closed."""

    def __init__(self, *, bulk_share: float = 0.1) -> None:
        self._bulk_share = bulk_share
        self._entries: dict[str, Entry] = {}
        # Dicts serve as ordered sets: first come, first served, and membership is O(1).
        self._due: tuple[dict[str, None], dict[str, None]] = ({}, {})
        self._unencoded: tuple[dict[str, None], dict[str, None]] = ({}, {})
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        with self._changed:
            return len(self._entries)

    def add(self, deliveries: Sequence[Delivery[Hint]]) -> None:
        """Take hints in; hints for one item share an entry, and one live hint makes the entry live."""
        with self._changed:
            for delivery in deliveries:
                hint = delivery.event
                entry = self._entries.get(hint.product_id)
                if entry is None:
                    entry = Entry(hint.product_id, hint.lane, hint.occurred_at, hint.consumed_at)
                    self._entries[hint.product_id] = entry
                elif hint.lane < entry.lane:
                    self._promote(entry)
                entry.deliveries.append(delivery)
                self._due[entry.lane][hint.product_id] = None
            self._changed.notify_all()

    def _promote(self, entry: Entry) -> None:
        for queues in (self._due, self._unencoded):
            if queues[BULK].pop(entry.product_id, 0) is None:
                queues[LIVE][entry.product_id] = None
        entry.lane = LIVE

    def take_due(self, limit: int, timeout_seconds: float) -> list[tuple[Entry, int]]:
        """Up to `limit` entries to compare, live ones first, with how many of their hints this serves.

        A tenth of the places is kept for bulk entries when some wait. Empty after the timeout.
        """
        with self._changed:
            if not any(self._due) and not self._closed:
                self._changed.wait(timeout_seconds)
            reserved = min(len(self._due[BULK]), max(1, int(limit * self._bulk_share)))
            taken: list[tuple[Entry, int]] = []
            for lane, room in ((LIVE, limit - reserved), (BULK, limit)):
                queue = self._due[lane]
                while queue and len(taken) < room:
                    product_id = next(iter(queue))
                    del queue[product_id]
                    entry = self._entries[product_id]
                    if _nobody_waits(entry):
                        self._forget(entry)  # its partition went elsewhere: the next owner has the hints
                    else:
                        taken.append((entry, len(entry.deliveries)))
            return taken

    def put_back(self, entries: Sequence[Entry]) -> None:
        """The comparison failed for want of a store: they are due again."""
        with self._changed:
            for entry in entries:
                if self._entries.get(entry.product_id) is entry:  # else the encoder found nobody waiting
                    self._due[entry.lane][entry.product_id] = None
            self._changed.notify_all()

    def served(self, entry: Entry, hints: int) -> None:
        """The point equals the state that was read: these hints are done; later ones keep the entry."""
        with self._changed:
            done, entry.deliveries = entry.deliveries[:hints], entry.deliveries[hints:]
            entry.encoded, entry.wanted, entry.owes_text = {}, (), False
            entry.moved = _UNMOVED
            if not entry.deliveries:
                self._forget(entry)
            else:
                # The next freshness is that of the hints still open.
                entry.occurred_at = min(delivery.event.occurred_at for delivery in entry.deliveries)
                entry.consumed_at = entry.deliveries[0].event.consumed_at
                entry.encoder_calls = 0
                entry.since = time.monotonic()  # they came while those were served
        for delivery in done:
            delivery.settle()

    def _forget(self, entry: Entry) -> None:
        if self._entries.get(entry.product_id) is not entry:
            return  # forgotten before; what stands in the queues is of hints that came since
        del self._entries[entry.product_id]
        for lane in (LIVE, BULK):
            self._due[lane].pop(entry.product_id, None)
            self._unencoded[lane].pop(entry.product_id, None)

    def want(self, entry: Entry, wanted: tuple[Wanted, ...], *, rewritten: bool = False) -> None:
        """Its texts must be encoded first. A text already in the encoder is not asked for again.

        `rewritten` says that its point was written just now, with the vector of the old text.
        """
        with self._changed:
            entry.owes_text = entry.owes_text or rewritten
            if self._entries.get(entry.product_id, entry) is not entry:
                return  # forgotten meanwhile; hints that came since have an entry of their own, which is due
            if _nobody_waits(entry):
                self._forget(entry)
                return
            self._entries[entry.product_id] = entry  # forgotten meanwhile, and owed all the same
            entry.wanted = wanted
            if not entry.encoding:
                self._unencoded[entry.lane][entry.product_id] = None
            self._changed.notify_all()

    def take_unencoded(self, lane: int, limit: int, timeout_seconds: float) -> list[tuple[Entry, Wanted]]:
        """Up to `limit` texts of one lane, an item's together, for the encoder. Empty after the timeout."""
        with self._changed:
            if not self._unencoded[lane] and not self._closed:
                self._changed.wait(timeout_seconds)
            taken: list[tuple[Entry, Wanted]] = []
            queue = self._unencoded[lane]
            while queue and len(taken) < limit:
                entry = self._entries[next(iter(queue))]
                del queue[entry.product_id]
                if _nobody_waits(entry):
                    self._forget(entry)
                elif entry.wanted:
                    entry.encoding = frozenset(wanted.fingerprint for wanted in entry.wanted)
                    taken += [(entry, wanted) for wanted in entry.wanted]
            return taken

    def encoded(self, results: Sequence[tuple[Entry, Encoded]], now: datetime) -> None:
        """Vectors have come; their entries are due. A text that changed meanwhile goes round again."""
        with self._changed:
            for entry, result in results:
                entry.encoding = entry.encoding - {result.fingerprint}
                entry.encoder_calls += 1
                entry.encoded[result.fingerprint] = result
                while len(entry.encoded) > _KEPT_VECTORS:  # a text that never stands still
                    del entry.encoded[next(iter(entry.encoded))]
                entry.encoded_at = now
            for entry in {id(entry): entry for entry, _ in results}.values():
                if self._entries.get(entry.product_id) is not entry:
                    continue  # deleted or served meanwhile
                entry.wanted = tuple(one for one in entry.wanted if one.fingerprint not in entry.encoded)
                if entry.wanted:
                    self._unencoded[entry.lane][entry.product_id] = None
                self._due[entry.lane][entry.product_id] = None
            self._changed.notify_all()

    def oldest_seconds(self, lane: int) -> float:
        """How long the change of that lane that has waited longest has been in hand; 0 without one."""
        with self._changed:
            oldest = min((one.since for one in self._entries.values() if one.lane == lane), default=None)
        return 0.0 if oldest is None else time.monotonic() - oldest

    def waiting(self, queue: str, lane: int) -> int:
        """Entries of one lane that are `due`, or `unencoded`."""
        with self._changed:
            return len((self._due if queue == "due" else self._unencoded)[lane])

    def close(self) -> None:
        """Wake whoever waits; `take_*` then answer at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _nobody_waits(entry: Entry) -> bool:
    return not entry.owes_text and all(delivery.abandoned for delivery in entry.deliveries)
