"""The Lua of behaviour: what one batch of events does to shoppers and to items, many of each in one call.

Both scripts take ARGV[1] = MessagePack [settings..., [one entry per unit]] and answer one MessagePack list
with an answer per unit, units in the order given. Redis 6.2, plain Lua. Applying an entry again changes
nothing.
"""

from __future__ import annotations

#: Widths in seconds of the buckets that events are counted in, and how many of each an item keeps.
TIERS = ((3_600, 2), (21_600, 5), (172_800, 16))
#: Registers of the sketch that counts an item's distinct shoppers (4 bits each), and of that of a shopper's
#: distinct items.
ITEM_REGISTERS = 64
SHOPPER_REGISTERS = 32
#: A bucket's newest `ID_WINDOW` event ids below the commit are remembered per shopper and partition.
ID_WINDOW = 256
#: An item's state begins with: version, digest of the sketch, tau, members, moves, shoppers, registers.
HEADER = ">BddHHI32s"
HEADER_BYTES = 1 + 8 + 8 + 2 + 2 + 4 + 32
STATE_VERSION = 1

# Registers of 4 bits, two to a byte, as HyperLogLog's: the largest rank seen, so that applying again, and any
# order, ends the same. `pending` is index -> rank.
_REGISTERS = """
local function merged(packed, pending, bytes_total)
  local changed = false
  if packed == '' then packed = string.rep('\\0', bytes_total) end
  for index, rank in pairs(pending) do
    local i = math.floor(index / 2) + 1
    local byte = string.byte(packed, i)
    local high, low = math.floor(byte / 16), byte % 16
    local raised = byte
    if index % 2 == 0 then
      if rank > high then raised = rank * 16 + low end
    elseif rank > low then raised = high * 16 + rank end
    if raised ~= byte then
      packed = string.sub(packed, 1, i - 1) .. string.char(raised) .. string.sub(packed, i + 1)
      changed = true
    end
  end
  return packed, changed
end
"""

