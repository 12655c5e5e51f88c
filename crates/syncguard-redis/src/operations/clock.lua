-- The server's time, in ms.
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
now = now - now % 1
