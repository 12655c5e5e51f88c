-- Ends the script if the publication has a higher fence than the caller's.
-- KEYS: publication. ARGV: fence. Anything else that is stored there has no fence, and gives way.
local stored = redis.pcall('HMGET', KEYS[1], 'fence')
if stored.err and not string.find(stored.err, 'WRONGTYPE', 1, true) then return stored end
local fence = stored[1]
local is_fence = fence and string.find(fence, '^%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d$')
if is_fence and tonumber(fence) > tonumber(ARGV[1]) then return nil end
-- ARGV[2..4]: candidate, value, TTL in ms. Answers with 1.
-- DEL comes first because a server that is out of memory allows it, and then allows the HSET of the
-- same script: a leader that renews its lease publishes again.
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'fence', ARGV[1], 'candidate', ARGV[2], 'value', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
