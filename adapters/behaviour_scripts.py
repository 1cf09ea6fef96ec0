"""The Lua of items: what one batch of events does to many of them in one call.

ARGV[1] = MessagePack [settings..., [...]], the units behind each other in one flat list. Answers one
MessagePack list with an answer per unit, in the order given. Redis 6.2, plain Lua. Applying a unit again
changes nothing.
"""

from __future__ import annotations

#: Widths in seconds of the buckets that events are counted in, and how many of each an item keeps.
TIERS = ((3_600, 2), (21_600, 5), (172_800, 16))
#: Registers of the sketch that counts an item's distinct shoppers (4 bits each).
ITEM_REGISTERS = 64
#: An item's state begins with: version, digest of the sketch, tau, members, moves, shoppers, registers.
HEADER = ">BddHHI32s"
HEADER_BYTES = 1 + 8 + 8 + 2 + 2 + 4 + 32
STATE_VERSION = 1
#: The first value of an answer of ITEMS: nothing was written, some events were counted before and some not.
SPLIT = -1

# Registers of 4 bits, two to a byte, as HyperLogLog's: the largest rank seen, so that applying again, and any
# order, ends the same. `code` is index * 16 + rank; '' has none.
REGISTERS = """
local function raised(packed, code, bytes_total)
  if packed == '' then packed = string.rep('\\0', bytes_total) end
  local rank = code % 16
  local index = (code - rank) / 16
  local i = math.floor(index / 2) + 1
  local byte = string.byte(packed, i)
  local low = byte % 16
  local high = byte - low
  if index % 2 == 0 then
    if rank * 16 <= high then return packed, false end
    high = rank * 16
  else
    if rank <= low then return packed, false end
    low = rank
  end
  return string.sub(packed, 1, i - 1) .. string.char(high + low) .. string.sub(packed, i + 1), true
end
"""

# A sum over the members: whatever the order of arrival, equal sketches have equal digests.
WEIGH = """
local function weigh(member, score)
  return ((tonumber(string.sub(member, -9)) or 0) + 1) * (score % 4194304 + 1)
end
"""

# KEYS per item: state, sketch. ARGV[1]: [member, [...]]. Takes one shopper out of the sketches; tau stays, so
# that the others' inclusion probabilities do. Answers per item 1 where they were in it. Counters and
# registers are anonymous: they stay.
FORGET = (
    WEIGH
    + """
local ask = cmsgpack.unpack(ARGV[1])
local member, answers = ask[1], {}
for n = 1, #KEYS / 2 do
  local key, sketch_key = KEYS[n * 2 - 1], KEYS[n * 2]
  local score, raw = redis.call('ZSCORE', sketch_key, member), redis.call('GET', key)
  answers[n] = 0
  if score and raw then
    redis.call('ZREM', sketch_key, member)
    local version, digest, tau, card, moves, shoppers, registers, rest = struct.unpack('>BddI2I2I4c32', raw)
    digest, card = (digest - weigh(member, tonumber(score))) % 2 ^ 52, card - 1
    if tau == math.huge then shoppers = card end
    local header = struct.pack('>BddI2I2I4c32', version, digest, tau, card, moves, shoppers, registers)
    redis.call('SET', key, header .. string.sub(raw, rest))
    answers[n] = 1
  end
end
return cmsgpack.pack(answers)
"""
)

