-- The server's time, in ms.
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
now = now - now % 1
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
-- Any other writing of a record: fields in another order, other escapes and number forms, fields
-- that are not ours. Only a live record must be readable: a dead one is overwritten.
local record
if text and not expires then
  local ok, value = pcall(cjson.decode, text)
  local ends = ok and type(value) == 'table' and value.expiresAtMs
  if type(ends) == 'number' and ends >= 0 and ends <= now - 1000 then
    expires = ends
  elseif type(ends) ~= 'number' or type(value.key) ~= 'string'
    or type(value.lockId) ~= 'string' or not string.find(value.lockId, '^[%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-]$')
    or type(value.fence) ~= 'string' or not string.find(value.fence, '^%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d$')
    or type(value.acquiredAtMs) ~= 'number'
    -- Also false for NaN, which the decoder accepts.
    or not (value.acquiredAtMs >= 0 and value.acquiredAtMs < 1e17)
    or not (ends >= 0 and ends < 1e17)
    -- It accepts a sign, leading zeros and hexadecimal digits as well, which other readers do not.
    or string.find(text, 'AtMs"%s*:%s*%+') or string.find(text, 'AtMs"%s*:%s*-?0[%dxX]')
  then
    return {err = 'SGRECORD the value under the lock key is no lock record'}
  else
    record, expires = value, ends
    mine = value.lockId == (id or string.sub(head, -33, -12))
  end
end
local live = expires and expires > now - 1000
-- The caller's own live lease ends. The fence counter stays.
-- ARGV[2] is the command that tells those who wait, on the channel with the name of the lock. Whether
-- the user may run it, and whether the server knows it, is nothing that the release depends on.
if live and mine then
  call('DEL', lock, index)
  if ARGV[2] ~= '' then redis.pcall(ARGV[2], lock, '') end
  return 1
end
