-- Renews many leases, all of different ids. $1 their lock ids, $2 their keys, $3 TTLs in ms, $4 limit
-- for a wait on a lock, in ms. One row per lease, in their order: the renewed lease, or nothing if it
-- is not live; and whether it was not found, or is busy, and must be renewed alone.
--
-- Why this is atomic: as extend.sql, lease by lease. Why it waits for nobody: as acquire_many.sql.
WITH input AS MATERIALIZED (
    SELECT n, id, key, ttl
    FROM unnest($1::text[], $2::text[], $3::bigint[]) WITH ORDINALITY AS input (id, key, ttl, n)
),
patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', $4::bigint::text, true)
),
newest AS MATERIALIZED (
    SELECT n, key, id, ttl, l.expires_at_ms
    FROM patience, input JOIN {locks} AS l USING (key)
    WHERE l.lock_id = input.id AND pg_try_advisory_xact_lock(hashtext(key))
    FOR UPDATE OF l SKIP LOCKED
),
instant AS MATERIALIZED (
    SELECT {now} AS now_ms FROM (SELECT count(*) FROM newest) AS done
),
renewed AS (
    UPDATE {locks} AS l
    SET expires_at_ms = now_ms + ttl
    FROM newest, instant
    WHERE l.key = newest.key AND l.lock_id = newest.id AND newest.expires_at_ms > now_ms - 1000
    RETURNING newest.n, l.user_key, l.fence, l.expires_at_ms
)
SELECT renewed.user_key, renewed.fence, renewed.expires_at_ms, newest.n IS NULL AS busy
FROM input LEFT JOIN newest USING (n) LEFT JOIN renewed USING (n)
ORDER BY n
