-- Renews a lease. $1 lock id, $2 TTL in ms, $3 limit for each wait on a lock, in ms, $4 the key, if it
-- is known. {turn} and {lock_the_row} wait for others, or find no lease
-- if somebody has locked it: see operations.rs. One row if it is live.
--
-- Why this is atomic. The lease is judged only when nothing can change any more: `newest` waits for
-- the row, locks it and reads its newest version, whatever the snapshot says of it, and the clock is
-- read after that. So what others did to the lease during the wait counts, and what they undid does
-- not, and a lease that died meanwhile stays dead. A row of another acquisition, or a new row in
-- place of a deleted one, never has this id.
--
-- The advisory lock is for the other client, whose acquire reads the row without a lock and then
-- overwrites it: without it, both could win in the last second of a lease. The key of an id never
-- changes, so it may come from the snapshot.
WITH patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', $3::bigint::text, true)
),
turn AS MATERIALIZED (
    {turn}
),
newest AS MATERIALIZED (
    SELECT l.expires_at_ms FROM {locks} AS l, turn WHERE {the_lease} {lock_the_row}
),
instant AS MATERIALIZED (
    SELECT {now} AS now_ms, expires_at_ms FROM newest
)
UPDATE {locks} AS l
SET expires_at_ms = instant.now_ms + $2::bigint
FROM instant
WHERE {the_lease} AND instant.expires_at_ms > instant.now_ms - 1000
RETURNING l.user_key, l.fence, l.expires_at_ms
