-- ARGV: now, ttl, room, most callers, size of a row, owner, caller, restart, level or '', until, acting, held, width,
-- embedded, recent rows; then lists, each its length and its items: cohorts; evidence (monitor, p-values); judged
-- (monitor, rows, p-value); clusters (number, p-values); joins (number, cluster); answered (number, label). P-values are doubles.
local FRACTIONS = { 1.0, 0.2, 0.04, 0.008 }
local NOTHING = struct.pack('<ddddd', 0, -math.huge, -math.huge, -math.huge, -math.huge)
local OWNERS = 64
local most, size, owner, caller = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], ARGV[7]
local restart, level, until_s, acting, held = ARGV[8] == '1', ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local width, embedded, rings = tonumber(ARGV[13]), tonumber(ARGV[14]), ARGV[15]
local cursor = 16

local function list(items)
  local length, found = tonumber(ARGV[cursor]), {}
  cursor = cursor + 1
  for i = 1, length do
    local one = {}
    for j = 1, items do one[j] = ARGV[cursor + j - 1] end
    cursor = cursor + items
    found[i] = one
  end
  return found
end

-- guard/evidence.py, step by step.
local function log1p(x)
  local u = 1.0 + x
  if u == 1.0 then return x end
  return math.log(u) * x / (u - 1.0)
end

local function log_add(a, b)
  local high, low = math.max(a, b), math.min(a, b)
  if low == -math.huge then return high end
  return high + log1p(math.exp(low - high))
end

local function log_e_value(p)
  p = math.max(p, 1e-300)
  local log_p = math.log(p)
  if log_p > -1e-4 then return math.log(0.5 - log_p / 6.0) end
  return math.log(1.0 - p + p * log_p) - log_p - 2.0 * math.log(-log_p)
end

local function add(state, p_values)
  local sums = { struct.unpack('<ddddd', state) }
  for at = 1, #p_values, 8 do
    sums[1] = sums[1] + 1
    local weight, e = -math.log(sums[1] * (sums[1] + 1.0)), log_e_value((struct.unpack('<d', p_values, at)))
    for i, fraction in ipairs(FRACTIONS) do
      local bet = fraction == 1.0 and e or log_add(log1p(-fraction), math.log(fraction) + e)
      sums[i + 1] = log_add(sums[i + 1], weight) + bet
    end
  end
  return struct.pack('<ddddd', sums[1], sums[2], sums[3], sums[4], sums[5])
end

local function meet(member)
  local key = P .. ':p:' .. member
  if call('EXISTS', key) == 0 then
    local born = call('HINCRBY', P .. ':n', 'born', 1)
    call('HSET', key, 'since', string.format('%.17g', now), 'rows', '0', 'born', text(born))
  end
  call('ZADD', P .. ':s', string.format('%.17g', now), member)
  long_lived(key)
  return key
end

local function begin_anew(key)
  for _, field in ipairs(call('HKEYS', key)) do
    if string.sub(field, 1, 2) == 'e:' then call('HDEL', key, field) end
  end
  call('HSET', key, 'since', string.format('%.17g', now))
end

local function credit(keys, monitor, p_values)
  for _, key in ipairs(keys) do
    call('HSET', key, 'e:' .. monitor, add(call('HGET', key, 'e:' .. monitor) or NOTHING, p_values))
  end
end

local function append(key)
  local shape = call('HMGET', key, 'width', 'embedded')
  if shape[1] and (tonumber(shape[1]) ~= width or tonumber(shape[2]) ~= embedded) then drop_ring(caller) end
  call('HSET', key, 'width', text(width), 'embedded', text(embedded))
  local ring, record = P .. ':q:' .. caller, 4 * width + embedded + 12
  local length = call('APPEND', ring, rings)
  if length > (RECENT + 64) * record then
    call('SET', ring, call('GETRANGE', ring, -RECENT * record, -1))
  end
  long_lived(ring)
  local before = tonumber(call('HGET', P .. ':l', caller) or '0')
  local rows = math.min(RECENT, before + #rings / record)
  call('HSET', P .. ':l', caller, text(rows))
  call('ZADD', P .. ':u', string.format('%.17g', now), caller)
  local total = call('HINCRBY', P .. ':n', 'recent', text(rows - before))
  for _ = 1, 1000 do
    local longest = call('ZRANGE', P .. ':u', 0, 0)[1]
    if total <= room or longest == caller then break end
    drop_ring(longest)
    total = tonumber(call('HGET', P .. ':n', 'recent'))
  end
end

local function grow(number, p_values)
  local key = P .. ':c:' .. number
  local known, rows, owners = call('GET', key), 1, ''
  local state = NOTHING
  if known then
    state, rows, owners = string.sub(known, 1, 40), struct.unpack('<d', known, 41), string.sub(known, 49)
  end
  local _, _, _, root = head(tonumber(number), size)
  for _, tag in ipairs({ root or owner, owner }) do
    local new = #owners < 8 * OWNERS
    for at = 1, #owners, 8 do new = new and string.sub(owners, at, at + 7) ~= tag end
    if new then owners = owners .. tag end
  end
  call('SET', key, add(state, p_values) .. struct.pack('<d', rows + #p_values / 8) .. owners)
  long_lived(key)
end

local function write(number, offset, data)
  if not head(tonumber(number), size) then return end
  local page, at = row_place(tonumber(number), size)
  call('SETRANGE', page, at + offset, data)
end

local keys = {}
for _, cohort in ipairs(list(1)) do keys[#keys + 1] = meet('1:' .. cohort[1]) end
local own = meet('0:' .. caller)
keys[#keys + 1] = own
if restart then begin_anew(own) end
for _, one in ipairs(list(2)) do credit(keys, one[1], one[2]) end
for _, one in ipairs(list(3)) do
  if tonumber(one[2]) > tonumber(call('HGET', own, 'j:' .. one[1]) or '0') then
    call('HSET', own, 'j:' .. one[1], one[2])
    credit(keys, one[1], one[3])
  end
end
for _, one in ipairs(list(2)) do grow(one[1], one[2]) end
for _, one in ipairs(list(2)) do
  local number, cluster = tonumber(one[1]), tonumber(one[2])
  local seen, former = head(number, size)
  if seen then
    local change = (cluster ~= number and 1 or 0) - (former ~= number and 1 or 0)
    if change ~= 0 then call('HINCRBY', P .. ':n', 'joined', change) end
    write(one[1], 16, struct.pack('<d', cluster))
  end
end
local answered = list(2)
for _, one in ipairs(answered) do write(one[1], 24, struct.pack('<i4', tonumber(one[2]))) end
if #answered > 0 then
  for _, key in ipairs(keys) do call('HINCRBY', key, 'rows', #answered) end
  append(own)
end
if level ~= '' then call('HSET', own, 'level', level, 'until', until_s, 'acting', acting, 'held', held) end
expire_people()
while call('ZCARD', P .. ':s') > most do
  forget_person(call('ZRANGE', P .. ':s', 0, 0)[1])
  gone.callers = gone.callers + 1
end
for _, key in ipairs({ ':s', ':u', ':l' }) do long_lived(P .. key) end
call('EXPIRE', P .. ':n', string.format('%.0f', math.ceil(2 * life)))
return { gone.entries, gone.callers, gone.components }
