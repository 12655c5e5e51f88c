-- Somebody else's: how long, in ms, until the key can be free. The server removes it at its expiry;
-- one that it left standing is live for the tolerance. Rounded up, since the answer has no fraction
-- and is never 0.
if live and not mine then
  local left = expires - now
  if left <= 0 then left = left + @TOLERANCE_MS@ end
  return math.ceil(left)
end
