-- ARGV[2..4]: candidate, value, TTL in ms. Answers with 1.
-- DEL comes first because a server that is out of memory allows it, and then allows the HSET of the
-- same script: a leader that renews its lease publishes again.
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'fence', ARGV[1], 'candidate', ARGV[2], 'value', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
