"""An item's reviews in Redis: a ledger of all, the texts of the most useful ones, figures and digest.

Reads, writes  `{namespace}item:{id}:reviews` and its parts (adapters/review_scripts.py says which)
Never          keeps a shopper's id: only its keyed hash, by which an erasure can find what is theirs

The order of two events of one review is (revision, record timestamp, hash of the body): what is left to tell
apart is the same event twice. Whatever the order of arrival, the end state is the same.

The digest is made outside, from texts that were read together with their mark, and stored only while that
mark still stands: who was slower reads again. After a crash in between, the event comes again and is answered
with a stale digest.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import redis
from redis.exceptions import NoScriptError

from adapters.redis_client import Client, Outcome, item_key
from adapters.redis_nodes import RedisNodes
from adapters.redis_walk import item_ids
from adapters.review_scripts import APPLY, ENTRY, FORGET, NO_RATING, SETTLE, TEXT_HEAD, TEXTS, WROTE
from adapters.state_generation import FIRST, state_prefix
from schemas.items import Rating, ReviewState

_MILLIONTHS = 1_000_000
_NOBODY = bytes(8)
#: A product's figures and digest, for whoever reads them together with other state: the key's last part, and
#: the fields that `review_state` takes.
SUMMARY = "reviews:summary"
SUMMARY_FIELDS = ("digest", "count", "sum", *(f"stars{stars}" for stars in range(6)))


@dataclass(frozen=True, slots=True)
class ReviewWrite:
    """One review event ready to be applied. `live` is False for a removal, which says nothing else.

    `at` is in microseconds since 1970. `rank` orders texts by usefulness, below 2^53; of no matter without
    `text`. `shopper` is the 64-bit hash of who wrote it, None where nobody is named.
    """

    product_id: str
    review_id: str
    revision: int
    timestamp_ms: int
    body_hash: bytes
    at: int
    live: bool = True
    rating: float | None = None
    votes: int = 0
    text: str = ""
    rank: int = 0
    shopper: bytes | None = None


@dataclass(frozen=True, slots=True)
class ReviewApplied:
    """The answer to one write; `stale` says that the product's digest was made from other texts."""

    outcome: Outcome
    stale: bool


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """What the ledger says of one review."""

    revision: int
    at: int
    live: bool
    rating: float | None
    votes: int
    shopper: bytes | None


@dataclass(frozen=True, slots=True)
class KeptText:
    """The text of one live review, unpacked when asked for. Implements consumers.review_digest.ReviewText."""

    review_id: str
    at: int
    votes: int
    packed: bytes

    @property
    def text(self) -> str:
        """Title and text."""
        return zlib.decompress(self.packed).decode()


