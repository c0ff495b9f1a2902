-- What both scripts share. KEYS[1] is the model's prefix; every key is that and a suffix, so all are in one slot.
--   :n          hash    next, oldest, count: of the rows
--   :i:PAGE     string  64 buckets of the index; a bucket: 8 tags, then 8 row numbers modulo 2^32, the newest first
--   :r:PAGE     string  32 rows: number, seen, component (doubles), label (int32), owner (8), digest (8), position
--   :d:PAGE     hash    digest -> number
--   :c:NUMBER   string  a cluster: count, four log sums, rows (doubles), then its owners (8 each)
--   :p:KIND:WHO hash    a caller (0) or cohort (1): since, rows, level, until, acting, held, e:MONITOR,
--                      j:MONITOR; width, embedded
--   :q:WHO      string  his recent rows; those beyond the latest 256 are cut off now and then
--   :b:WHO      hash    his token buckets: NAME -> how much is used, as of when (doubles)
--   :t:WHO:TOKEN        that has come; a string that expires
--   :s, :u, :l  zset, zset, hash: who was seen when; whose recent rows grew when, and how many there are
local P = KEYS[1]
local ROW_PAGE, HEAD, RECENT = 32, 44, 256
local now, ttl, room = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local life = 2 * ttl  -- of keys, in the server's own seconds; what is older by `now` is forgotten before
local gone = { entries = 0, callers = 0, components = 0 }
local call = redis.call

local function long_lived(key) call('EXPIRE', key, string.format('%.0f', math.ceil(life))) end
local function text(number) return string.format('%.0f', number) end

local function row_place(number, size)
  local at = number % room
  return P .. ':r:' .. text(math.floor(at / ROW_PAGE)), (at % ROW_PAGE) * size
end

local function digest_page(digest)
  local value = struct.unpack('<I4', digest)
  return P .. ':d:' .. text(value % (math.floor(room / 64) + 1))
end

-- The head of the row, where it is there: seen, component, label, owner, digest.
local function head(number, size)
  local page, at = row_place(number, size)
  local data = call('GETRANGE', page, at, at + HEAD - 1)
  if #data < HEAD then return nil end
  local own, seen, component, label, owner, digest = struct.unpack('<dddi4c8c8', data)
  if own ~= number then return nil end
  return seen, component, label, owner, digest
end

local function forget_row(number, size)
  local seen, component, _, _, digest = head(number, size)
  if not seen then return end
  if component ~= number then call('HINCRBY', P .. ':n', 'joined', -1) end
  local page, at = row_place(number, size)
  call('SETRANGE', page, at, struct.pack('<d', 0))
  local known = digest_page(digest)
  if call('HGET', known, digest) == text(number) then call('HDEL', known, digest) end
  call('HINCRBY', P .. ':n', 'count', -1)
  gone.entries = gone.entries + 1
end

local function drop_ring(who)
  call('DEL', P .. ':q:' .. who)
  call('ZREM', P .. ':u', who)
  local rows = tonumber(call('HGET', P .. ':l', who) or '0')
  call('HDEL', P .. ':l', who)
  if rows > 0 then call('HINCRBY', P .. ':n', 'recent', -rows) end
end

local function forget_person(member)  -- KIND:WHO
  call('DEL', P .. ':p:' .. member)
  call('ZREM', P .. ':s', member)
  if string.sub(member, 1, 2) == '0:' then drop_ring(string.sub(member, 3)) end
end

local function expire_people()
  for _, member in ipairs(call('ZRANGEBYSCORE', P .. ':s', '-inf', '(' .. string.format('%.17g', now - ttl), 'LIMIT', 0, 100)) do
    forget_person(member)
    gone.callers = gone.callers + 1
  end
end
