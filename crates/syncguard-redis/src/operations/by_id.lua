-- What is stored for a lock id, for a caller that knows nothing else.
-- KEYS: index, prefix of all names. ARGV: id, then TTL in ms, but for a release.
-- The name of the lock is known to the index alone, so it cannot be declared; in a cluster the hash
-- tag in the prefix keeps it in the same slot. While that slot moves, the lock may be on another
-- node than the index. So the prefix is declared as a key: no key has this name, and a cluster
-- refuses (TRYAGAIN) a script of several keys, one of which is missing, until the slot has moved.
local call, index, prefix = redis.call, KEYS[1], KEYS[2]
local id, ttl = ARGV[1], ARGV[2]
local head
local lock = call('GET', index)
if not lock then return nil end
if string.sub(lock, 1, #prefix) ~= prefix then
  return {err = 'SGINDEX the id key does not name a lock'}
end
local text, mine, digits, expires = call('GET', lock), false, nil, nil