@dataclass(frozen=True, slots=True)
class KeptTexts:
    """The texts of one product, and the mark that names this set of them."""

    mark: str
    reviews: tuple[KeptText, ...]


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest, and the mark of the texts it was made from."""

    product_id: str
    mark: str
    text: str


class _Call(NamedTuple):
    """One call of a script."""

    keys: list[str]
    arguments: list[str | bytes]


class ReviewStore:
    """Reads and writes reviews, `max_texts` texts of each item. Thread-safe, as redis-py's clients are."""

    def __init__(
        self, *, client: Client, namespace: str = "", generation: int = FIRST, max_texts: int = 100
    ) -> None:
        self._nodes = RedisNodes(client)
        self._namespace = state_prefix(namespace, generation)
        self._max_texts = max_texts

    def key(self, product_id: str, part: str = "") -> str:
        """A key of the product's reviews: the ledger, or one of its parts."""
        return item_key(self._namespace, product_id, f"reviews:{part}" if part else "reviews")

    def apply(self, writes: Sequence[ReviewWrite]) -> list[ReviewApplied]:
        """Apply each write if it is newer than what stands there, in the order given, in one round trip.

        Safe to repeat. Raises Transient when Redis is away; some of the writes may then have been applied.
        """
        calls = [
            _Call(
                [self.key(write.product_id, part) for part in ("", "texts", "kept", "slots", "summary")],
                [
                    write.review_id,
                    _entry(write),
                    _packed(write) if write.text else "",
                    str(write.rank) if write.text else "",
                    str(self._max_texts),
                ],
            )
            for write in writes
        ]
        answers = self._called(APPLY, calls, "writing reviews")
        return [ReviewApplied(Outcome(status.decode()), bool(stale)) for status, stale in answers]

    def wrote(self, shopper: bytes, product_ids: Sequence[str], *, until_ms: int) -> list[str]:
        """Those of these products that `forget` would take something back of. Raises Transient."""
        calls = [_Call([self.key(one)], [shopper, str(until_ms)]) for one in product_ids]
        answers = self._called(WROTE, calls, "looking for a shopper's reviews")
        return [one for one, theirs in zip(product_ids, answers, strict=True) if theirs]

    def forget(self, shopper: bytes, product_ids: Sequence[str], *, until_ms: int) -> list[tuple[int, bool]]:
        """Take back what a shopper wrote about these products up to then.

        Per product how many reviews were theirs, and whether its digest was made from other texts than are
        left. Safe to repeat. Raises Transient when Redis is away.
        """
        calls = [
            _Call(
                [self.key(one, part) for part in ("", "texts", "kept", "slots", "summary")],
                [shopper, str(until_ms)],
            )
            for one in product_ids
        ]
        return [
            (int(found), bool(stale)) for found, stale in self._called(FORGET, calls, "taking reviews back")
        ]

    def scan_ids(self, *, batch: int = 1_000) -> Iterator[list[str]]:
        """Ids of all products with reviews, in pages; an id may come twice."""
        yield from item_ids(self._nodes, self._namespace, "reviews", batch=batch)

    def texts(self, product_ids: Sequence[str]) -> dict[str, KeptTexts]:
        """The texts of each product, read together with their mark. Raises Transient when Redis is away."""
        calls = [_Call([self.key(one, "texts"), self.key(one, "summary")], []) for one in product_ids]
        rows = self._called(TEXTS, calls, "reading reviews")
        return {
            product_id: KeptTexts(mark.decode(), tuple(map(_kept, pairs[::2], pairs[1::2])))
            for product_id, (mark, pairs) in zip(product_ids, rows, strict=True)
        }

    def marks(self, product_ids: Sequence[str]) -> list[str]:
        """The mark of each product's texts, "0" where it has none. Raises Transient when Redis is away."""
        keys = [self.key(one, "summary") for one in product_ids]
        answers = ["0"] * len(keys)
        with self._nodes.calling("reading marks of reviews"):
            for node, positions in self._nodes.by_node(keys):
                pipe = node.pipeline(transaction=False)
                for position in positions:
                    pipe.hget(keys[position], "mark")
                for position, mark in zip(positions, pipe.execute(), strict=True):
                    answers[position] = "0" if mark is None else mark.decode()
        return answers

    def settle(self, digests: Sequence[Digest]) -> list[bool | None]:
        """Store each digest while the texts it was made from stand: whether it moved, None where they do not.

        Raises Transient when Redis is away.
        """
        calls = [_Call([self.key(one.product_id, "summary")], [one.mark, one.text]) for one in digests]
        answers = self._called(SETTLE, calls, "writing digests")
        return [None if answer == 0 else answer == 2 for answer in answers]

    def _called(self, script: str, calls: Sequence[_Call], what: str) -> list[Any]:
        """The script's answers, in the order of the calls; one pipeline for each node."""
        answers: list[Any] = [None] * len(calls)
        with self._nodes.calling(what):
            for node, positions in self._nodes.by_node([call.keys[0] for call in calls]):
                rows = _pipelined(node, script, [calls[position] for position in positions])
                for position, row in zip(positions, rows, strict=True):
                    answers[position] = row
        return answers

    def ledger(self, product_id: str) -> dict[str, LedgerEntry]:
        """Every review of a product, removed ones included. Raises Transient when Redis is away."""
        key = self.key(product_id)
        with self._nodes.calling("reading the ledger of reviews"):
            found = cast("Mapping[bytes, bytes]", self._nodes.of(key).hgetall(key))
        return {review_id.decode(): _unpacked(entry) for review_id, entry in sorted(found.items())}

    def run_id(self) -> str:
        """Names this incarnation of Redis; a new one may have lost its last seconds."""
        return self._nodes.run_id()


def _pipelined(node: redis.Redis, script: str, calls: Sequence[_Call]) -> list[Any]:
    """The answers of one node. A script that it does not know, or has forgotten, is loaded first."""
    try:
        return _evaluated(node, script, calls)
    except NoScriptError:
        node.script_load(script)
        return _evaluated(node, script, calls)


def _evaluated(node: redis.Redis, script: str, calls: Sequence[_Call]) -> list[Any]:
    sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()  # what Redis calls it
    pipe = node.pipeline(transaction=False)
    for call in calls:
        pipe.evalsha(sha, len(call.keys), *call.keys, *cast("list[str]", call.arguments))
    return list(pipe.execute())


def review_state(row: Sequence[bytes | None]) -> ReviewState | None:
    """The values of SUMMARY_FIELDS as state; None where no review says anything."""
    digest, count, total, *stars = row
    if digest is None and count is None:
        return None
    rating = None
    if count is not None:
        mean = int(total or 0) / int(count) / _MILLIONTHS
        rating = Rating(mean, int(count), tuple(int(number or 0) for number in stars))
    return ReviewState((digest or b"").decode(), rating)


def _entry(write: ReviewWrite) -> bytes:
    high, low = struct.unpack(">II", write.body_hash)
    rating = NO_RATING if write.rating is None else round(write.rating * _MILLIONTHS)
    return struct.pack(
        ENTRY,
        write.revision,
        write.timestamp_ms,
        high,
        low,
        write.at,
        write.votes,
        rating,
        write.live,
        write.shopper or _NOBODY,
    )


def _unpacked(entry: bytes) -> LedgerEntry:
    revision, _, _, _, at, votes, rating, live, shopper = struct.unpack(ENTRY, entry)
    return LedgerEntry(
        revision=int(revision),
        at=int(at),
        live=bool(live),
        rating=None if rating == NO_RATING else rating / _MILLIONTHS,
        votes=int(votes),
        shopper=None if shopper == _NOBODY else shopper,
    )


def _packed(write: ReviewWrite) -> bytes:
    return struct.pack(TEXT_HEAD, write.at, write.votes) + zlib.compress(write.text.encode(), 9)


def _kept(review_id: bytes, value: bytes) -> KeptText:
    size = struct.calcsize(TEXT_HEAD)
    at, votes = struct.unpack(TEXT_HEAD, value[:size])
    return KeptText(review_id.decode(), int(at), int(votes), value[size:])
