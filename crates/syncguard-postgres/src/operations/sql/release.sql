-- Ends a lease, and notifies the waiters for its key. $1 lock id, $2 'off' for a commit that need
-- not be on disk before the answer: a release that a crash undoes only means waiting for the TTL.
-- $3 limit for the wait on a lock, in ms. NULL leaves the caller's settings alone. $4 the key, if
-- it is known: see operations.rs. {lock_the_row} waits for the row, or finds none if somebody has locked
-- it: see there too. One row if the lease was live.
--
-- Why this is atomic. `newest` waits for the row and locks it, and its newest version is judged at
-- the time after that, as in extend.sql: a lease that somebody renewed during the wait is live, and
-- one that died in it was not released.
--
-- Why it misses no waiter, although it notifies only if there are waiters: see notifications.rs.
-- The pg_try_advisory_xact_lock does not wait, and a lock that it takes is held until the commit.
--
-- Why it sends nothing while the server's notification queue is nearly full. One session that
-- listens and sits idle in a transaction lets the queue fill up. If it is full, the commit of a
-- NOTIFY fails, and the lease would not end. Waiters then try by timer. The last tenth of the queue
-- is left for notifications that others send between the check and the commit.
WITH patience AS MATERIALIZED (
    SELECT CASE WHEN $3::bigint IS NOT NULL
        THEN set_config('lock_timeout', $3::bigint::text, true) END
),
newest AS MATERIALIZED (
    SELECT l.expires_at_ms FROM {locks} AS l, patience WHERE {the_lease} {lock_the_row}
),
ended AS (
    DELETE FROM {locks} AS l
    USING newest
    WHERE {the_lease} AND newest.expires_at_ms > {now} - 1000
    RETURNING sha256(convert_to(l.key, 'UTF8')) AS hash
)
SELECT CASE WHEN $2::text IS NOT NULL THEN set_config('synchronous_commit', $2::text, true) END,
    CASE WHEN NOT pg_try_advisory_xact_lock(hashtext('{channel}'), get_byte(hash, 0))
            AND pg_notification_queue_usage() < 0.9
        THEN pg_notify('{channel}', left(encode(hash, 'hex'), 16)) END
FROM ended
