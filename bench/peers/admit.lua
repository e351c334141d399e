-- Decides on a batch: limits, agents and idempotency keys, atomically and in one round trip.
--
-- KEYS  events of the day, events of the minute, agents by when they were last seen, killed agents, dollars spent,
--       idempotency keys of this week, those of the week before
-- ARGV  now (s), events, events a day, events a minute, agents, dollars, how many groups follow; then of each group,
--       the events of one agent: name, how many have no key, how many keys, keys. A limit that is "" is none.
-- Returns {"ok", names of rejected agents, duplicate keys, events to be written}, or {name of the limit, its use}.
local day, minute, agents, killed, spend, current, previous = unpack(KEYS)
local now, events = tonumber(ARGV[1]), tonumber(ARGV[2])

local function used_up(key, limit, more)
  if limit == '' then return false end
  local used = tonumber(redis.call('GET', key) or '0')
  return used + more > tonumber(limit) and tostring(used)
end

local used = used_up(day, ARGV[3], events)
if used then return {'daily_limit', used} end
used = used_up(minute, ARGV[4], events)
if used then return {'burst', used} end
used = used_up(spend, ARGV[6], 0)
if used then return {'org_budget_exceeded', used} end

local rejected, duplicates, taken = {}, {}, 0
redis.call('ZREMRANGEBYSCORE', agents, '-inf', now - 86400)
local at = 8
for _ = 1, tonumber(ARGV[7]) do
  local name, keyless, keys = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local first, last = at + 3, at + 2 + keys
  at = last + 1
  local full = ARGV[5] ~= '' and redis.call('ZCARD', agents) >= tonumber(ARGV[5])
  if redis.call('SISMEMBER', killed, name) == 1 or (full and not redis.call('ZSCORE', agents, name)) then
    rejected[#rejected + 1] = name
  else
    taken = taken + keyless
    redis.call('ZADD', agents, now, name)
    if keys > 0 then
      local here = redis.call('SMISMEMBER', current, unpack(ARGV, first, last))
      local before = redis.call('SMISMEMBER', previous, unpack(ARGV, first, last))
      redis.call('SADD', current, unpack(ARGV, first, last))
      for i = 1, keys do
        if here[i] == 1 or before[i] == 1 then
          duplicates[#duplicates + 1] = ARGV[first + i - 1]
        else
          taken = taken + 1
        end
      end
    end
  end
end
redis.call('EXPIRE', current, 14 * 86400)

if taken > 0 then
  redis.call('INCRBY', day, taken)
  redis.call('EXPIRE', day, 86400)
  if redis.call('INCRBY', minute, taken) == taken then redis.call('EXPIRE', minute, 60) end
end
return {'ok', rejected, duplicates, taken}
