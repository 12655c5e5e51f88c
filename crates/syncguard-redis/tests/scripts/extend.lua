-- The server's time, in ms.
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
now = now - now % 1
-- What is stored under a key that the caller names.
-- KEYS: lock, index (and fence counter). ARGV: head, then TTL in ms, but for a release.
-- `head` is the record of the caller up to its fence: {"key":"..","lockId":"..","fence":"
local call, lock, index = redis.call, KEYS[1], KEYS[2]
local head, ttl = ARGV[1], ARGV[2]
local id -- stands in the head

-- The usual writing is read without decoding it. That is right because every byte of the text is
-- compared: the head with what this caller would write, the rest with an anchored pattern. Any
-- other text is left to the decoder, and so are times of more than 16 digits. `digits` are those of
-- the expiry, at the end of the text.
local text, mine, digits = call('GET', lock), false, nil
if text then
  local length, acquired = #head, nil
  mine = string.sub(text, 1, length) == head
  if mine then
    acquired, digits = string.match(text,
      '^%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d","acquiredAtMs":([1-9]%d+),"expiresAtMs":([1-9]%d+)}$', length + 1)
  else
    length = length - 33 -- the id, and '","fence":"'
    if string.sub(text, 1, length) == string.sub(head, 1, length) then
      acquired, digits = string.match(text,
        '^[%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-][%w_-]","fence":"%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d","acquiredAtMs":([1-9]%d+),"expiresAtMs":([1-9]%d+)}$', length + 1)
    end
  end
  if digits and (#acquired > 16 or #digits > 16) then digits = nil end
end
local expires = digits and tonumber(digits)
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
-- The index may be missing, but it may not hold anything else: then nothing is changed.
if live and mine then
  local name = call('GET', index)
  if name and name ~= lock then
    return {err = 'SGINDEX the id key names another lock'}
  end
end
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
