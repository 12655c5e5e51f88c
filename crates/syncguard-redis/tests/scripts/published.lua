-- KEYS: publication. Its fields as they are stored. The server removes it when it expires.
return redis.call('HMGET', KEYS[1], 'fence', 'candidate', 'value')
