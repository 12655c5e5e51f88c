-- Takes many keys, all different. $1 keys, $2 lock ids, $3 TTLs in ms, $4 limit for a wait on a lock,
-- in ms. One row per key, in the order of the keys: what was granted, or how long another lease
-- still has, or nothing if the key is busy and must be tried alone.
--
-- Why this is atomic: as acquire.sql, key by key. "Held" rests on the snapshot, and "granted" on the
-- newest version of the row, under the advisory lock of its key.
--
-- Why it waits for nobody, and nobody can deadlock with it: it takes only the advisory locks and the
-- rows that it can have at once. A key whose lock somebody else has is busy. It reports such a key
-- rather than waiting, because the others would wait with it: behind a transaction that somebody left
-- open, for instance. Two keys with the same hash share an advisory lock, which one transaction may
-- take twice. A row that is newer than the snapshot can still make it wait, for $4 at most.
WITH input AS MATERIALIZED (
    SELECT n, key, id, ttl
    FROM unnest($1::text[], $2::text[], $3::bigint[]) WITH ORDINALITY AS input (key, id, ttl, n)
),
found AS MATERIALIZED (
    SELECT n, key, id, ttl, l.key IS NOT NULL AS present,
        CASE WHEN l.lock_id <> id AND l.expires_at_ms > {now} - 1000
            THEN l.expires_at_ms - ({now} - 1000) END AS remaining_ms
    FROM input LEFT JOIN {locks} AS l USING (key)
),
patience AS MATERIALIZED (
    SELECT CASE WHEN $4::bigint IS NOT NULL
        THEN set_config('lock_timeout', $4::bigint::text, true) END
),
turn AS MATERIALIZED (
    SELECT n, key, id, ttl, present
    -- OFFSET keeps the planner from taking the locks of held keys first.
    FROM (SELECT * FROM found, patience WHERE remaining_ms IS NULL OFFSET 0) AS free
    WHERE pg_try_advisory_xact_lock(hashtext(key))
),
locked AS MATERIALIZED (
    SELECT n FROM turn JOIN {locks} AS l USING (key) WHERE present FOR UPDATE OF l SKIP LOCKED
),
instant AS MATERIALIZED (
    SELECT {now} AS now_ms FROM (SELECT count(*) FROM locked) AS done
),
ready AS MATERIALIZED (
    SELECT n, key, id, ttl, now_ms FROM turn, instant
    WHERE NOT present OR n IN (SELECT n FROM locked)
),
counter AS (
    INSERT INTO {fences} AS f (fence_key, fence, key_debug)
    SELECT 'fence:' || key, 1, key FROM ready ORDER BY key
    ON CONFLICT (fence_key) DO UPDATE SET fence = f.fence + 1
    WHERE f.fence BETWEEN 0 AND {max_fence} - 1
    RETURNING fence_key, fence
),
granted AS (
    INSERT INTO {locks} AS l (key, lock_id, expires_at_ms, acquired_at_ms, fence, user_key)
    SELECT key, id, now_ms + ttl, now_ms, lpad(counter.fence::text, 15, '0'), key
    FROM ready JOIN counter ON fence_key = 'fence:' || key
    ORDER BY key
    ON CONFLICT (key) DO UPDATE SET
        lock_id = EXCLUDED.lock_id,
        expires_at_ms = EXCLUDED.expires_at_ms,
        user_key = EXCLUDED.user_key,
        acquired_at_ms = CASE WHEN l.expires_at_ms > EXCLUDED.acquired_at_ms - 1000
            THEN l.acquired_at_ms ELSE EXCLUDED.acquired_at_ms END,
        fence = CASE WHEN l.expires_at_ms > EXCLUDED.acquired_at_ms - 1000
            THEN l.fence ELSE EXCLUDED.fence END
    WHERE l.expires_at_ms <= EXCLUDED.acquired_at_ms - 1000 OR l.lock_id = EXCLUDED.lock_id
    RETURNING key, fence, expires_at_ms
)
SELECT granted.fence, granted.expires_at_ms, found.remaining_ms, counter.fence AS counted,
    ready.n IS NULL AND found.remaining_ms IS NULL AS busy,
    -- As in acquire.sql, for a batch that granted nothing.
    CASE WHEN $4::bigint IS NOT NULL AND NOT EXISTS (SELECT FROM granted)
        THEN set_config('synchronous_commit', 'off', true) END
FROM found
LEFT JOIN ready USING (n)
LEFT JOIN counter ON fence_key = 'fence:' || found.key
LEFT JOIN granted ON granted.key = found.key
ORDER BY n