# KEYS per shopper: a hash (id windows, and 'n': registers of distinct items), recent items, bought items.
# ARGV[1]: [recent kept, bought kept, [[field of the id window, committed offset, [id, offset, ...],
#   [score, item, ...] recent, [ms, item, ...] bought, [index * 16 + rank, ...] touched], ...]].
# Answers per shopper a string: '1' for each event that counts, '0' for a duplicate of an earlier one.
#
# An id window is a string of 14-byte entries (8 of the id's hash, 6 of the offset of its first appearance) in
# the order of offsets. An event counts if its own offset is the remembered one, or if it is older than
# everything remembered: then the guard of its item decides.
SHOPPERS = (
    _REGISTERS
    + """
local ask = cmsgpack.unpack(ARGV[1])
local recent_kept, bought_kept = ask[1], ask[2]
local answers = {}

local function entry_offset(blob, n) return struct.unpack('>I6', blob, (n - 1) * 14 + 9) end

local function found(blob, id)
  local from = 1
  while true do
    local at = string.find(blob, id, from, true)
    if not at then return nil end
    if (at - 1) % 14 == 0 then return at end
    from = at + 1
  end
end

-- Where a whole batch is one account's, looking through the string for each event would take a second.
local function all_of(blob)
  local known = {}
  for at = 1, #blob, 14 do known[string.sub(blob, at, at + 7)] = struct.unpack('>I6', blob, at + 8) end
  return known
end

local function inserted(blob, entry, offset)
  local low, high = 0, #blob / 14
  while low < high do
    local middle = math.floor((low + high + 1) / 2)
    if entry_offset(blob, middle) > offset then high = middle - 1 else low = middle end
  end
  return string.sub(blob, 1, low * 14) .. entry .. string.sub(blob, low * 14 + 1)
end

local function keep_newest(key, scored, kept)
  local added = 0
  for i = 1, #scored, 2 do scored[i] = string.format('%.0f', scored[i]) end
  -- Lua passes on some thousands of values at most.
  for from = 1, #scored, 1000 do
    added = added + redis.call('ZADD', key, 'GT', unpack(scored, from, math.min(from + 999, #scored)))
  end
  if added > 0 and redis.call('ZCARD', key) > kept then
    redis.call('ZREMRANGEBYRANK', key, 0, -kept - 1)
  end
end

for n, one in ipairs(ask[3]) do
  local base = (n - 1) * 3
  local field, committed, ids = one[1], one[2], one[3]
  local standing = redis.call('HMGET', KEYS[base + 1], field, 'n')
  local before, touched = standing[1] or '', standing[2] or ''
  local blob, tail, flags = before, {}, {}
  local many = #ids > MANY
  local known = many and all_of(before) or {}
  local oldest = #before > 0 and entry_offset(before, 1) or -1
  local newest = #before > 0 and entry_offset(before, #before / 14) or -1
  for i = 1, #ids, 2 do
    local id, offset = ids[i], ids[i + 1]
    local first = known[id]
    if not first and not many then
      local at = found(before, id)
      first = at and struct.unpack('>I6', before, at + 8)
    end
    flags[#flags + 1] = (first or offset) == offset and '1' or '0'
    if not first and offset >= oldest then
      local entry = id .. struct.pack('>I6', offset)
      known[id] = offset
      if offset > newest then
        tail[#tail + 1], newest = entry, offset
      else
        blob, tail = inserted(blob .. table.concat(tail), entry, offset), {}
      end
    end
  end
  blob = blob .. table.concat(tail)
  local entries, leaving = #blob / 14, 0
  if entries > ID_WINDOW + 64 then
    while leaving + ID_WINDOW < entries and entry_offset(blob, leaving + 1 + ID_WINDOW) < committed do
      leaving = leaving + 1
    end
    blob = string.sub(blob, leaving * 14 + 1)
  end
  local changed = false
  if #one[6] > 0 then
    local pending = {}
    for _, code in ipairs(one[6]) do
      local index, rank = math.floor(code / 16), code % 16
      if rank > (pending[index] or 0) then pending[index] = rank end
    end
    touched, changed = merged(touched, pending, SHOPPER_REGISTERS / 2)
  end
  if changed then
    redis.call('HSET', KEYS[base + 1], field, blob, 'n', touched)
  elseif blob ~= before then
    redis.call('HSET', KEYS[base + 1], field, blob)
  end
  keep_newest(KEYS[base + 2], one[4], recent_kept)
  keep_newest(KEYS[base + 3], one[5], bought_kept)
  answers[n] = table.concat(flags)
end
return cmsgpack.pack(answers)
"""
)

