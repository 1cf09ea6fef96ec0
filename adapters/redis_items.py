"""Item state in Redis: one hash per item, written by one Lua call that only ever moves forward.

Reads, writes  `{namespace}item:{id}:product` (the product document) and `{namespace}ticket` (write tickets)
Never          decides what a change means: it answers whether a write was newer, equal or older

The order of two writes is (revision, record timestamp, hash of the body, log position): a total order, so the
end state is the same whatever the order of arrival. Null tombstones carry no revision; they hide the current
document if they stand later in the log: by offset within one partition of one topic, by record timestamp
otherwise. The latest tombstone of each partition is kept, so that they too commute with everything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

import redis
from pydantic import ValidationError
from redis.exceptions import NoScriptError

from adapters.behaviour_scripts import HEADER_BYTES
from adapters.behaviour_state import header_of
from adapters.redis_client import Client, Outcome, item_key
from adapters.redis_nodes import RedisNodes
from adapters.redis_opinions import TERMS, opinions_key
from adapters.redis_reviews import SUMMARY, SUMMARY_FIELDS, review_state
from adapters.redis_walk import item_ids
from adapters.state_generation import FIRST, state_prefix
from schemas.events import ProductUpserted
from schemas.items import BehaviourState, ItemState
from schemas.parsing import explain

# KEYS: item. ARGV: 1 kind (event|tombstone), 2 revision, 3 record ms, 4 body hash, 5 topic id, 6 partition,
# 7 offset, 8 document ('' when deleted), 9 occurred_at, 10 hash of the text fields.
# Answers {status, 1 if the text fields moved}. Numbers are compared as numbers, stored as the strings given.
_APPLY = """
local key = KEYS[1]
local old = redis.call('HMGET', key, 'rev', 'ts', 'hash', 'topic', 'part', 'off', 'text', 'live')
local topic, part, off, ts = ARGV[5], ARGV[6], ARGV[7], ARGV[3]

local function hidden(topic, part, off, ts)
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local t, p = string.match(all[i], '^t:(.*):(%d+)$')
    if t then
      local toff, tts = string.match(all[i + 1], '^(%d+):(%-?%d+)$')
      if t == topic and p == part then
        if tonumber(toff) > tonumber(off) then return true end
      elseif tonumber(tts) > tonumber(ts) then return true end
    end
  end
  return false
end

if ARGV[1] == 'tombstone' then
  local field = 't:' .. topic .. ':' .. part
  local seen = redis.call('HGET', key, field)
  local max_off, max_ts = off, ts
  if seen then
    local soff, sts = string.match(seen, '^(%d+):(%-?%d+)$')
    if tonumber(soff) > tonumber(off) then max_off = soff end
    if tonumber(sts) > tonumber(ts) then max_ts = sts end
  end
  redis.call('HSET', key, field, max_off .. ':' .. max_ts)
  if not old[1] then
    redis.call('HSET', key, 'live', '0')
    return {seen and 'equal' or 'newer', 0}
  end
  if hidden(old[4], old[5], old[6], old[2]) then
    local was_live = old[8] == '1'
    redis.call('HSET', key, 'live', '0')
    redis.call('HDEL', key, 'doc', 'text')
    return {was_live and 'newer' or 'equal', was_live and 1 or 0}
  end
  return {'older', 0}
end

local order = 1
if old[1] then
  local function compare(a, b) if a < b then return -1 elseif a > b then return 1 end return 0 end
  order = compare(tonumber(ARGV[2]), tonumber(old[1]))
  if order == 0 then order = compare(tonumber(ts), tonumber(old[2])) end
  if order == 0 then order = compare(ARGV[4], old[3]) end
  if order == 0 then order = compare(topic, old[4]) end
  if order == 0 then order = compare(tonumber(part), tonumber(old[5])) end
  if order == 0 then order = compare(tonumber(off), tonumber(old[6])) end
end
if order < 0 then return {'older', 0} end
if order == 0 then return {'equal', 0} end
redis.call('HSET', key, 'rev', ARGV[2], 'ts', ts, 'hash', ARGV[4], 'topic', topic, 'part', part, 'off', off,
  'at', ARGV[9])
