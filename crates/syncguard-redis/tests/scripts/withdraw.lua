-- Ends the script if the publication has a higher fence than the caller's.
-- KEYS: publication. ARGV: fence. Anything else that is stored there has no fence, and gives way.
local stored = redis.pcall('HMGET', KEYS[1], 'fence')
if stored.err and not string.find(stored.err, 'WRONGTYPE', 1, true) then return stored end
local fence = stored[1]
local is_fence = fence and string.find(fence, '^%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d$')
if is_fence and tonumber(fence) > tonumber(ARGV[1]) then return nil end
redis.call('DEL', KEYS[1])
