-- The caller's own live lease: the expiry is replaced, everything else stays.
if live and mine then
  if record then
    record.expiresAtMs = now + ttl
    text = cjson.encode(record)
  else
    text = string.sub(text, 1, -#digits - 2) .. string.format('%d}', now + ttl)
  end
  call('SET', lock, text, 'PX', ttl)
  call('SET', index, lock, 'PX', ttl)
  return text
end
