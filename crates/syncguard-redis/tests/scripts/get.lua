-- KEYS: lock. The record as it is stored, and the time: the caller judges both.
local text = redis.call('GET', KEYS[1])
if not text then return nil end
local time = redis.call('TIME')
return {text, time[1], time[2]}
