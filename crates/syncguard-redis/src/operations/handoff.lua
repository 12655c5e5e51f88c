-- The caller's own live lease ends, and KEYS[4] becomes the index of the next one, whose head is
-- ARGV[3]. From here on it is a grant of a key that nobody holds.
if not (live and mine) then
  -- Sent again by the client, after it was carried out: what was granted then.
  if live and string.sub(text, 1, #ARGV[3]) == ARGV[3] then return text end
  return nil
end
local previous = index
index, head = KEYS[4], ARGV[3]