# KEYS per item: state, sketch.
# ARGV[1]: [topic, k, share of members that must move to be enough, [[[partition, offset, second of the
#   event, type + 8 * counts + 16 * interaction, index * 16 + rank, ...], [member, score, ...]], ...]].
# Answers per item [0 nothing moved | 1 something | 2 enough, [tier, bucket, registers, ...] of what changed].
#
# State: header, then MessagePack [newest second, {topic: {partition: guard}}, totals, per tier {number:
# bucket}]. A bucket is a string: 7 counts of 2 bytes (or of 4, once one needs them), registers of shoppers,
# then of buyers, each of 32 bytes or absent; its length says which. Only what an event touches is opened.
# The guard filters counters event by event: what has an offset above it, and only that, is counted, whoever
# else is at work. All else may be applied again, and then counts as moved: whoever applied it first may have
# ended before anything followed from it.
ITEMS = (
    _REGISTERS
    + """
local ask = cmsgpack.unpack(ARGV[1])
local topic, k, share = ask[1], ask[2], ask[3]
local answers = {}
-- HyperLogLog with linear counting below 2.5 m (Flajolet et al. 2007).
local function estimate(packed)
  local m, sum, zeros = ITEM_REGISTERS, 0, 0
  for i = 1, #packed do
    local byte = string.byte(packed, i)
    local high, low = math.floor(byte / 16), byte % 16
    sum = sum + 2 ^ -high + 2 ^ -low
    zeros = zeros + (high == 0 and 1 or 0) + (low == 0 and 1 or 0)
  end
  local raw = 0.709 * m * m / sum
  if raw <= 2.5 * m and zeros > 0 then return m * math.log(m / zeros) end
  return raw
end

local function opened(packed)
  local size = #packed
  local wide = size == 28 or size == 60 or size == 92
  local head = wide and 28 or 14
  local bucket = {struct.unpack(wide and '>I4I4I4I4I4I4I4' or '>I2I2I2I2I2I2I2', packed)}
  bucket[8] = string.sub(packed, head + 1, head + 32)
  bucket[9] = string.sub(packed, head + 33)
  return bucket
end

local function closed(bucket)
  local most = math.max(unpack(bucket, 1, 7))
  local format = most > 65535 and '>I4I4I4I4I4I4I4' or '>I2I2I2I2I2I2I2'
  return struct.pack(format, unpack(bucket, 1, 7)) .. bucket[8] .. bucket[9]
end

-- One shopper is no trend, and most buckets have but one. Told from the registers, so that the order of
-- arrival, and what came in one batch, makes no difference.
local function several(registers)
  local at = string.find(registers, '[^%z]')
  if not at then return false end
  local byte = string.byte(registers, at)
  return (byte >= 16 and byte % 16 > 0) or string.find(registers, '[^%z]', at + 1) ~= nil
end

-- A sum over the members: whatever the order of arrival, equal sketches have equal digests.
local function weigh(member, score)
  return ((tonumber(string.sub(member, -9)) or 0) + 1) * (score % 4194304 + 1)
end

for n, one in ipairs(ask[4]) do
  local key, sketch_key = KEYS[(n - 1) * 2 + 1], KEYS[(n - 1) * 2 + 2]
  local events, members = one[1], one[2]
  local digest, tau, card, moves, shoppers, registers = 0, math.huge, 0, 0, 0, ''
  local newest, guards, totals, tiers = 0, {}, {0, 0, 0, 0, 0, 0, 0}, {{}, {}, {}}
  local raw = redis.call('GET', key)
  if raw then
    local version
    version, digest, tau, card, moves, shoppers, registers = struct.unpack('>BddI2I2I4c32', raw)
    local body = cmsgpack.unpack(string.sub(raw, HEADER_BYTES + 1))
    newest, guards, totals, tiers = body[1], body[2], body[3], body[4]
    if registers == string.rep('\\0', 32) then registers = '' end
  end
  local guard = guards[topic] or {}
  guards[topic] = guard

  -- Counters, and who was there.
  local everyone, open, fresh, again = {}, {{}, {}, {}}, {}, false
  for i = 1, #events, 5 do
    local partition, offset, second, code = events[i], events[i + 1], events[i + 2], events[i + 3]
    local kind, counts, interaction = code % 8, math.floor(code / 8) % 2, code >= 16
    local new = offset > (guard[partition] or -1)
    if new then guard[partition] = offset elseif interaction then again = true end
    if counts == 1 then
      if second > newest then newest = second end
      if new then totals[kind + 1] = totals[kind + 1] + 1 end
      local index, rank = math.floor(events[i + 4] / 16), events[i + 4] % 16
      if interaction and rank > (everyone[index] or 0) then everyone[index] = rank end
      for tier, width in ipairs(WIDTHS) do
        local number = math.floor(second / width)
        local bucket = open[tier][number]
        if not bucket then
          local packed = tiers[tier][number]
          if packed then
            bucket = opened(packed)
          else
            bucket = {0, 0, 0, 0, 0, 0, 0, '', ''}
            fresh[tier] = true
          end
          bucket[10], bucket[11] = {}, {}
          open[tier][number] = bucket
        end
        if new then bucket[kind + 1] = bucket[kind + 1] + 1 end
        if interaction then
          if rank > (bucket[10][index] or 0) then bucket[10][index] = rank end
          if kind == PURCHASE and rank > (bucket[11][index] or 0) then bucket[11][index] = rank end
        end
      end
    end
  end
  local trend = {}
  for tier, width in ipairs(WIDTHS) do
    local oldest, held = math.floor(newest / width) - KEPT[tier], tiers[tier]
    for number, bucket in pairs(open[tier]) do
      if number > oldest then
        if next(bucket[10]) then
          local changed
          bucket[8], changed = merged(bucket[8], bucket[10], ITEM_REGISTERS / 2)
          if (changed or again) and several(bucket[8]) then
            local at = #trend
            trend[at + 1], trend[at + 2], trend[at + 3] = tier - 1, number, bucket[8]
          end
          if next(bucket[11]) then bucket[9] = merged(bucket[9], bucket[11], ITEM_REGISTERS / 2) end
        end
        held[number] = closed(bucket)
      end
    end
    if fresh[tier] then
      for number in pairs(held) do
        if number <= oldest then held[number] = nil end
      end
    end
  end

  -- The sketch: the k smallest scores, one per shopper; tau is the smallest that did not stay.
  local moved, largest, largest_member = 0, nil, nil
  for i = 1, #members, 2 do
    local member, score = members[i], members[i + 1]
    if card < k or score < tau then
      local standing = redis.call('ZSCORE', sketch_key, member)
      if standing then
        standing = tonumber(standing)
        if score < standing then
          redis.call('ZADD', sketch_key, string.format('%.0f', score), member)
          digest = (digest - weigh(member, standing) + weigh(member, score)) % 2 ^ 52
          moved, largest = moved + 1, nil
        end
      else
        local enters = card < k
        if not enters then
          if not largest then
            local last = redis.call('ZRANGE', sketch_key, -1, -1, 'WITHSCORES')
            largest_member, largest = last[1], tonumber(last[2])
          end
          enters = score < largest or (score == largest and member < largest_member)
          if enters then
            -- Out before in: one member too many would turn the listpack into a skiplist for ever.
            redis.call('ZREM', sketch_key, largest_member)
            digest = (digest - weigh(largest_member, largest)) % 2 ^ 52
            if largest < tau then tau = largest end
            card, largest = card - 1, nil
          elseif score < tau then
            tau = score
          end
        end
        if enters then
          redis.call('ZADD', sketch_key, string.format('%.0f', score), member)
          digest = (digest + weigh(member, score)) % 2 ^ 52
          card, moved = card + 1, moved + 1
        end
      end
    end
  end

  local before, more = shoppers, false
  if next(everyone) then registers, more = merged(registers, everyone, ITEM_REGISTERS / 2) end
  if tau == math.huge then
    shoppers = card
  elseif more or shoppers <= k then
    shoppers = math.max(k + 1, math.floor(estimate(registers) + 0.5))
  end
  moves = math.min(moves + moved, 65535)
  local answer = (moved > 0 or shoppers ~= before) and 1 or 0
  if again or (moved > 0 and moves >= share * card) then
    answer, moves = 2, 0
  end
  if registers == '' then registers = string.rep('\\0', 32) end
  local header = struct.pack('>BddI2I2I4c32', STATE_VERSION, digest, tau, card, moves, shoppers, registers)
  redis.call('SET', key, header .. cmsgpack.pack({newest, guards, totals, tiers}))
  answers[n] = {answer, trend}
end
return cmsgpack.pack(answers)
"""
)

_CONSTANTS = {
    "SHOPPER_REGISTERS": SHOPPER_REGISTERS,
    "ITEM_REGISTERS": ITEM_REGISTERS,
    "ID_WINDOW": ID_WINDOW,
    "MANY": 64,
    "HEADER_BYTES": HEADER_BYTES,
    "STATE_VERSION": STATE_VERSION,
    "PURCHASE": 3,
    "WIDTHS": "{" + ", ".join(str(width) for width, _ in TIERS) + "}",
    "KEPT": "{" + ", ".join(str(kept) for _, kept in TIERS) + "}",
}
_HEAD = "".join(f"local {name} = {value}\n" for name, value in _CONSTANTS.items())
SHOPPERS = _HEAD + SHOPPERS
ITEMS = _HEAD + ITEMS

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
