-- The caller's own live lease ends. The fence counter stays.
if live and mine then
  call('DEL', lock, index)
  return 1
end
