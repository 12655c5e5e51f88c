-- KEYS: index, prefix of all names. As for a key, by way of the index.
-- No key has the name of the prefix. It is declared so that a cluster refuses the script (TRYAGAIN)
-- while the slot moves, when the lock may be on another node than the index.
local index, prefix = KEYS[1], KEYS[2]
local lock = redis.call('GET', index)
if not lock then return nil end
if string.sub(lock, 1, #prefix) ~= prefix then
  return {err = 'SGINDEX the id key does not name a lock'}
end
local text = redis.call('GET', lock)
if not text then return nil end
local time = redis.call('TIME')
return {text, time[1], time[2]}
