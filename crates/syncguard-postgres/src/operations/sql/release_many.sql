-- Ends many leases, all of different ids, and notifies the waiters for their keys. $1 their lock ids,
-- $2 their keys, $3 'off' for a commit that need not be on disk before the answer. One row per lease,
-- in their order: whether it was live, and whether it was not found, or is busy, and must be
-- released alone.
--
-- Why this is atomic, and misses no waiter: as release.sql, lease by lease. Why it waits for nobody: as
-- acquire_many.sql.
WITH input AS MATERIALIZED (
    SELECT n, id, key FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS input (id, key, n)
),
newest AS MATERIALIZED (
    SELECT n, key, id, l.expires_at_ms
    FROM input JOIN {locks} AS l USING (key)
    WHERE l.lock_id = input.id
    FOR UPDATE OF l SKIP LOCKED
),
instant AS MATERIALIZED (
    SELECT {now} AS now_ms FROM (SELECT count(*) FROM newest) AS done
),
ended AS (
    DELETE FROM {locks} AS l
    USING newest, instant
    WHERE l.key = newest.key AND l.lock_id = newest.id AND newest.expires_at_ms > now_ms - 1000
    RETURNING newest.n, sha256(convert_to(l.key, 'UTF8')) AS hash
)
SELECT ended.n IS NOT NULL AS released, newest.n IS NULL AS busy,
    CASE WHEN $3::text IS NOT NULL THEN set_config('synchronous_commit', $3::text, true) END,
    CASE WHEN NOT pg_try_advisory_xact_lock(hashtext('{channel}'), get_byte(hash, 0))
            AND pg_notification_queue_usage() < 0.9
        THEN pg_notify('{channel}', left(encode(hash, 'hex'), 16)) END
FROM input LEFT JOIN newest USING (n) LEFT JOIN ended USING (n)
ORDER BY n
