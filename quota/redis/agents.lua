-- Places of one organization's agents (contract/agentkavach.md 2.7): who was seen in the last 24 hours has one, a new
-- name gets one while there are fewer than the cap.
--
-- KEYS: epoch; agents:{org}, a sorted set of agents by when each was last seen.
-- ARGV: as they are taken below; then for each agent its fingerprint and how long ago it was seen. -1 is "no cap".
-- Answers whether it is learning, the epoch, and one character per agent: 1 for those that have a place.
local kActiveUs = 86400 * 1000000
local kAgentsSeconds = 25 * 3600

local now = time_now(take())
local epoch, learning = enter_epoch(KEYS[1], take(), take_number(), now)
local agents_max, restate = take_number(), take() == '1'
if agents_max < 0 then agents_max = math.huge end

redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - kActiveUs)
local count = redis.call('ZCARD', KEYS[2])
local places = {}
while last_argument < #ARGV do
  local agent, seen = take(), now - take_number()
  local known = redis.call('ZSCORE', KEYS[2], agent)
  -- One who had a place before a loss of data keeps it, whatever the count.
  local has_place = known or (seen > now - kActiveUs and (restate or (not learning and count < agents_max)))
  if has_place and not known then count = count + 1 end
  if has_place and (not known or seen > tonumber(known)) then redis.call('ZADD', KEYS[2], seen, agent) end
  places[#places + 1] = has_place and '1' or '0'
end
if count > 0 then redis.call('EXPIRE', KEYS[2], kAgentsSeconds) end
return {learning and 1 or 0, epoch, table.concat(places)}
