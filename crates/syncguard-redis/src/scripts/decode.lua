-- Any other writing of a record: fields in another order, other escapes and number forms, fields
-- that are not ours.
local record
if text and not expires then
  local ok, value = pcall(cjson.decode, text)
  if not ok or type(value) ~= 'table' or type(value.key) ~= 'string'
    or type(value.lockId) ~= 'string' or not string.find(value.lockId, '^@ID@$')
    or type(value.fence) ~= 'string' or not string.find(value.fence, '^@FENCE@$')
    or type(value.acquiredAtMs) ~= 'number' or type(value.expiresAtMs) ~= 'number'
    -- Also false for NaN, which the decoder accepts.
    or not (value.acquiredAtMs >= 0 and value.acquiredAtMs < 1e17)
    or not (value.expiresAtMs >= 0 and value.expiresAtMs < 1e17)
    -- It accepts a sign, leading zeros and hexadecimal digits as well, which other readers do not.
    or string.find(text, 'AtMs"%s*:%s*%+') or string.find(text, 'AtMs"%s*:%s*-?0[%dxX]')
  then
    return {err = 'SGRECORD the value under the lock key is no lock record'}
  end
  record, expires = value, value.expiresAtMs
  mine = value.lockId == (id or string.sub(head, -33, -12))
end
local live = expires and expires > now - @TOLERANCE_MS@
