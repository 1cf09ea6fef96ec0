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
  local bytes, changed = {}, false
  if packed == '' then
    for i = 1, bytes_total do bytes[i] = 0 end
  else
    bytes = {string.byte(packed, 1, -1)}
  end
  for index, rank in pairs(pending) do
    local i = math.floor(index / 2) + 1
    local byte = bytes[i]
    local high, low = math.floor(byte / 16), byte % 16
    if index % 2 == 0 then
      if rank > high then bytes[i] = rank * 16 + low; changed = true end
    elseif rank > low then bytes[i] = high * 16 + rank; changed = true end
  end
  if not changed then return packed, false end
  return string.char(unpack(bytes)), true
end
"""

# KEYS per shopper: event ids, recent items, bought items, touched items.
# ARGV[1]: [recent kept, bought kept, [[field of the id window, committed offset, [id, offset, ...],
#   [item, score, ...] recent, [item, ms, ...] bought, [index * 16 + rank, ...] touched], ...]].
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

local function keep_newest(key, pairs_flat, kept)
  if #pairs_flat == 0 then return end
  local args = {}
  for i = 1, #pairs_flat, 2 do
    args[i], args[i + 1] = string.format('%.0f', pairs_flat[i + 1]), pairs_flat[i]
  end
  redis.call('ZADD', key, 'GT', unpack(args))
  if redis.call('ZCARD', key) > kept then redis.call('ZREMRANGEBYRANK', key, 0, -kept - 1) end
end

for n, one in ipairs(ask[3]) do
  local base = (n - 1) * 4
  local field, committed, ids = one[1], one[2], one[3]
  local before = redis.call('HGET', KEYS[base + 1], field) or ''
  local blob, flags = before, {}
  for i = 1, #ids, 2 do
    local id, offset = ids[i], ids[i + 1]
    local at = found(blob, id)
    local entries = #blob / 14
    local counts = '1'
    if at then
      if struct.unpack('>I6', blob, at + 8) ~= offset then counts = '0' end
    elseif entries > 0 and offset < entry_offset(blob, 1) then
      counts = '1'
    else
      local entry = id .. struct.pack('>I6', offset)
      local place = entries
      while place > 0 and entry_offset(blob, place) > offset do place = place - 1 end
      blob = string.sub(blob, 1, place * 14) .. entry .. string.sub(blob, place * 14 + 1)
    end
    flags[#flags + 1] = counts
  end
  local entries, leaving = #blob / 14, 0
  if entries > ID_WINDOW + 64 then
    while leaving + ID_WINDOW < entries and entry_offset(blob, leaving + 1 + ID_WINDOW) < committed do
      leaving = leaving + 1
    end
    blob = string.sub(blob, leaving * 14 + 1)
  end
  if blob ~= before then redis.call('HSET', KEYS[base + 1], field, blob) end
  keep_newest(KEYS[base + 2], one[4], recent_kept)
  keep_newest(KEYS[base + 3], one[5], bought_kept)
  if #one[6] > 0 then
    local pending = {}
    for _, code in ipairs(one[6]) do
      local index, rank = math.floor(code / 16), code % 16
      if rank > (pending[index] or 0) then pending[index] = rank end
    end
    local standing = redis.call('GET', KEYS[base + 4]) or ''
    local packed, changed = merged(standing, pending, SHOPPER_REGISTERS / 2)
    if changed then redis.call('SET', KEYS[base + 4], packed) end
  end
  answers[n] = table.concat(flags)
end
return cmsgpack.pack(answers)
"""
)

