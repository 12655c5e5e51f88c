-- Any other writing of a record: fields in another order, other escapes and number forms, fields
-- that are not ours. Only a live record must be readable: a dead one is overwritten.
local record
if text and not expires then
  local ok, value = pcall(cjson.decode, text)
  local ends = ok and type(value) == 'table' and value.expiresAtMs
  if type(ends) == 'number' and ends >= 0 and ends <= now - @TOLERANCE_MS@ then
    expires = ends
  elseif type(ends) ~= 'number' or type(value.key) ~= 'string'
    or type(value.lockId) ~= 'string' or not string.find(value.lockId, '^@ID@$')
    or type(value.fence) ~= 'string' or not string.find(value.fence, '^@FENCE@$')
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
local live = expires and expires > now - @TOLERANCE_MS@
