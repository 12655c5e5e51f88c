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
