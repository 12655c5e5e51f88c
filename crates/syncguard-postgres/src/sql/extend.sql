-- Renews a lease. $1 lock id, $2 TTL in ms, $3 limit for each wait on a lock. One row if it is live.
--
-- Why this is atomic. The update waits for and locks the row, and tests the newest version of it
-- against the id. A row of another acquisition, or a new row in place of a deleted one, never has
-- this id. The advisory lock is for the other client, whose acquire reads the row without a lock and
-- then overwrites it: without it, both could win in the last second of a lease. The key of an id
-- never changes, so it may come from the snapshot.
WITH patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', $3::text, true)
),
turn AS MATERIALIZED (
    SELECT pg_advisory_xact_lock(hashtext(key)) FROM patience, {locks} WHERE lock_id = $1
),
instant AS MATERIALIZED (
    SELECT {now} AS now_ms FROM turn
)
UPDATE {locks} AS l
SET expires_at_ms = instant.now_ms + $2::bigint
FROM instant
WHERE l.lock_id = $1 AND l.expires_at_ms > instant.now_ms - 1000
RETURNING l.user_key, l.fence, l.expires_at_ms
