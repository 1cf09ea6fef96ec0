"""The Lua of shoppers: what one batch of events does to many of them in one call.

ARGV[1] = MessagePack [recent kept, bought kept, [...]], the units behind each other in one flat list: nested
ones would cost a table each. Answers one MessagePack list, units in the order given. Redis 6.2, plain Lua.
Applying a unit again changes nothing.
"""

from __future__ import annotations

from adapters.behaviour_scripts import REGISTERS

#: Registers of the sketch of a shopper's distinct items (4 bits each).
SHOPPER_REGISTERS = 32
#: The newest so many event ids below the commit are remembered per shopper and partition.
ID_WINDOW = 256
#: Bytes of a remembered id: 8 of its hash, 6 of the offset of its first appearance.
ENTRY_BYTES = 14

# KEYS per shopper: an id window; with interactions recent items and a hash ('n': registers of its items);
# with purchases bought items.
# A unit: committed offset; a string of entries, as the window's, in the order of offsets; how many values of
# recent, how many of bought; [score, item, ...] recent; [ms, item, ...] bought; [index * 16 + rank, ...]
# touched, one for each recent pair.
# Answers per shopper 0, or a string where not every event counts: '1' if it does, '0' for a duplicate.
#
# An id window is a string of entries in the order of offsets. An event counts if its own offset is the
# remembered one, or if it is older than everything remembered: then the guard of its item decides. Nearly
# always all are new and later than what is remembered: then they are appended, and Redis' append-only file
# grows by them alone and not by the window.
SHOPPERS = (
    f"""
local REGISTER_BYTES, ID_WINDOW, ENTRY, MANY = {SHOPPER_REGISTERS // 2}, {ID_WINDOW}, {ENTRY_BYTES}, 32
"""
    + REGISTERS
    + """
local ask = cmsgpack.unpack(ARGV[1])
local recent_kept, bought_kept, flat = ask[1], ask[2], ask[3]
local answers, at, key = {}, 1, 1

local function entry_offset(blob, n) return struct.unpack('>I6', blob, (n - 1) * ENTRY + 9) end

local function found(blob, id)
  local from = 1
  while true do
    local at = string.find(blob, id, from, true)
    if not at then return nil end
    if (at - 1) % ENTRY == 0 then return at end
    from = at + 1
  end
end

local function all_new(window, entries)
  if #entries > MANY * ENTRY then return false end
  for at = 1, #entries, ENTRY do
    local id = string.sub(entries, at, at + 7)
    if found(window, id) or (at > 1 and found(entries, id) < at) then return false end
  end
  return true
end

-- Where a whole batch is one account's, looking through the string for each event would take a second.
local function all_of(blob)
  local known = {}
  for at = 1, #blob, ENTRY do
    known[string.sub(blob, at, at + 7)] = struct.unpack('>I6', blob, at + 8)
  end
  return known
end

local function inserted(blob, entry, offset)
  local low, high = 0, #blob / ENTRY
  while low < high do
    local middle = math.floor((low + high + 1) / 2)
    if entry_offset(blob, middle) > offset then high = middle - 1 else low = middle end
  end
  return string.sub(blob, 1, low * ENTRY) .. entry .. string.sub(blob, low * ENTRY + 1)
end

-- One by one, whatever their order: the window with them, and which count.
local function merged_ids(before, entries)
  local blob, tail, flags = before, {}, {}
  local many = #entries > MANY * ENTRY
  local known = many and all_of(before) or {}
  local oldest = #before > 0 and entry_offset(before, 1) or -1
  local newest = #before > 0 and entry_offset(before, #before / ENTRY) or -1
  for at = 1, #entries, ENTRY do
    local id, offset = string.sub(entries, at, at + 7), struct.unpack('>I6', entries, at + 8)
    local first = known[id]
    if not first and not many then
      local standing = found(before, id)
      first = standing and struct.unpack('>I6', before, standing + 8)
    end
    flags[#flags + 1] = (first or offset) == offset and '1' or '0'
    if not first and offset >= oldest then
      local entry = string.sub(entries, at, at + ENTRY - 1)
      known[id] = offset
      if offset > newest then
        tail[#tail + 1], newest = entry, offset
      else
        blob, tail = inserted(blob .. table.concat(tail), entry, offset), {}
      end
    end
  end
  return blob .. table.concat(tail), table.concat(flags)
end

local function shortened(blob, committed)
  local total, leaving = #blob / ENTRY, 0
  while leaving + ID_WINDOW < total and entry_offset(blob, leaving + 1 + ID_WINDOW) < committed do
    leaving = leaving + 1
  end
  return string.sub(blob, leaving * ENTRY + 1)
end

-- How many items are new there.
local function keep_newest(key, from, to, kept)
  local added = 0
  -- Lua passes on some thousands of values at most.
  for first = from, to, 1000 do
    added = added + redis.call('ZADD', key, 'GT', unpack(flat, first, math.min(first + 999, to)))
  end
  if added > 0 then redis.call('ZREMRANGEBYRANK', key, 0, -kept - 1) end
  return added
end

while at <= #flat do
  local committed, entries, recents, boughts = flat[at], flat[at + 1], flat[at + 2], flat[at + 3]
  at = at + 4
  local before, flags = redis.call('GET', KEYS[key]) or '', 0
  local length = #before + #entries
  local newest = #before > 0 and entry_offset(before, #before / ENTRY) or -1
  local full = length > (ID_WINDOW + 64) * ENTRY
  if not full and entry_offset(entries, 1) > newest and all_new(before, entries) then
    redis.call('APPEND', KEYS[key], entries)
  else
    local blob
    blob, flags = merged_ids(before, entries)
    if full then blob = shortened(blob, committed) end
    if blob ~= before then redis.call('SET', KEYS[key], blob) end
    if not string.find(flags, '0', 1, true) then flags = 0 end
  end
  key = key + 1
  if recents > 0 then
    -- An item that is among the recent ones has been in the registers since it came there.
    if keep_newest(KEYS[key], at, at + recents - 1, recent_kept) > 0 then
      local before = redis.call('HGET', KEYS[key + 1], 'n') or ''
      local touched, first = before, at + recents + boughts
      for place = first, first + recents / 2 - 1 do
        touched = raised(touched, flat[place], REGISTER_BYTES)
      end
      if touched ~= before then redis.call('HSET', KEYS[key + 1], 'n', touched) end
    end
    key = key + 2
  end
  if boughts > 0 then
    keep_newest(KEYS[key], at + recents, at + recents + boughts - 1, bought_kept)
    key = key + 1
  end
  at = at + recents * 3 / 2 + boughts
  answers[#answers + 1] = flags
end
return cmsgpack.pack(answers)
"""
)
