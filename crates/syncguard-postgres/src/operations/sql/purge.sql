-- Removes some rows that have been dead for long. $1 how long after their expiry, in ms. One row:
-- how many were removed.
--
-- A row that is being taken over is locked by that, and skipped; one that was taken over since the
-- snapshot fails the test when it is locked. Few at a time, so that nobody waits long for a key.
WITH dead AS MATERIALIZED (
    SELECT key FROM {locks}
    WHERE expires_at_ms < {now} - greatest($1::bigint, 2000)
    LIMIT 1000
    FOR UPDATE SKIP LOCKED
),
removed AS (
    DELETE FROM {locks} WHERE key IN (SELECT key FROM dead) RETURNING 1
)
SELECT count(*) FROM removed
