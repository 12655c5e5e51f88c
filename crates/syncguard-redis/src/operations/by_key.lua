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
      '^@FENCE@","acquiredAtMs":([1-9]%d+),"expiresAtMs":([1-9]%d+)}$', length + 1)
  else
    length = length - 33 -- the id, and '","fence":"'
    if string.sub(text, 1, length) == string.sub(head, 1, length) then
      acquired, digits = string.match(text,
        '^@ID@","fence":"@FENCE@","acquiredAtMs":([1-9]%d+),"expiresAtMs":([1-9]%d+)}$', length + 1)
    end
  end
  if digits and (#acquired > 16 or #digits > 16) then digits = nil end
end
local expires = digits and tonumber(digits)
