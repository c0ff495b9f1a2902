-- ARGV: now, ttl, room, force, caller; then four a bucket: name, rate, burst, cost. Replies with the waits, as doubles.
-- guard/stores/buckets.py, step by step.
local SKEW, LEAST, NEAR, SLACK = 10, 1e-6, 1e-6, 60
local force, key = ARGV[4] == '1', P .. ':b:' .. ARGV[5]
local buckets, waits, taken = {}, {}, true

for i = 6, #ARGV, 4 do
  local one = { name = ARGV[i], rate = tonumber(ARGV[i + 1]), burst = tonumber(ARGV[i + 2]), cost = tonumber(ARGV[i + 3]) }
  local used, at = 0, now
  local known = call('HGET', key, one.name)
  if known then used, at = struct.unpack('<dd', known) end
  if at - now > SKEW then at = now end
  one.used = math.max(0, math.min(used, 2 * one.burst) - math.max(0, now - at) * one.rate)
  one.at = math.max(at, now)
  local wait = math.huge
  if one.cost <= one.burst then
    wait = (one.used + (one.cost > 0 and one.cost or LEAST * one.burst) - one.burst) / one.rate
    wait = wait <= NEAR and 0 or wait + (one.at - now)
  end
  taken = taken and wait == 0
  buckets[#buckets + 1] = one
  waits[#waits + 1] = struct.pack('<d', wait)
end

local full = 0  -- in seconds
for _, one in ipairs(buckets) do
  local used = (taken or force) and math.min(one.used + one.cost, 2 * one.burst) or one.used
  if used > 0 then
    call('HSET', key, one.name, struct.pack('<dd', used, one.at))
    full = math.max(full, one.at - now + used / one.rate)
  end
end
if full > 0 then
  local seconds = string.format('%.0f', math.min(math.ceil(full) + SLACK, 1e9))
  call('EXPIRE', key, seconds, 'NX')
  call('EXPIRE', key, seconds, 'GT')  -- other buckets may take longer
end
return table.concat(waits)
