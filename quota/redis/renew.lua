-- One organization's lease of one node: FleetState::renew(), kept in Redis. What each step is for stands in
-- quota/fleet_state.cc; tests/quota/redis_script_test.cc holds both against each other.
--
-- KEYS: epoch; rl:{org}:daily, a hash of `day`, `now`, `hungry_until` and one record per node; rl:{org}:burst, a hash
--       of granted units by second; then a spend:{org}:... for each period that is sent, a hash of usage by node.
-- ARGV: as they are taken below (quota/redis/wire.cc writes them). -1 is "no limit"; usage is text, handed on as it
--       came: sums of nano-dollars would not be exact here.
local kDayUs = 86400 * 1000000
local kDailySeconds, kBurstSeconds = 2 * 86400, 120
local kBurstWindowSeconds = 60
local kBurstUnitsMax = 4294967295
local kGranted, kRepeated, kOlderBoot, kOtherDay = 0, 1, 2, 3

local clock_now = time_now(take())
local epoch, learning = enter_epoch(KEYS[1], take(), take_number(), clock_now)
local node, boot, seq = take(), take_number(), take_number()
local lease_us, hungry_us, slack_seconds = take_number(), take_number(), take_number()
local day, spent, keep = take_number(), take_number(), take_number()
local need, need_min, want, limit = take_number(), take_number(), take_number(), take_number()
local burst_want, burst_limit, burst_unused, burst_unused_second = take_number(), take_number(), take_number(),
  take_number()
if limit < 0 then limit = math.huge end
if burst_limit < 0 then burst_limit = math.huge end

-- The state of the day.
local records, dirty, nodes = {}, {}, 0
local today, hungry_until, now = -1, 0, clock_now
local stored = redis.call('HGETALL', KEYS[2])
for i = 1, #stored, 2 do
  local name, value = stored[i], stored[i + 1]
  if name == 'day' then
    today = tonumber(value)
  elseif name == 'hungry_until' then
    hungry_until = tonumber(value)
  elseif name == 'now' then
    -- A clock that was set back stands still: yesterday's quota is not handed out once more.
    now = math.max(now, tonumber(value))
  else
    local b, s, sp, h, e = string.match(value, '^(%d+) (%d+) (%-?%d+) (%-?%d+) (%d+)$')
    records[name] = {boot = tonumber(b), seq = tonumber(s), spent = tonumber(sp), held = tonumber(h),
      expires = tonumber(e)}
    nodes = nodes + 1
  end
end

local function record_of(name)
  if not records[name] then
    records[name] = {boot = 0, seq = 0, spent = 0, held = 0, expires = 0}
    nodes = nodes + 1
  end
  dirty[name] = true
  return records[name]
end

local function save()
  local fields = {'day', today, 'now', now, 'hungry_until', hungry_until}
  for name in pairs(dirty) do
    local r = records[name]
    fields[#fields + 1] = name
    fields[#fields + 1] = string.format('%d %d %d %d %d', r.boot, r.seq, r.spent, r.held, r.expires)
  end
  redis.call('HSET', KEYS[2], unpack(fields))
  redis.call('EXPIRE', KEYS[2], kDailySeconds)
end

if divide(now, kDayUs) ~= today then
  today = divide(now, kDayUs)
  hungry_until = 0
  for name, r in pairs(records) do
    if r.expires + kDayUs <= now then
      redis.call('HDEL', KEYS[2], name)
      records[name] = nil
      nodes = nodes - 1
    else
      r.spent, r.held = 0, 0
      dirty[name] = true
    end
  end
end
local day_left_us = (today + 1) * kDayUs - now

local own = record_of(node)
if boot < own.boot then
  save()
  return {kOlderBoot, own.boot, seq, today, day_left_us, epoch}
end
if boot == own.boot and seq <= own.seq then
  save()
  return {kRepeated, boot, seq, today, day_left_us, epoch}
end
if day ~= today then
  save()
  return {kOtherDay, boot, seq, today, day_left_us, epoch}
end
own.boot, own.seq, own.expires = boot, seq, now + lease_us
own.spent, own.held = spent, keep

-- Usage of the periods, and what others remember, are what is left of ARGV.
local usage = {}
for i = 4, #KEYS do
  redis.call('HSET', KEYS[i], node, take())
  redis.call('EXPIRE', KEYS[i], take())
  usage[#usage + 1] = redis.call('HGETALL', KEYS[i])
end
while last_argument < #ARGV do
  local name = take()
  local heard = {boot = take_number(), seq = take_number(), spent = take_number(), held = take_number(),
    expires = take_number()}
  if name ~= node then
    local known = record_of(name)
    if heard.boot > known.boot or (heard.boot == known.boot and heard.seq > known.seq) then records[name] = heard end
  end
end

-- Events of the day.
local charged_to_others, held_elsewhere, others = 0, 0, {}
for name, r in pairs(records) do
  if name ~= node then
    charged_to_others = charged_to_others + r.spent + r.held
    if r.expires > now then held_elsewhere = held_elsewhere + r.held end
    others[#others + 1] = {name, r.boot, r.seq, r.spent, r.held, r.expires}
  end
end
if not learning then
  local left = math.max(0, limit - charged_to_others - own.spent - own.held)
  local share = left
  if left ~= math.huge and nodes > 1 then share = divide(left, 2 * nodes) end
  local granted = math.min(left, want, math.max(need, share))
  if granted < need_min and held_elsewhere > 0 then granted = 0 end
  own.held = own.held + granted
  if granted < need then hungry_until = now + hungry_us end
end
local ceiling = own.spent + own.held
save()

-- Burst.
local second = divide(now, 1000000)
local oldest = second - kBurstWindowSeconds - slack_seconds
local used, of_this_second, first = 0, 0, nil
local granted_by_second = redis.call('HGETALL', KEYS[3])
for i = 1, #granted_by_second, 2 do
  local at, units = tonumber(granted_by_second[i]), tonumber(granted_by_second[i + 1])
  local had = units
  if at < oldest then
    units = 0
  elseif at == burst_unused_second then
    units = math.max(0, units - burst_unused)
  end
  if units == 0 then
    redis.call('HDEL', KEYS[3], at)
  else
    if units ~= had then redis.call('HSET', KEYS[3], at, units) end
    used = used + units
    if at == second then of_this_second = units end
    first = math.min(first or at, at)
  end
end
local burst_left = math.max(0, burst_limit - used)
local burst_granted = math.min(burst_left, burst_want)
if burst_granted > 0 then
  redis.call('HSET', KEYS[3], second, math.min(of_this_second + burst_granted, kBurstUnitsMax))
  redis.call('EXPIRE', KEYS[3], kBurstSeconds)
  first = first or second
end
burst_left = burst_left == math.huge and -1 or burst_left - burst_granted
local burst_wait_us = first and (first + kBurstWindowSeconds + slack_seconds + 1) * 1000000 - now or 0

return {kGranted, boot, seq, today, day_left_us, epoch, ceiling, charged_to_others + ceiling, held_elsewhere,
  now < hungry_until and 1 or 0, learning and 1 or 0, burst_granted, second, burst_left, burst_wait_us, others, usage}
