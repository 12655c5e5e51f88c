-- Removes what a leader has published. $1 key, $2 fence, $3 limit for the wait on a lock, in ms.
--
-- Why this is atomic. DELETE waits for the row and tests its newest version.
--
-- The commit need not be on disk before the answer: the row would only stay until it expires.
WITH settings AS MATERIALIZED (
    SELECT set_config('lock_timeout', $3::bigint::text, true),
        set_config('synchronous_commit', 'off', true)
)
DELETE FROM {leaders} AS l
USING settings
WHERE l.key = $1 AND (l.fence <= $2::bigint OR l.fence > {last_fence})
