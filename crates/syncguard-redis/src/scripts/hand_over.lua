-- The caller's own live lease ends, and KEYS[4] becomes the index of the next one, whose head is
-- ARGV[3]. From here on it is a grant of a key that nobody holds.
if not (live and mine) then return nil end
local previous = index
index, head = KEYS[4], ARGV[3]
