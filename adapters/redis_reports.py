"""What people reported, and what was decided: one hash, an entry for each pair of items and reason.

Reads, writes  `{namespace}reports`: report id to its entry as JSON; beside it, in the same slot of a cluster,
               the order in which entries may go, made anew where it is not as long as the hash
Never          decides; lets more than `most` wait: a full queue takes no new pair until some are decided;
               removes what waits or was approved: beyond twice `most` in all the oldest rejected make room

It lives in Redis alone, as the records of rollouts do: no event says what a person has decided.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import cast

import orjson

from adapters.redis_nodes import RedisNodes
from schemas.reports import MOST_REPORTERS, Report, ReportRequest, ReportStatus

# The score of an entry in the order: -1 approved, 0 pending, for a rejected one the digits of when.
_PLACE = """
local function place(entry)
  if entry.status ~= 'rejected' then return entry.status == 'approved' and -1 or 0 end
  return tonumber((string.gsub(string.sub(entry.decided_at, 1, 19), '%D', '')))
end
"""
# KEYS: the hash, the order. ARGV: id, the entry if it is new, reporter or '', now, most that wait, most
# reporters. Answers the entry, or nothing where a new one has no room. What was decided stays decided.
_ADD = (
    _PLACE
    + """
local standing = redis.call('HGET', KEYS[1], ARGV[1])
if not standing then
  local held, most = redis.call('HLEN', KEYS[1]), tonumber(ARGV[5])
  if redis.call('ZCARD', KEYS[2]) ~= held then
    redis.call('DEL', KEYS[2])
    local all = redis.call('HGETALL', KEYS[1])
    for at = 1, #all, 2 do redis.call('ZADD', KEYS[2], place(cjson.decode(all[at + 1])), all[at]) end
  end
  if redis.call('ZCOUNT', KEYS[2], 0, 0) >= most then return false end
  local surplus = held + 1 - 2 * most
  if surplus > 0 then
    for _, oldest in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(0', '+inf', 'LIMIT', 0, surplus)) do
      redis.call('HDEL', KEYS[1], oldest)
      redis.call('ZREM', KEYS[2], oldest)
    end
  end
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('ZADD', KEYS[2], 0, ARGV[1])
  return ARGV[2]
end
local entry = cjson.decode(standing)
entry.reports = entry.reports + 1
entry.last_at = ARGV[4]
if type(entry.reporters) ~= 'table' then entry.reporters = {} end
local known = ARGV[3] == '' or #entry.reporters >= tonumber(ARGV[6])
for _, name in ipairs(entry.reporters) do known = known or name == ARGV[3] end
if not known then entry.reporters[#entry.reporters + 1] = ARGV[3] end
-- An empty list would come back as an object.
if #entry.reporters == 0 then entry.reporters = nil end
local written = cjson.encode(entry)
redis.call('HSET', KEYS[1], ARGV[1], written)
return written
"""
)
# KEYS: the hash, the order. ARGV: id, status, now. Answers the entry, or nothing for an id that is not there.
_DECIDE = (
    _PLACE
    + """
local standing = redis.call('HGET', KEYS[1], ARGV[1])
if not standing then return false end
local entry = cjson.decode(standing)
entry.status, entry.decided_at = ARGV[2], ARGV[3]
if type(entry.reporters) ~= 'table' or #entry.reporters == 0 then entry.reporters = nil end
local written = cjson.encode(entry)
redis.call('HSET', KEYS[1], ARGV[1], written)
redis.call('ZADD', KEYS[2], place(entry), ARGV[1])
return written
"""
)


class ReportStore:
    """Implements schemas.reports.ReportBox, and the review. Thread-safe; raises Transient."""

    def __init__(self, *, nodes: RedisNodes, namespace: str = "", most: int = 10_000) -> None:
        self._nodes = nodes
        self._key = f"{namespace}reports"
        # Its tag is the hash's whole name.
        self._order = f"{namespace}{{{self._key}}}:order"
        self._most = most

    def add(self, request: ReportRequest, *, reporter: str | None, now: datetime) -> Report | None:
        """See the protocol."""
        entry = Report(
            report_id=_id_of(request),
            reporters=() if reporter is None else (reporter,),
            first_at=now,
            last_at=now,
            **request.model_dump(),
        )
        with self._nodes.calling("writing a report"):
            raw = self._nodes.of(self._key).eval(
                _ADD,
                2,
                self._key,
                self._order,
                entry.report_id,
                entry.model_dump_json(exclude_none=True, exclude_defaults=False),
                reporter or "",
                now.isoformat(),
                str(self._most),
                str(MOST_REPORTERS),
            )
        return _read(raw)

    def listed(self, status: ReportStatus | None = None) -> Sequence[Report]:
        """Entries, the most reported first; of one status, or all."""
        with self._nodes.calling("reading reports"):
            found = cast("dict[bytes, bytes]", self._nodes.of(self._key).hgetall(self._key))
        entries = [_with_seed(raw) for raw in found.values()]
        kept = [one for one in entries if status is None or one.status == status]
        return sorted(kept, key=lambda one: (-one.reports, one.first_at, one.report_id))

    def decide(self, report_id: str, status: ReportStatus, *, now: datetime) -> Report | None:
        """Say what is to become of an entry; None for one that is not there. It may be decided anew."""
        with self._nodes.calling("deciding a report"):
            raw = self._nodes.of(self._key).eval(
                _DECIDE, 2, self._key, self._order, report_id, status, now.isoformat()
            )
        return _read(raw)


def _id_of(request: ReportRequest) -> str:
    """The same for the same pair and reason, whoever reports it; the two items in either order."""
    seed = request.seed
    pair = sorted([request.item_id, *([seed] if seed is not None else [])])
    named = "\0".join([request.reason, *pair])
    return hashlib.blake2b(named.encode(), digest_size=8).hexdigest()


def _read(raw: object) -> Report | None:
    return None if raw is None else _with_seed(cast(bytes, raw))


def _with_seed(raw: bytes) -> Report:
    entry = orjson.loads(raw)
    return Report.model_validate({"seed": None, **entry})
