-- The caller's own live lease ends. The fence counter stays.
-- ARGV[2] is the command that tells those who wait, on the channel with the name of the lock. Whether
-- the user may run it, and whether the server knows it, is nothing that the release depends on.
if live and mine then
  call('DEL', lock, index)
  if ARGV[2] ~= '' then redis.pcall(ARGV[2], lock, '') end
  return 1
end
