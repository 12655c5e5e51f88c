-- What a preflight asks. $1 the name of the lock table without its schema. One row. Everything here may
-- be read by every user, except the age of other users' transactions.
SELECT
    current_setting('server_version_num')::int4,
    pg_is_in_recovery(),
    current_setting('transaction_read_only')::bool,
    current_setting('default_transaction_isolation'),
    current_setting('synchronous_commit'),
    current_setting('synchronous_standby_names') <> '',
    current_setting('fsync')::bool,
    current_setting('search_path'),
    (SELECT nspname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.oid = to_regclass('{locks}')),
    (SELECT count(*) FROM pg_class WHERE relname = $1 AND relkind IN ('r', 'p')),
    to_regclass('{fences}') IS NOT NULL,
    (SELECT string_agg(a.attname::text, ',' ORDER BY a.attname)
        FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = to_regclass('{locks}') AND i.indnatts = 1 AND i.indisvalid
            AND (i.indisunique OR a.attname = 'expires_at_ms')),
    (SELECT string_agg(right_ || ' on ' || table_, ', ')
        FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS right_,
            unnest(ARRAY['{locks}', '{fences}']) AS table_
        WHERE NOT (right_ = 'DELETE' AND table_ = '{fences}')
            AND has_table_privilege(to_regclass(table_), right_) IS FALSE),
    current_setting('max_connections')::int8 - current_setting('superuser_reserved_connections')::int8,
    (SELECT sum(numbackends)::int8 FROM pg_stat_database),
    (SELECT CASE WHEN rolconnlimit >= 0 THEN rolconnlimit::int8 END FROM pg_roles
        WHERE rolname = current_user),
    pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')
        OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
    (SELECT extract(epoch FROM max(clock_timestamp() - xact_start))::int8 FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()),
    to_regclass('{leaders}') IS NOT NULL,
    (SELECT string_agg(right_, ', ')
        FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS right_
        WHERE has_table_privilege(to_regclass('{leaders}'), right_) IS FALSE)
