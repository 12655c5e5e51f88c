-- The server's time, in ms.
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
now = now - now % 1
local function run(name, key, arg)
if name == 'acquire' then
-- What is stored under a key that the caller names.
-- KEYS: lock, index (and fence counter). ARGV: head, then TTL in ms, but for a release.
-- `head` is the record of the caller up to its fence: {"key":"..","lockId":"..","fence":"
local call, lock, index = redis.call, KEYS[key], KEYS[key + 1]
local head, ttl = ARGV[arg + 1], ARGV[arg + 2]
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
-- Somebody else's: how long, in ms, until the key can be free. The server removes it at its expiry;
-- one that it left standing is live for the tolerance. Rounded up, since the answer has no fraction
-- and is never 0.
if live and not mine then
  local left = expires - now
  if left <= 0 then left = left + 1000 end
  return math.ceil(left)
end
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
-- Free, dead, or handed over. The writes that can fail come before the lock itself, and leave nothing
-- behind when they do: a server that takes no writes refuses the first one, and a counter that cannot
-- be used is put back in the same atomic step.
local counter = KEYS[key + 2]
local made = call('SET', index, lock, 'NX', 'PX', ttl)
-- The id was here before: in another lease of this key, or as something that is not ours.
if not made and redis.pcall('GET', index) ~= lock then
  return {err = 'SGINDEX the id key names another lock'}
end
local fence = redis.pcall('INCR', counter)
if type(fence) ~= 'number' then
  if made then call('DEL', index) end
  return fence
end
if fence < 1 or fence > 900000000000000 then
  call('DECR', counter)
  if made then call('DEL', index) end
  return {err = 'SGFENCE the fence counter is out of range'}
end
if not made then call('PEXPIRE', index, ttl) end
-- '%d' writes all digits of a number; Lua's own way rounds to 14 of them.
text = string.format('%s%015d","acquiredAtMs":%d,"expiresAtMs":%d}', head, fence, now, now + ttl)
call('SET', lock, text, 'PX', ttl)
return text
end
if name == 'extend' then
-- What is stored under a key that the caller names.
-- KEYS: lock, index (and fence counter). ARGV: head, then TTL in ms, but for a release.
-- `head` is the record of the caller up to its fence: {"key":"..","lockId":"..","fence":"
local call, lock, index = redis.call, KEYS[key], KEYS[key + 1]
local head, ttl = ARGV[arg + 1], ARGV[arg + 2]
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
end
if name == 'handoff' then
-- What is stored under a key that the caller names.
-- KEYS: lock, index (and fence counter). ARGV: head, then TTL in ms, but for a release.
-- `head` is the record of the caller up to its fence: {"key":"..","lockId":"..","fence":"
local call, lock, index = redis.call, KEYS[key], KEYS[key + 1]
local head, ttl = ARGV[arg + 1], ARGV[arg + 2]
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
-- The caller's own live lease ends, and KEYS[key + 3] becomes the index of the next one, whose head is
-- ARGV[arg + 3]. From here on it is a grant of a key that nobody holds.
if not (live and mine) then
  -- Sent again by the client, after it was carried out: what was granted then.
  if live and string.sub(text, 1, #ARGV[arg + 3]) == ARGV[arg + 3] then return text end
  return nil
end
local previous = index
index, head = KEYS[key + 3], ARGV[arg + 3]
-- Free, dead, or handed over. The writes that can fail come before the lock itself, and leave nothing
-- behind when they do: a server that takes no writes refuses the first one, and a counter that cannot
-- be used is put back in the same atomic step.
local counter = KEYS[key + 2]
local made = call('SET', index, lock, 'NX', 'PX', ttl)
-- The id was here before: in another lease of this key, or as something that is not ours.
if not made and redis.pcall('GET', index) ~= lock then
  return {err = 'SGINDEX the id key names another lock'}
end
local fence = redis.pcall('INCR', counter)
if type(fence) ~= 'number' then
  if made then call('DEL', index) end
  return fence
end
if fence < 1 or fence > 900000000000000 then
  call('DECR', counter)
  if made then call('DEL', index) end
  return {err = 'SGFENCE the fence counter is out of range'}
end
if not made then call('PEXPIRE', index, ttl) end
-- '%d' writes all digits of a number; Lua's own way rounds to 14 of them.
text = string.format('%s%015d","acquiredAtMs":%d,"expiresAtMs":%d}', head, fence, now, now + ttl)
call('SET', lock, text, 'PX', ttl)
-- Only now, since a grant that failed has left the lease that was there.
if previous ~= index then call('DEL', previous) end
return text
end
if name == 'release' then
-- What is stored under a key that the caller names.
-- KEYS: lock, index (and fence counter). ARGV: head, then TTL in ms, but for a release.
-- `head` is the record of the caller up to its fence: {"key":"..","lockId":"..","fence":"
local call, lock, index = redis.call, KEYS[key], KEYS[key + 1]
local head, ttl = ARGV[arg + 1], ARGV[arg + 2]
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
-- The caller's own live lease ends. The fence counter stays.
-- ARGV[arg + 2] is the command that tells those who wait, on the channel with the name of the lock. Whether
-- the user may run it, and whether the server knows it, is nothing that the release depends on.
if live and mine then
  call('DEL', lock, index)
  if ARGV[arg + 2] ~= '' then redis.pcall(ARGV[arg + 2], lock, '') end
  return 1
end
end
if name == 'extend_by_id' then
-- What is stored for a lock id, for a caller that knows nothing else.
-- KEYS: index, prefix of all names. ARGV: id, then TTL in ms, but for a release.
-- The name of the lock is known to the index alone, so it cannot be declared; in a cluster the hash
-- tag in the prefix keeps it in the same slot. While that slot moves, the lock may be on another
-- node than the index. So the prefix is declared as a key: no key has this name, and a cluster
-- refuses (TRYAGAIN) a script of several keys, one of which is missing, until the slot has moved.
local call, index, prefix = redis.call, KEYS[key], KEYS[key + 1]
local id, ttl = ARGV[arg + 1], ARGV[arg + 2]
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
end
if name == 'release_by_id' then
-- What is stored for a lock id, for a caller that knows nothing else.
-- KEYS: index, prefix of all names. ARGV: id, then TTL in ms, but for a release.
-- The name of the lock is known to the index alone, so it cannot be declared; in a cluster the hash
-- tag in the prefix keeps it in the same slot. While that slot moves, the lock may be on another
-- node than the index. So the prefix is declared as a key: no key has this name, and a cluster
-- refuses (TRYAGAIN) a script of several keys, one of which is missing, until the slot has moved.
local call, index, prefix = redis.call, KEYS[key], KEYS[key + 1]
local id, ttl = ARGV[arg + 1], ARGV[arg + 2]
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
-- ARGV[arg + 2] is the command that tells those who wait, on the channel with the name of the lock. Whether
-- the user may run it, and whether the server knows it, is nothing that the release depends on.
if live and mine then
  call('DEL', lock, index)
  if ARGV[arg + 2] ~= '' then redis.pcall(ARGV[arg + 2], lock, '') end
  return 1
end
end
if name == 'get' then
-- KEYS: lock. The record as it is stored, and the time: the caller judges both.
local text = redis.call('GET', KEYS[key])
if not text then return nil end
local time = redis.call('TIME')
return {text, time[1], time[2]}
end
if name == 'find' then
-- KEYS: index, prefix of all names. As for a key, by way of the index.
-- No key has the name of the prefix. It is declared so that a cluster refuses the script (TRYAGAIN)
-- while the slot moves, when the lock may be on another node than the index.
local index, prefix = KEYS[key], KEYS[key + 1]
local lock = redis.call('GET', index)
if not lock then return nil end
if string.sub(lock, 1, #prefix) ~= prefix then
  return {err = 'SGINDEX the id key does not name a lock'}
end
local text = redis.call('GET', lock)
if not text then return nil end
local time = redis.call('TIME')
return {text, time[1], time[2]}
end
if name == 'publish' then
-- Ends the script if the publication has a higher fence than the caller's.
-- KEYS: publication. ARGV: fence. Anything else that is stored there has no fence, and gives way.
local stored = redis.pcall('HMGET', KEYS[key], 'fence')
if stored.err and not string.find(stored.err, 'WRONGTYPE', 1, true) then return stored end
local fence = stored[1]
local is_fence = fence and string.find(fence, '^%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d$')
if is_fence and tonumber(fence) > tonumber(ARGV[arg + 1]) then return nil end
-- ARGV[2..4]: candidate, value, TTL in ms. Answers with 1.
-- DEL comes first because a server that is out of memory allows it, and then allows the HSET of the
-- same script: a leader that renews its lease publishes again.
redis.call('DEL', KEYS[key])
redis.call('HSET', KEYS[key], 'fence', ARGV[arg + 1], 'candidate', ARGV[arg + 2], 'value', ARGV[arg + 3])
redis.call('PEXPIRE', KEYS[key], ARGV[arg + 4])
return 1
end
if name == 'withdraw' then
-- Ends the script if the publication has a higher fence than the caller's.
-- KEYS: publication. ARGV: fence. Anything else that is stored there has no fence, and gives way.
local stored = redis.pcall('HMGET', KEYS[key], 'fence')
if stored.err and not string.find(stored.err, 'WRONGTYPE', 1, true) then return stored end
local fence = stored[1]
local is_fence = fence and string.find(fence, '^%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d$')
if is_fence and tonumber(fence) > tonumber(ARGV[arg + 1]) then return nil end
redis.call('DEL', KEYS[key])
end
if name == 'published' then
-- KEYS: publication. Its fields as they are stored. The server removes it when it expires.
return redis.call('HMGET', KEYS[key], 'fence', 'candidate', 'value')
end
end
local keys = {acquire = 3, extend = 2, handoff = 4, release = 2, extend_by_id = 2, release_by_id = 2, get = 1, find = 2, publish = 1, withdraw = 1, published = 1}
local args = {acquire = 2, extend = 2, handoff = 3, release = 2, extend_by_id = 2, release_by_id = 2, get = 0, find = 0, publish = 4, withdraw = 1, published = 0}
-- Many operations in one call, each as if it were alone. KEYS: those of all operations in turn. ARGV:
-- for each operation its name and its arguments.
-- Answers, for each operation in turn, with 0 and its answer, or with 1 and its error: one that fails
-- must not undo or cut off the others.
local answers, count, key, arg = {}, 0, 1, 1
while ARGV[arg] do
  local name = ARGV[arg]
  local next_key, next_arg = key + keys[name], arg + args[name] + 1
  local ok, answer = pcall(run, name, key, arg)
  -- Redis 6 reports an error as text, later ones as a table, as the operations do.
  local failed = not ok
  if type(answer) == 'table' and answer.err then failed, answer = true, answer.err end
  answers[count + 1] = failed and 1 or 0
  -- A nil would end the list.
  answers[count + 2] = answer or false
  count, key, arg = count + 2, next_key, next_arg
end
return answers
