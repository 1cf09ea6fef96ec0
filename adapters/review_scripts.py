"""How an item's reviews lie in Redis, and the Lua that moves them; adapters/redis_reviews.py calls it.

Five keys, all under the item's hash tag:

reviews          hash: review id -> its newest event, packed (`ENTRY`); every review ever heard of
reviews:texts    hash: review id -> title and text, compressed; of the most useful live ones only
reviews:kept     sorted set: the same review ids by the rank of that text
reviews:slots    sorted set: the best rank that any event of a review ever had, of the best max_texts + 1
reviews:summary  hash: count, sum and histogram of live ratings, digest, and which texts it was made from

Which texts stay is a function of the set of events, not of their order: those that rank above the floor, the
best rank of the review in place `max_texts` + 1 by best rank. The floor only ever rises, so a text that fell
below it is never wanted again; at most `max_texts` reviews have a best rank above it, so no more texts stay.
A review that was removed, or that lost votes, keeps its place in that order: a top-k of current ranks would
want texts back that were dropped meanwhile.

Numbers that end as zero are deleted, so that equal reviews lie there byte for byte the same.
"""

from __future__ import annotations

#: Order (revision, record time, hash of the body), time, votes, rating in millionths, live, shopper's hash.
ENTRY = ">ddIIddIB8s"
NO_RATING = 0xFFFFFFFF
#: In front of a compressed text: time and votes.
TEXT_HEAD = ">dd"

# What scripts on the five keys share, in the order of the list above.
_FIGURES = """
local ledger, texts, kept, slots, summary = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local ENTRY, NO_RATING = '>ddI4I4ddI4B', 4294967295
local mark = tonumber(redis.call('HGET', summary, 'mark') or '0')

local function unpacked(packed)
  local rev, ts, high, low, _, _, rating, live = struct.unpack(ENTRY, packed)
  return {order = {rev, ts, high, low}, rating = rating, live = live == 1}
end

local function add(field, by)
  if redis.call('HINCRBY', summary, field, by) == 0 then redis.call('HDEL', summary, field) end
end

local function count(review, by)
  if review.live and review.rating ~= NO_RATING then
    add('count', by)
    add('sum', by * review.rating + 0)  -- never -0, which is no integer
    add('stars' .. math.floor(review.rating / 1000000 + 0.5), by)
  end
end

-- The mark names the set of texts: the sum of 48 bits of each one's hash, modulo 2^48.
local function marked(review, by)
  local hash = (review.order[3] % 65536) * 4294967296 + review.order[4]
  mark = (mark + by * hash) % 281474976710656
end

local function drop(other, review)
  if redis.call('HDEL', texts, other) == 1 then
    redis.call('ZREM', kept, other)
    marked(review, -1)
  end
end

local function closed()
  if mark == 0 then redis.call('HDEL', summary, 'mark')
  else redis.call('HSET', summary, 'mark', string.format('%.0f', mark)) end
  local digested = tonumber(redis.call('HGET', summary, 'digested') or '0')
  return digested == mark and 0 or 1
end
"""

# KEYS: reviews, texts, kept, slots, summary. ARGV: 1 review id, 2 entry, 3 packed text ('' for none), 4 rank
# ('' without text), 5 max_texts.
# Answers {status, 1 if the digest was made from other texts}. An older event is "equal" if it gave the review
# its best rank: it may have moved the floor.
APPLY = (
    _FIGURES
    + """
local id, entry, text, rank, room = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local new, status = unpacked(entry), 'newer'
local stood = redis.call('HGET', ledger, id)
if stood then
  local old = unpacked(stood)
  status = 'equal'
  for place = 1, 4 do
    if new.order[place] ~= old.order[place] then
      status = new.order[place] > old.order[place] and 'newer' or 'older'
      break
    end
  end
  if status == 'newer' then
    count(old, -1)
    drop(id, old)
  end
end

if rank ~= '' then
  redis.call('ZADD', slots, 'GT', rank, id)
  redis.call('ZREMRANGEBYRANK', slots, 0, -room - 2)
  local best = redis.call('ZSCORE', slots, id)
  if status == 'older' and best and tonumber(best) == tonumber(rank) then status = 'equal' end
end

if status == 'newer' then
  redis.call('HSET', ledger, id, entry)
  count(new, 1)
  if text ~= '' then
    redis.call('HSET', texts, id, text)
    redis.call('ZADD', kept, rank, id)
    marked(new, 1)
  end
end

local floor = redis.call('ZREVRANGE', slots, room, room, 'WITHSCORES')[2]
if floor then
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', kept, '-inf', floor)) do
    drop(other, unpacked(redis.call('HGET', ledger, other)))
  end
end

return {status, closed()}
"""
)

# KEYS: reviews. ARGV as of FORGET. Answers 1 where that would take something back.
WROTE = """
local ENTRY = '>ddI4I4ddI4B'
for _, entry in ipairs(redis.call('HVALS', KEYS[1])) do
  if string.sub(entry, -8) == ARGV[1] then
    local _, ts, _, _, at = struct.unpack(ENTRY, entry)
    if math.min(ts, at / 1000) <= tonumber(ARGV[2]) then return 1 end
  end
end
return 0
"""

# KEYS as APPLY. ARGV: 1 a shopper's hash, 2 milliseconds since 1970. Takes back every review that the shopper
# wrote, or that was recorded, up to then: what stays is that there was one, as a replay that ignores it would
# leave it. Answers {how many were theirs, 1 if the digest was made from other texts}.
FORGET = (
    _FIGURES
    + """
local found = 0
local all = redis.call('HGETALL', ledger)
for place = 1, #all, 2 do
  local id, entry = all[place], all[place + 1]
  if string.sub(entry, -8) == ARGV[1] then
    local rev, ts, high, low, at = struct.unpack(ENTRY, entry)
    if math.min(ts, at / 1000) <= tonumber(ARGV[2]) then
      local old = unpacked(entry)
      count(old, -1)
      drop(id, old)
      redis.call('ZREM', slots, id)
      local anonymous = struct.pack(ENTRY, rev, ts, high, low, at, 0, NO_RATING, 0) .. string.rep('\\0', 8)
      redis.call('HSET', ledger, id, anonymous)
      found = found + 1
    end
  end
end
return {found, closed()}
"""
)

# KEYS: texts, summary. Answers {mark, texts}.
TEXTS = """
return {redis.call('HGET', KEYS[2], 'mark') or '0', redis.call('HGETALL', KEYS[1])}
"""

# KEYS: summary. ARGV: 1 mark of the texts that were read, 2 digest.
# Answers 0 if other texts stand there by now (nothing is written), 1 if the digest stays, 2 if it moved.
SETTLE = """
local mark = redis.call('HGET', KEYS[1], 'mark') or '0'
if mark ~= ARGV[1] then return 0 end
local old = redis.call('HGET', KEYS[1], 'digest') or ''
if mark == '0' then redis.call('HDEL', KEYS[1], 'digest', 'digested')
else redis.call('HSET', KEYS[1], 'digest', ARGV[2], 'digested', mark) end
return old == ARGV[2] and 1 or 2
"""
