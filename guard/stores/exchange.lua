-- ARGV: now, ttl, room, remember, size of a row, owner, born and rows of what the asker knows of the caller's recent
-- rows, caller, how many cohorts, cohorts...; then three a row: digest, places (page u32, offset u16, tag u32), position.
local BUCKET, WAYS, NEIGHBOURS = 64, 8, 8
local remember, size, owner = ARGV[4] == '1', tonumber(ARGV[5]), ARGV[6]
local born, known_rows, caller, cohorts = ARGV[7], tonumber(ARGV[8]), ARGV[9], tonumber(ARGV[10])
local state = call('HMGET', P .. ':n', 'next', 'oldest')
local next_number = tonumber(state[1] or room + 1)
local oldest = tonumber(state[2] or room + 1)
local first_oldest, changed = oldest, false

local function expire_rows()
  oldest = math.max(oldest, next_number - room)
  for _ = 1, 100 do
    if oldest >= next_number then return end
    local seen = head(oldest, size)
    if seen and seen >= now - ttl then return end
    if seen then forget_row(oldest, size) end
    oldest = oldest + 1
  end
end

local function full(short)
  local age = (next_number - short) % 4294967296
  return age <= room and age > 0 and next_number - age or nil
end

local function shared(places)
  local counts, list, read = {}, {}, {}
  for at = 1, #places, 10 do
    local page, offset, tag = struct.unpack('<I4I2I4', places, at)
    local bucket = call('GETRANGE', P .. ':i:' .. text(page), offset, offset + BUCKET - 1)
    read[#read + 1] = { page, offset, tag, bucket }
    if #bucket == BUCKET then
      local tags = { struct.unpack('<I4I4I4I4I4I4I4I4', bucket) }
      for way = 1, WAYS do
        if tags[way] == tag then
          local number = full((struct.unpack('<I4', bucket, 33 + 4 * (way - 1))))
          if number then
            if not counts[number] then list[#list + 1] = number end
            counts[number] = (counts[number] or 0) + 1
          end
        end
      end
    end
  end
  table.sort(list, function(a, b)
    if counts[a] ~= counts[b] then return counts[a] > counts[b] end
    return a > b
  end)
  return counts, list, read
end

local function add(read, number)
  local short = struct.pack('<I4', number % 4294967296)
  local written = {}
  for _, one in ipairs(read) do
    local page, offset, tag, bucket = one[1], one[2], one[3], one[4]
    local key = P .. ':i:' .. text(page)
    if written[page * 65536 + offset] then bucket = call('GETRANGE', key, offset, offset + BUCKET - 1) end
    written[page * 65536 + offset] = true
    if #bucket < BUCKET then bucket = string.rep('\0', BUCKET) end
    call('SETRANGE', key, offset, struct.pack('<I4', tag) .. string.sub(bucket, 1, 28) .. short .. string.sub(bucket, 33, 60))
    long_lived(key)
  end
end

local function keep(digest, number, position)
  forget_row(number - room, size)
  local page, at = row_place(number, size)
  call('SETRANGE', page, at, struct.pack('<dddi4c8c8', number, now, number, -1, owner, digest) .. position)
  long_lived(page)
  local known = digest_page(digest)
  local stale = call('HGET', known, digest)
  if stale then forget_row(tonumber(stale), size) end
  call('HSET', known, digest, text(number))
  long_lived(known)
  call('HINCRBY', P .. ':n', 'count', 1)
  changed = true
end

local components, wanted = {}, {}

local function look(digest, places, position)
  local known = tonumber(call('HGET', digest_page(digest), digest) or '-1')
  if known >= 0 then
    local seen = head(known, size)
    if seen and seen >= now - ttl then
      if remember then
        local page, at = row_place(known, size)
        call('SETRANGE', page, at + 8, struct.pack('<d', now))
        for _, key in ipairs({ page, digest_page(digest) }) do long_lived(key) end
        for at_place = 1, #places, 10 do
          long_lived(P .. ':i:' .. text((struct.unpack('<I4', places, at_place))))
        end
      end
      return { text(known), 1 }
    end
  end
  local counts, list, read = shared(places)
  local reply = { '-1', 0 }
  for _, number in ipairs(list) do
    local page, at = row_place(number, size)
    local data = call('GETRANGE', page, at, at + size - 1)
    if #data == size then
      local own, seen, component = struct.unpack('<ddd', data)
      if own == number and seen >= now - ttl then
        reply[#reply + 1] = counts[number]
        reply[#reply + 1] = data
        wanted[component] = true
      end
    end
    if #reply >= 2 + 2 * NEIGHBOURS then break end
  end
  if remember then
    local number = next_number
    keep(digest, number, position)
    add(read, number)
    next_number = number + 1
    reply[1] = text(number)
  end
  return reply
end

local function person(kind, who)
  local member = kind .. ':' .. who
  local data = call('HGETALL', P .. ':p:' .. member)
  if #data > 0 then
    call('ZADD', P .. ':s', 'XX', string.format('%.17g', now), member)
    long_lived(P .. ':p:' .. member)
  end
  return data
end

local function recent(data)
  local fields = {}
  for i = 1, #data, 2 do fields[data[i]] = data[i + 1] end
  if not fields.width then return '' end
  local record = 4 * tonumber(fields.width) + tonumber(fields.embedded) + 12
  local fresh = RECENT
  if fields.born == born then fresh = math.min(RECENT, tonumber(fields.rows) - known_rows) end
  if fresh <= 0 then return '' end
  long_lived(P .. ':q:' .. caller)
  return call('GETRANGE', P .. ':q:' .. caller, -fresh * record, -1)
end

expire_people()
expire_rows()
local people = { person('0', caller) }
-- Alert.outcast of guard/types.py
for i = 1, #people[1], 2 do
  local field, value = people[1][i], people[1][i + 1]
  if ((field == 'level' or field == 'acting') and value == '3') or (field == 'held' and value ~= '0') then
    remember = false
  end
end
for i = 1, cohorts do people[#people + 1] = person('1', ARGV[10 + i]) end
local matches = {}
for i = 11 + cohorts, #ARGV, 3 do matches[#matches + 1] = look(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
for component in pairs(wanted) do
  components[#components + 1] = text(component)
  components[#components + 1] = call('GET', P .. ':c:' .. text(component)) or ''
end
if changed or oldest ~= first_oldest then
  call('HSET', P .. ':n', 'next', text(next_number), 'oldest', text(oldest))
  call('EXPIRE', P .. ':n', string.format('%.0f', math.ceil(2 * life)))
end
local entries = tonumber(call('HGET', P .. ':n', 'count') or '0')
return {
  matches, components, people, recent(people[1]),
  math.max(0, math.min(entries, next_number - oldest)), { gone.entries, gone.callers, gone.components },
  math.max(0, math.min(entries, tonumber(call('HGET', P .. ':n', 'joined') or '0'))),
}
