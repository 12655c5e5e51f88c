-- Stores what a leader publishes. $1 key, $2 fence, $3 candidate, $4 value, $5 TTL in ms, $6 limit for
-- the wait on a lock, in ms. One row if it was stored.
--
-- Why this is atomic. ON CONFLICT DO UPDATE waits for, locks and tests the newest version of the row.
-- The clock is read after that. A row that has expired, or whose fence no client grants, gives way.
--
-- The commit need not be on disk before the answer: a leader publishes again when it renews its lease.
WITH settings AS MATERIALIZED (
    SELECT set_config('lock_timeout', $6::bigint::text, true),
        set_config('synchronous_commit', 'off', true)
)
INSERT INTO {leaders} AS l (key, fence, candidate, value, expires_at_ms)
SELECT $1, $2::bigint, $3, $4::bytea, {now} + $5::bigint FROM settings
ON CONFLICT (key) DO UPDATE SET
    fence = EXCLUDED.fence,
    candidate = EXCLUDED.candidate,
    value = EXCLUDED.value,
    expires_at_ms = {now} + $5::bigint
WHERE l.fence <= EXCLUDED.fence OR l.fence > {last_fence} OR l.expires_at_ms <= {now} - 1000
RETURNING 1
