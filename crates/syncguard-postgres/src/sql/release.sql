-- Ends a lease. $1 lock id, $2 'off' for a commit that need not be on disk before the answer: a
-- release that a crash undoes only means waiting for the TTL. One row if the lease was live.
--
-- Why this is atomic. The delete waits for and locks the row, and tests the newest version of it
-- against the id and the time, which is read again for that.
DELETE FROM {locks}
WHERE lock_id = $1 AND expires_at_ms > {now} - 1000
RETURNING CASE WHEN $2::text IS NOT NULL THEN set_config('synchronous_commit', $2::text, true) END
