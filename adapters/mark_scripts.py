"""The Lua of marks: items whose vector is to be written. See adapters/redis_scripts.py for the contract."""

from __future__ import annotations

# KEYS per set of marks: due, announcing. ARGV[1]: [now, abandoned before (ms), limit, [[], ...]]. Moves what
# is due, and takes again what was taken and not finished; answers the items of each set.
TAKE_DUE = """
local ask = cmsgpack.unpack(ARGV[1])
local now, abandoned, limit = string.format('%.0f', ask[1]), string.format('%.0f', ask[2]), ask[3]
local answers = {}
for n = 1, #KEYS / 2 do
  local due, taken = KEYS[2 * n - 1], KEYS[2 * n]
  local items = redis.call('ZRANGEBYSCORE', taken, '-inf', abandoned, 'LIMIT', 0, limit)
  for _, item in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, limit - #items)) do
    redis.call('ZREM', due, item)
    items[#items + 1] = item
  end
  for _, item in ipairs(items) do redis.call('ZADD', taken, now, item) end
  answers[n] = items
end
return cmsgpack.pack(answers)
"""

# KEYS per set of marks: announcing. ARGV[1]: [when they were taken (ms), [[item, ...], ...]]. Removes items
# that nobody has taken since: a later taker answers for a later change. Answers how many.
UNMARK = """
local ask = cmsgpack.unpack(ARGV[1])
local answers = {}
for n, items in ipairs(ask[2]) do
  local removed = 0
  for _, item in ipairs(items) do
    if tonumber(redis.call('ZSCORE', KEYS[n], item)) == ask[1] then
      removed = removed + redis.call('ZREM', KEYS[n], item)
    end
  end
  answers[n] = removed
end
return cmsgpack.pack(answers)
"""
