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
-- The caller's own live lease: the expiry is replaced, everything else stays.
-- PEXPIRE comes first because a server that is out of memory allows it, and then allows the SET of
-- the same script. A SET that came first would be refused, and the lease would end.
-- The encoder rounds numbers to 14 digits: an expiry of 1e14 ms and above, after the year 5138, to
-- 10 ms and more. No TTL below 3,100 years comes there.
if live and mine then
  if record then
    record.expiresAtMs = now + ttl
    text = cjson.encode(record)
  else
    text = string.sub(text, 1, -#digits - 2) .. string.format('%d}', now + ttl)
  end
  call('PEXPIRE', lock, ttl)
  call('SET', lock, text, 'PX', ttl)
  if call('PEXPIRE', index, ttl) == 0 then call('SET', index, lock, 'PX', ttl) end
  return text
end
