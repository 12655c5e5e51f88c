-- Ends a lease. $1 lock id, $2 'off' for a commit that need not be on disk before the answer: a
-- release that a crash undoes only means waiting for the TTL. $3 limit for the wait on a lock, in
-- ms. NULL leaves the caller's settings alone. One row if the lease was live.
--
-- Why this is atomic. `newest` waits for the row and locks it, and its newest version is judged at
-- the time after that, as in extend.sql: a lease that somebody renewed during the wait is live, and
-- one that died in it was not released.
WITH patience AS MATERIALIZED (
    SELECT CASE WHEN $3::bigint IS NOT NULL
        THEN set_config('lock_timeout', $3::bigint::text, true) END
),
newest AS MATERIALIZED (
    SELECT l.expires_at_ms FROM {locks} AS l, patience WHERE l.lock_id = $1 FOR UPDATE OF l
)
DELETE FROM {locks} AS l
USING newest
WHERE l.lock_id = $1 AND newest.expires_at_ms > {now} - 1000
RETURNING CASE WHEN $2::text IS NOT NULL THEN set_config('synchronous_commit', $2::text, true) END
