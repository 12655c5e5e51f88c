-- What is stored for a lock id, for a caller that knows nothing else.
-- KEYS: index. ARGV: id, prefix of all names, TTL in ms.
-- The name of the lock is known to the index alone, so it cannot be declared; in a cluster the hash
-- tag in the prefix keeps it on the same node.
local call, index = redis.call, KEYS[1]
local id, ttl = ARGV[1], ARGV[3]
local head
local lock = call('GET', index)
if not lock then return nil end
if string.sub(lock, 1, #ARGV[2]) ~= ARGV[2] then
  return {err = 'SGINDEX the id key does not name a lock'}
end
local time = call('TIME')
local now = time[1] * 1000 + time[2] / 1000
now = now - now % 1
local text, mine, digits, expires = call('GET', lock), false, nil, nil
