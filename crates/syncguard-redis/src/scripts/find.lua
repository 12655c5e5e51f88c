-- KEYS: index. ARGV: prefix of all names. As for a key, by way of the index.
local lock = redis.call('GET', KEYS[1])
if not lock then return nil end
if string.sub(lock, 1, #ARGV[1]) ~= ARGV[1] then
  return {err = 'SGINDEX the id key does not name a lock'}
end
local text = redis.call('GET', lock)
if not text then return nil end
local time = redis.call('TIME')
return {text, time[1], time[2]}