if ARGV[8] ~= '' and not hidden(topic, part, off, ts) then
  redis.call('HSET', key, 'live', '1', 'doc', ARGV[8], 'text', ARGV[10])
  return {'newer', (old[7] == ARGV[10] and old[8] == '1') and 0 or 1}
end
redis.call('HSET', key, 'live', '0')
redis.call('HDEL', key, 'doc', 'text')
return {'newer', old[8] == '1' and 1 or 0}
"""

# KEYS: ticket counter. ARGV: 1 floor. Answers max(counter + 1, floor + 1, clock in microseconds) as a string.
# Nobody draws a million a second, so the counter never runs ahead of the clock: tickets grow also when Redis
# loses the counter. Until the year 2255 they stay below 2^53: exact as doubles, here and in the index.
_TICKET = """
local now = redis.call('TIME')
local ticket = math.max(tonumber(redis.call('GET', KEYS[1]) or '0') + 1,
                        tonumber(now[1]) * 1000000 + tonumber(now[2]),
                        tonumber(ARGV[1]) + 1)
local text = string.format('%.0f', ticket)
redis.call('SET', KEYS[1], text)
return text
"""


@dataclass(frozen=True, slots=True)
class LogPosition:
    """Where a record stands in the log, and the broker's or producer's time for it in milliseconds."""

    topic_id: str
    partition: int
    offset: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class ProductWrite:
    """One product event ready to be applied. `document` is None for a deletion.

    `revision` is None exactly for a null tombstone.
    """

    product_id: str
    position: LogPosition
    revision: int | None
    body_hash: str = ""
    document: bytes | None = None
    occurred_at: str = ""
    text_hash: str = ""


@dataclass(frozen=True, slots=True)
class Applied:
    """The answer to one write, and whether the fields that make text moved with it."""

    outcome: Outcome
    text_changed: bool


class ItemStore:
    """Reads and writes item state. Thread-safe, as redis-py's clients are.

    `generation` says which state of several (adapters/state_generation.py).
    `behaviour_mark` names how sketches become vectors: part of the fingerprint of an item's behaviour.
    With `opinions`, what reviewers come to is part of a state; else nobody listens, and it is not asked for.
    """

    def __init__(
        self,
        *,
        client: Client,
        namespace: str = "",
        generation: int = FIRST,
        behaviour_mark: str = "",
        opinions: bool = False,
    ) -> None:
        self._nodes = RedisNodes(client)
        #: Which state of several this is.
        self.generation = generation
        self._namespace = state_prefix(namespace, generation)
        #: What is heard of reviews belongs to no generation.
        self._heard_namespace = namespace
        self._behaviour_mark = behaviour_mark
        self._opinions = opinions
        # One for all generations: whoever holds a later ticket has read later, whichever of them.
        self._ticket_key = f"{namespace}ticket"
        self._apply_sha: str | None = None
        self._ticket_sha: str | None = None

    def key(self, product_id: str) -> str:
        """The key of an item's product document; `{id}` is its hash tag on Redis Cluster."""
        return self._key(product_id, "product")

    def _key(self, product_id: str, what: str) -> str:
        return item_key(self._namespace, product_id, what)

    def apply(self, writes: Sequence[ProductWrite]) -> list[Applied]:
        """Apply each write if it is newer than what stands there, in one round trip, in the order given.

        Safe to repeat. Raises Transient when Redis is away; some of the writes may then have been applied.
        """
        answers: list[Any] = [None] * len(writes)
        with self._nodes.calling("writing item state"):
            for node, positions in self._nodes.by_node([self.key(write.product_id) for write in writes]):
                batch = [writes[position] for position in positions]
                for position, answer in zip(positions, self._applied(node, batch), strict=True):
                    answers[position] = answer
        return [
            Applied(outcome=Outcome(status.decode()), text_changed=bool(text)) for status, text in answers
        ]

    def _applied(self, node: redis.Redis, writes: Sequence[ProductWrite]) -> list[Any]:
        if self._apply_sha is None:
            self._apply_sha = str(node.script_load(_APPLY))
        try:
            return self._apply_batch(node, writes)
        except NoScriptError:  # a node that has not seen it, or was restarted
            node.script_load(_APPLY)
            return self._apply_batch(node, writes)

    def _apply_batch(self, node: redis.Redis, writes: Sequence[ProductWrite]) -> list[Any]:
        pipe = node.pipeline(transaction=False)
        for write in writes:
            position = write.position
            kind: Literal["event", "tombstone"] = "tombstone" if write.revision is None else "event"
            pipe.evalsha(
                str(self._apply_sha),
                1,
                self.key(write.product_id),
                kind,
                str(write.revision if write.revision is not None else 0),
                str(position.timestamp_ms),
                write.body_hash,
                position.topic_id,
                str(position.partition),
                str(position.offset),
                cast(str, write.document if write.document is not None else b""),
                write.occurred_at,
                write.text_hash,
            )
        return list(pipe.execute())

    def read(self, product_ids: Sequence[str]) -> dict[str, ItemState]:
        """The state of each known item, deleted ones included; unknown ids are left out.

        Raises Transient when Redis is away, ValueError naming the product whose document cannot be read.
        """
        states = {}
        with self._nodes.calling("reading item state"):
            for node, positions in self._nodes.by_node([self.key(one) for one in product_ids]):
                pipe = node.pipeline(transaction=False)
                for position in positions:
                    pipe.hmget(self.key(product_ids[position]), ["live", "rev", "at", "doc"])
                    pipe.hmget(self._key(product_ids[position], SUMMARY), SUMMARY_FIELDS)
                    pipe.getrange(self._key(product_ids[position], "behaviour"), 0, HEADER_BYTES - 1)
                    if self._opinions:
                        pipe.hget(opinions_key(self._heard_namespace, product_ids[position]), TERMS)
                rows = iter(pipe.execute())
                for position in positions:
                    product, reviews, behaviour = next(rows), next(rows), next(rows)
                    terms = next(rows) if self._opinions else None
                    state = self._state(product_ids[position], product, reviews, behaviour, terms)
                    if state is not None:
                        states[state.product_id] = state
        return states

    def _state(
        self,
        product_id: str,
        row: Sequence[bytes | None],
        reviews: Sequence[bytes | None],
        behaviour: bytes,
        terms: bytes | None,
    ) -> ItemState | None:
        live, revision, occurred_at, document = row
        if live is None:
            return None
        header = header_of(behaviour)
        return ItemState(
            product_id=product_id,
            revision=int(revision) if revision is not None else 0,
            occurred_at=datetime.fromisoformat(occurred_at.decode())
            if occurred_at
            else datetime.fromtimestamp(0, tz=UTC),
            product=_product(product_id, document) if live == b"1" and document else None,
            reviews=review_state(reviews),
            behaviour=BehaviourState(f"{header.mark}.{self._behaviour_mark}", header.shoppers)
            if header is not None and header.members
            else None,
            opinions=tuple(terms.decode().splitlines()) if terms else (),
        )

    def scan_ids(self, *, batch: int = 1000) -> Iterator[list[str]]:
        """Ids of all items with state, deleted ones included, in pages; an id may come twice."""
        yield from item_ids(self._nodes, self._namespace, "product", batch=batch)

    def draw_ticket(self, *, floor: int = 0) -> int:
        """The next write ticket: larger than any drawn before and than `floor`; at least the clock's µs."""
        with self._nodes.calling("drawing a ticket"):
            node = self._nodes.of(self._ticket_key)
            try:
                answer = self._draw(node, floor)
            except NoScriptError:
                self._ticket_sha = None
                answer = self._draw(node, floor)
        return int(answer)

    def _draw(self, node: redis.Redis, floor: int) -> Any:
        if self._ticket_sha is None:
            self._ticket_sha = str(node.script_load(_TICKET))
        return node.evalsha(self._ticket_sha, 1, self._ticket_key, str(floor))

    def run_id(self) -> str:
        """Names this incarnation of the Redis process; a new one may have lost its last seconds."""
        return self._nodes.run_id()

    def ping(self) -> None:
        """Raises Transient when Redis is away."""
        self._nodes.ping()


def _product(product_id: str, document: bytes) -> ProductUpserted:
    try:
        return ProductUpserted.model_validate_json(document)
    except ValidationError as error:
        raise ValueError(
            f"the stored document of product {product_id!r} cannot be read by this version "
            f"({explain(error)}): publish the product again"
        ) from None