# KEYS per item: state, sketch.
# ARGV[1]: [topic, k, share of members that must move to be enough, [[[partition, offset, second of the
#   event, type + 8 * counts + 16 * interaction, index * 16 + rank, ...], [member, score, ...]], ...]].
# Answers per item [0 nothing moved | 1 something | 2 enough, [tier, bucket, shoppers, ...] of what changed].
#
# State: header, then MessagePack [newest second, {topic: {partition: guard}}, totals, per tier {bucket:
# [7 counts, shoppers' registers, buyers' registers]}]. The guard filters counters event by event: what has an
# offset above it, and only that, is counted, whoever else is at work. All else may be applied again.
ITEMS = (
    _REGISTERS
    + """
local ask = cmsgpack.unpack(ARGV[1])
local topic, k, share = ask[1], ask[2], ask[3]
local answers = {}
local POWER = {}
for rank = 0, 15 do POWER[rank] = 2 ^ -rank end

-- HyperLogLog with linear counting below 2.5 m (Flajolet et al. 2007).
local function estimate(packed)
  local m, sum, zeros = ITEM_REGISTERS, 0, 0
  for i = 1, #packed do
    local byte = string.byte(packed, i)
    local high, low = math.floor(byte / 16), byte % 16
    sum = sum + POWER[high] + POWER[low]
    if high == 0 then zeros = zeros + 1 end
    if low == 0 then zeros = zeros + 1 end
  end
  local raw = 0.709 * m * m / sum
  if raw <= 2.5 * m and zeros > 0 then return m * math.log(m / zeros) end
  return raw
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
  local everyone, touched = {}, {}
  for i = 1, #events, 5 do
    local partition, offset, second, code = events[i], events[i + 1], events[i + 2], events[i + 3]
    local kind, counts, interaction = code % 8, math.floor(code / 8) % 2, code >= 16
    local new = offset > (guard[partition] or -1)
    if new then guard[partition] = offset end
    if counts == 1 then
      if second > newest then newest = second end
      if new then totals[kind + 1] = totals[kind + 1] + 1 end
      local index, rank = math.floor(events[i + 4] / 16), events[i + 4] % 16
      if interaction and rank > (everyone[index] or 0) then everyone[index] = rank end
      for tier, width in ipairs(WIDTHS) do
        local number = math.floor(second / width)
        local bucket = tiers[tier][number]
        if not bucket then
          bucket = {0, 0, 0, 0, 0, 0, 0, '', ''}
          tiers[tier][number] = bucket
        end
        if new then bucket[kind + 1] = bucket[kind + 1] + 1 end
        if interaction then
          local seen = touched[bucket]
          if not seen then
            seen = {{}, {}, tier, number}
            touched[bucket] = seen
          end
          if rank > (seen[1][index] or 0) then seen[1][index] = rank end
          if kind == PURCHASE and rank > (seen[2][index] or 0) then seen[2][index] = rank end
        end
      end
    end
  end
  for tier, width in ipairs(WIDTHS) do
    local oldest = math.floor(newest / width) - KEPT[tier]
    for number in pairs(tiers[tier]) do
      if number <= oldest then tiers[tier][number] = nil end
    end
  end
  local trend = {}
  for bucket, seen in pairs(touched) do
    if tiers[seen[3]][seen[4]] then
      local changed
      bucket[8], changed = merged(bucket[8], seen[1], ITEM_REGISTERS / 2)
      if changed then
        trend[#trend + 1], trend[#trend + 2], trend[#trend + 3] = seen[3] - 1, seen[4], estimate(bucket[8])
      end
      if next(seen[2]) then bucket[9] = merged(bucket[9], seen[2], ITEM_REGISTERS / 2) end
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

  local before = shoppers
  local more
  registers, more = merged(registers, everyone, ITEM_REGISTERS / 2)
  if tau == math.huge then
    shoppers = card
  elseif more or shoppers <= k then
    shoppers = math.max(k + 1, math.floor(estimate(registers) + 0.5))
  end
  moves = math.min(moves + moved, 65535)
  local answer = (moved > 0 or shoppers ~= before) and 1 or 0
  if moved > 0 and moves >= share * card then
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
    "HEADER_BYTES": HEADER_BYTES,
    "STATE_VERSION": STATE_VERSION,
    "PURCHASE": 3,
    "WIDTHS": "{" + ", ".join(str(width) for width, _ in TIERS) + "}",
    "KEPT": "{" + ", ".join(str(kept) for _, kept in TIERS) + "}",
}
_HEAD = "".join(f"local {name} = {value}\n" for name, value in _CONSTANTS.items())
SHOPPERS = _HEAD + SHOPPERS
ITEMS = _HEAD + ITEMS

# KEYS: due, announcing. ARGV: now (ms), limit. Moves what is due; answers the items.
MOVE_DUE = """
local items = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, item in ipairs(items) do
  redis.call('ZADD', KEYS[2], ARGV[1], item)
  redis.call('ZREM', KEYS[1], item)
end
return items
"""
