-- A live lease. $1 the key or the lock id.
SELECT user_key, lock_id, fence, acquired_at_ms, expires_at_ms
FROM {locks}
WHERE {by} = $1 AND expires_at_ms > {now} - 1000
