-- How both scripts begin: their arguments, the time, and the fleet's epoch (quota/DESIGN.md).
--
-- Numbers are doubles: exact up to 2^53, which microseconds since 1970 and the counts of a day stay below.
local last_argument = 0
local function take()
  last_argument = last_argument + 1
  return ARGV[last_argument]
end
local function take_number()
  return tonumber(take())
end

-- Whole numbers, a >= 0; `/` alone may round up.
local function divide(a, b)
  return (a - math.fmod(a, b)) / b
end

-- Redis's own clock is the fleet's. Tests bring another; in production the argument is empty.
local function time_now(test_clock)
  if test_clock ~= '' then return tonumber(test_clock) end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- EpochClock (quota/fleet_state.h). It is another epoch when the server was started again or has lost its data; then
-- nothing new is leased until the nodes have had time to restate what they hold.
local kEpochSeconds = 400 * 86400
local kLearnStepUs = 200000

local function enter_epoch(key, run_id, learn_us, now)
  local known = redis.call('HMGET', key, 'run_id', 'number', 'learned_us', 'latest')
  local number, learned_us = tonumber(known[2]) or 0, tonumber(known[3]) or 0
  if known[1] ~= run_id then
    -- A number from the clock differs from all that were before a loss.
    number, learned_us = math.max(number + 1, now), 0
    redis.call('HSET', key, 'run_id', run_id, 'number', number, 'learned_us', 0, 'latest', now)
  elseif learned_us < learn_us then
    learned_us = learned_us + math.max(0, math.min(now - tonumber(known[4]), kLearnStepUs))
    redis.call('HSET', key, 'learned_us', learned_us, 'latest', now)
  end
  if redis.call('TTL', key) < kEpochSeconds - 86400 then redis.call('EXPIRE', key, kEpochSeconds) end
  return number, learned_us < learn_us
end
