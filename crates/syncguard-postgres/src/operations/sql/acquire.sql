-- Takes a key. {turn} waits for its advisory lock, or takes it only if it can be had at once: see
-- operations.rs. $1 key, $2 lock id, $3 TTL in ms, $4 limit for each wait on a lock, in ms; NULL
-- leaves the caller's settings alone. One row: what was granted, or how long another lease still has, or
-- that the lock could not be had.
--
-- Why this is atomic. A statement's subqueries see the rows of its snapshot, which is older than
-- the end of the wait in `turn`. So each of the two answers rests on what it may rest on:
--
-- * "Held" may rest on the snapshot. It was taken after the call began, and the key was held then;
--   a call after a release has returned takes a later snapshot. It writes nothing, takes no
--   lock, and waits for nobody.
-- * "Granted" rests on `ON CONFLICT DO UPDATE`, which waits for, locks and tests the newest version
--   of a row, in the snapshot or not. `granted` returns a row only if this statement itself put our
--   id there: in place of no row, of a dead one, or of our own.
--
-- Every grant, of the other client too, is made by a transaction that holds the advisory lock of the
-- key until it has ended. So nobody else grants between `turn` and our commit, the clock is read
-- after the wait, and fences are granted in the order in which they were counted: `counter` adds one
-- to the newest value, and no later grant can count before ours is visible. An attempt that finds
-- the key taken only at the last step leaves a gap in the fences, which is allowed. The counter row
-- alone is the authority on fences, for every client; it is never deleted. At its very end, 900
-- million million grants of one key, the holder of the last one cannot repeat its call: it is refused
-- as the next one would be.
--
-- Where the isolation level is stricter than READ COMMITTED, a row that is newer than the snapshot
-- fails the statement with 40001 and nothing is written: the same call is then made again.
WITH held AS MATERIALIZED (
    SELECT expires_at_ms - ({now} - 1000) AS remaining_ms
    FROM {locks}
    WHERE key = $1 AND lock_id <> $2 AND expires_at_ms > {now} - 1000
),
-- Ends a wait on the server too, where dropping the call does not: else it could be granted much
-- later, to nobody.
patience AS MATERIALIZED (
    SELECT CASE WHEN $4::bigint IS NOT NULL
        THEN set_config('lock_timeout', $4::bigint::text, true) END
),
turn AS MATERIALIZED (
    {turn}
),
instant AS MATERIALIZED (
    SELECT {now} AS now_ms FROM turn
),
counter AS (
    INSERT INTO {fences} AS f (fence_key, fence, key_debug)
    SELECT 'fence:' || $1, 1, $1 FROM instant
    ON CONFLICT (fence_key) DO UPDATE SET fence = f.fence + 1
    WHERE f.fence BETWEEN 0 AND {max_fence} - 1
    RETURNING fence
),
granted AS (
    INSERT INTO {locks} AS l (key, lock_id, expires_at_ms, acquired_at_ms, fence, user_key)
    SELECT $1, $2, now_ms + $3::bigint, now_ms, lpad(counter.fence::text, 15, '0'), $1
    FROM instant, counter
    ON CONFLICT (key) DO UPDATE SET
        lock_id = EXCLUDED.lock_id,
        expires_at_ms = EXCLUDED.expires_at_ms,
        user_key = EXCLUDED.user_key,
        -- A live row that passes the condition below is our own: the same grant again.
        acquired_at_ms = CASE WHEN l.expires_at_ms > EXCLUDED.acquired_at_ms - 1000
            THEN l.acquired_at_ms ELSE EXCLUDED.acquired_at_ms END,
        fence = CASE WHEN l.expires_at_ms > EXCLUDED.acquired_at_ms - 1000
            THEN l.fence ELSE EXCLUDED.fence END
    WHERE l.expires_at_ms <= EXCLUDED.acquired_at_ms - 1000 OR l.lock_id = EXCLUDED.lock_id
    RETURNING fence, expires_at_ms
)
-- A grant is durable before it is answered. An attempt that comes too late has only counted, so the
-- next one in the queue need not wait for the disk.
SELECT granted.fence, granted.expires_at_ms, held.remaining_ms, counter.fence AS counted,
    held.remaining_ms IS NULL AND NOT EXISTS (SELECT FROM turn) AS busy,
    CASE WHEN granted.fence IS NULL AND $4::bigint IS NOT NULL
        THEN set_config('synchronous_commit', 'off', true) END
FROM (SELECT) AS one
LEFT JOIN held ON true
LEFT JOIN counter ON true
LEFT JOIN granted ON true