# KEYS per item: state, sketch.
# ARGV[1]: [topic, k, share of members that must move to be enough, [units]]. A unit: how many values follow;
#   how many are of members; [member, score, ...]; then its events, one by one: 0 and
#     [partition, offset, second of the event, type + 8 * counts + 16 * interaction, index * 16 + rank, ...]
#   or summed up: 1, whether an interaction is among them, the newest second that counts (-1: none), the seven
#   counts, registers of all shoppers ('' for none), how many partitions, [partition, first offset, last
#   offset, ...], and per bucket [tier, number, seven counts, registers of shoppers, of buyers, ...].
# Answers per item [0 nothing moved | 1 something | 2 enough | -1 split, tau (0: none yet),
#   tier, bucket, registers, ... of what changed].
#
# State: header, then MessagePack [newest second, {topic: {partition: guard}}, totals, per tier {number:
# bucket}]. A bucket is a string: 7 counts of 2 bytes (or of 4, once one needs them), registers of shoppers,
# then of buyers, each of 32 bytes or absent; its length says which. Only what an event touches is opened.
# The guard filters counters event by event: what has an offset above it, and only that, is counted, whoever
# else is at work. A sum is counted if all of it lies above the guards, and not if nothing does; else the
# answer is -1, nothing is written, and the caller comes again with single events. All else may be applied
# again, and then counts as moved: whoever applied it first may have ended before anything followed from it.
ITEMS = (
    f"""
local REGISTER_BYTES, HEADER_BYTES, STATE_VERSION, PURCHASE = {ITEM_REGISTERS // 2}, {HEADER_BYTES}, \
  {STATE_VERSION}, 3
local WIDTHS = {{{", ".join(str(width) for width, _ in TIERS)}}}
local KEPT = {{{", ".join(str(kept) for _, kept in TIERS)}}}
"""
    + REGISTERS
    + WEIGH
    + """
local ask = cmsgpack.unpack(ARGV[1])
local topic, k, share, flat = ask[1], ask[2], ask[3], ask[4]
local answers, NONE = {}, string.rep('\\0', REGISTER_BYTES)

-- Two packed register sketches; whether the second raised the first.
local function joined(packed, more)
  if more == '' or packed == more then return packed, false end
  if packed == '' then return more, true end
  local bytes, changed = {string.byte(packed, 1, -1)}, false
  for i, byte in ipairs({string.byte(more, 1, -1)}) do
    if byte > 0 then
      local standing = bytes[i]
      local low, other = standing % 16, byte % 16
      local high, above = standing - low, byte - other
      if above > high or other > low then
        bytes[i] = math.max(high, above) + math.max(low, other)
        changed = true
      end
    end
  end
  if not changed then return packed, false end
  return string.char(unpack(bytes)), true
end

-- HyperLogLog with linear counting below 2.5 m (Flajolet et al. 2007).
local function estimate(packed)
  local m, sum, zeros = 2 * REGISTER_BYTES, 0, 0
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

-- What a batch changes of a bucket: counts, registers of shoppers, of buyers, whether the former changed,
-- whether there were shoppers.
local function opened(packed)
  if not packed then return {0, 0, 0, 0, 0, 0, 0, '', '', false, false} end
  local size = #packed
  local wide = size == 28 or size == 60 or size == 92
  local head = wide and 28 or 14
  local bucket = {struct.unpack(wide and '>I4I4I4I4I4I4I4' or '>I2I2I2I2I2I2I2', packed)}
  bucket[8], bucket[9] = string.sub(packed, head + 1, head + 32), string.sub(packed, head + 33)
  bucket[10], bucket[11] = false, false
  return bucket
end

-- A bucket of one event, which is most of those that nothing stood in.
local ONE, alone = {}, {}
for kind = 1, 7 do
  ONE[kind] = string.rep('\\0', 2 * kind - 1) .. '\\1' .. string.rep('\\0', 14 - 2 * kind)
end
local function of_one(kind, code)
  if not code then return ONE[kind] end
  local registers = alone[code]
  if not registers then
    registers = raised('', code, REGISTER_BYTES)
    alone[code] = registers
  end
  if kind == PURCHASE + 1 then return ONE[kind] .. registers .. registers end
  return ONE[kind] .. registers
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

-- Whether the events of a sum are above the guards: true, false, or nil if only some are.
local function all_above(guard, at, partitions)
  local above = 0
  for place = at, at + partitions * 3 - 3, 3 do
    local standing = guard[flat[place]] or -1
    if flat[place + 1] > standing then above = above + 1 elseif flat[place + 2] > standing then return nil end
  end
  if above == partitions then return true end
  if above == 0 then return false end
  return nil
end

local at = 1
for n = 1, #KEYS / 2 do
  local key, sketch_key = KEYS[n * 2 - 1], KEYS[n * 2]
  local stop, members, members_end = at + flat[at], at + 2, at + 1 + flat[at + 1]
  at = members_end + 1
  local digest, tau, card, moves, shoppers, registers = 0, math.huge, 0, 0, 0, ''
  local newest, guards, totals, tiers = 0, {}, {0, 0, 0, 0, 0, 0, 0}, {{}, {}, {}}
  local raw = redis.call('GET', key)
  if raw then
    local version
    version, digest, tau, card, moves, shoppers, registers = struct.unpack('>BddI2I2I4c32', raw)
    local body = cmsgpack.unpack(string.sub(raw, HEADER_BYTES + 1))
    newest, guards, totals, tiers = body[1], body[2], body[3], body[4]
    if registers == NONE then registers = '' end
  end
  local guard, newest_before = guards[topic] or {}, newest
  guards[topic] = guard

  -- Counters, and who was there.
  local open, again, more, split = {{}, {}, {}}, false, false, false
  if flat[at] == 0 then
    for i = at + 1, stop - 4, 5 do
      local partition, offset, second, code = flat[i], flat[i + 1], flat[i + 2], flat[i + 3]
      local kind, counts, interaction = code % 8 + 1, code % 16 >= 8, code >= 16
      local new = offset > (guard[partition] or -1)
      if new then guard[partition] = offset elseif interaction then again = true end
      if counts then
        local rank, rose = flat[i + 4]
        if second > newest then newest = second end
        if new then totals[kind] = totals[kind] + 1 end
        if interaction then
          registers, rose = raised(registers, rank, REGISTER_BYTES)
          more = more or rose
        end
        for tier, width in ipairs(WIDTHS) do
          local number = math.floor(second / width)
          local bucket, standing = open[tier][number], tiers[tier][number]
          if new and not bucket and not standing then
            if number > math.floor(newest / width) - KEPT[tier] then
              tiers[tier][number] = of_one(kind, interaction and rank)
            end
          else
            if not bucket then
              bucket = opened(standing)
              open[tier][number] = bucket
            end
            if new then bucket[kind] = bucket[kind] + 1 end
            if interaction then
              bucket[8], rose = raised(bucket[8], rank, REGISTER_BYTES)
              bucket[10], bucket[11] = bucket[10] or rose, true
              if kind == PURCHASE + 1 then bucket[9] = raised(bucket[9], rank, REGISTER_BYTES) end
            end
          end
        end
      end
    end
  else
    local partitions = flat[at + 11]
    local new = all_above(guard, at + 12, partitions)
    if new == nil then split = true end
    if not split then
      if flat[at + 2] > newest then newest = flat[at + 2] end
      again = not new and flat[at + 1] == 1
      registers, more = joined(registers, flat[at + 10])
      if new then
        for kind = 1, 7 do totals[kind] = totals[kind] + flat[at + 2 + kind] end
        for place = at + 12, at + 9 + partitions * 3, 3 do guard[flat[place]] = flat[place + 2] end
      end
      for i = at + 12 + partitions * 3, stop, 11 do
        local tier, number = flat[i], flat[i + 1]
        local bucket = opened(tiers[tier][number])
        open[tier][number] = bucket
        if new then
          for kind = 1, 7 do bucket[kind] = bucket[kind] + flat[i + 1 + kind] end
        end
        bucket[8], bucket[10] = joined(bucket[8], flat[i + 9])
        bucket[9] = joined(bucket[9], flat[i + 10])
        bucket[11] = flat[i + 9] ~= ''
      end
    end
  end
  at = stop + 1

  if split then
    answers[n] = {-1, 0}
  else
    local answer = {0, 0}
    for tier, width in ipairs(WIDTHS) do
      local oldest, held = math.floor(newest / width) - KEPT[tier], tiers[tier]
      for number, bucket in pairs(open[tier]) do
        if number > oldest then
          if bucket[11] and (bucket[10] or again) and several(bucket[8]) then
            local last = #answer
            answer[last + 1], answer[last + 2], answer[last + 3] = tier - 1, number, bucket[8]
          end
          held[number] = closed(bucket)
        end
      end
      if oldest > math.floor(newest_before / width) - KEPT[tier] then
        for number in pairs(held) do
          if number <= oldest then held[number] = nil end
        end
      end
    end

    -- The sketch: the k smallest scores, one per shopper; tau is the smallest that did not stay.
    local moved, largest, largest_member = 0, nil, nil
    for i = members, members_end, 2 do
      local member, score = flat[i], flat[i + 1]
      -- Fewer than k members and a tau: one was forgotten, and the place is for scores below tau alone.
      if score < tau then
        local entered = card < k and redis.call('ZADD', sketch_key, 'NX', score, member) == 1
        local standing = not entered and redis.call('ZSCORE', sketch_key, member)
        if entered then
          digest = (digest + weigh(member, score)) % 2 ^ 52
          card, moved = card + 1, moved + 1
        elseif standing then
          standing = tonumber(standing)
          if score < standing then
            redis.call('ZADD', sketch_key, score, member)
            digest = (digest - weigh(member, standing) + weigh(member, score)) % 2 ^ 52
            moved, largest = moved + 1, nil
          end
        else
          if not largest then
            local last = redis.call('ZRANGE', sketch_key, -1, -1, 'WITHSCORES')
            largest_member, largest = last[1], tonumber(last[2])
          end
          if score < largest or (score == largest and member < largest_member) then
            -- Out before in: one member too many would turn the listpack into a skiplist for ever.
            redis.call('ZREM', sketch_key, largest_member)
            redis.call('ZADD', sketch_key, score, member)
            digest = (digest - weigh(largest_member, largest) + weigh(member, score)) % 2 ^ 52
            if largest < tau then tau = largest end
            moved, largest = moved + 1, nil
          elseif score < tau then
            tau = score
          end
        end
      end
    end

    local shoppers_before = shoppers
    if tau == math.huge then
      shoppers = card
    elseif more or shoppers <= k then
      shoppers = math.max(k + 1, math.floor(estimate(registers) + 0.5))
    end
    if tau < math.huge then answer[2] = tau end
    moves = math.min(moves + moved, 65535)
    if again or (moved > 0 and moves >= share * card) then
      answer[1], moves = 2, 0
    elseif moved > 0 or shoppers ~= shoppers_before then
      answer[1] = 1
    end
    if registers == '' then registers = NONE end
    local header = struct.pack('>BddI2I2I4c32', STATE_VERSION, digest, tau, card, moves, shoppers, registers)
    redis.call('SET', key, header .. cmsgpack.pack({newest, guards, totals, tiers}))
    answers[n] = answer
  end
end
return cmsgpack.pack(answers)
"""
)
