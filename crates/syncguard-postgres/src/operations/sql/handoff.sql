-- Ends a lease and grants its key to another id. $1 its lock id, $2 the new lock id, $3 TTL in ms,
-- $4 limit for each wait on a lock, in ms, $5 the key: see operations.rs. One row if the old lease was
-- live: what was granted, or nothing where the fences are used up.
--
-- Why this is atomic. It is a grant, so it holds the advisory lock of the key, as every grant does,
-- and it ends a lease, which is judged as in extend.sql: its newest version, at a time after all
-- waits. The row never goes away, so nobody finds the key free in between, and the other client's
-- acquire, which overwrites what it has read without a lock, waits at the advisory lock.
--
-- Nobody can deadlock with it. An acquire takes the advisory lock and then the counter and the row;
-- here it is the advisory lock first, too. A release, and the other client's extend and release, have
-- the row alone and wait for nothing else.
WITH patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', $4::bigint::text, true)
),
turn AS MATERIALIZED (
    SELECT pg_advisory_xact_lock(hashtext(key)) FROM patience, {locks} AS l WHERE {the_lease}
),
newest AS MATERIALIZED (
    SELECT l.key, l.expires_at_ms FROM {locks} AS l, turn WHERE {the_lease} FOR UPDATE OF l
),
instant AS MATERIALIZED (
    SELECT {now} AS now_ms, key, expires_at_ms FROM newest
),
live AS MATERIALIZED (
    SELECT now_ms, key FROM instant WHERE expires_at_ms > now_ms - 1000
),
counter AS (
    INSERT INTO {fences} AS f (fence_key, fence, key_debug)
    SELECT 'fence:' || key, 1, key FROM live
    ON CONFLICT (fence_key) DO UPDATE SET fence = f.fence + 1
    WHERE f.fence BETWEEN 0 AND {max_fence} - 1
    RETURNING fence
),
granted AS (
    UPDATE {locks} AS l
    SET lock_id = $2, expires_at_ms = live.now_ms + $3::bigint, acquired_at_ms = live.now_ms,
        fence = lpad(counter.fence::text, 15, '0')
    FROM live, counter
    WHERE {the_lease}
    RETURNING l.fence, l.expires_at_ms
)
SELECT granted.fence, granted.expires_at_ms FROM live LEFT JOIN granted ON true
