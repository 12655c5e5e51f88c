-- Free, dead, or handed over. The writes that can fail come before the lock itself, and leave nothing
-- behind when they do: a server that takes no writes refuses the first one, and a counter that cannot
-- be used is put back in the same atomic step.
local counter = KEYS[3]
local made = call('SET', index, lock, 'NX', 'PX', ttl)
-- The id was here before: in another lease of this key, or as something that is not ours.
if not made and redis.pcall('GET', index) ~= lock then
  return {err = 'SGINDEX the id key names another lock'}
end
local fence = redis.pcall('INCR', counter)
if type(fence) ~= 'number' then
  if made then call('DEL', index) end
  return fence
end
if fence < 1 or fence > @MAX_FENCE@ then
  call('DECR', counter)
  if made then call('DEL', index) end
  return {err = 'SGFENCE the fence counter is out of range'}
end
if not made then call('PEXPIRE', index, ttl) end
-- '%d' writes all digits of a number; Lua's own way rounds to 14 of them.
text = string.format('%s%015d","acquiredAtMs":%d,"expiresAtMs":%d}', head, fence, now, now + ttl)
call('SET', lock, text, 'PX', ttl)
