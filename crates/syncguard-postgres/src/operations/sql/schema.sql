CREATE TABLE IF NOT EXISTS {locks} (
    key TEXT PRIMARY KEY,
    lock_id TEXT NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    acquired_at_ms BIGINT NOT NULL,
    fence TEXT NOT NULL,
    user_key TEXT NOT NULL,
    expires_at_ts TIMESTAMPTZ GENERATED ALWAYS AS (to_timestamp(expires_at_ms / 1000.0)) STORED,
    acquired_at_ts TIMESTAMPTZ GENERATED ALWAYS AS (to_timestamp(acquired_at_ms / 1000.0)) STORED
);
CREATE UNIQUE INDEX IF NOT EXISTS {lock_id_index} ON {locks} (lock_id);
CREATE INDEX IF NOT EXISTS {expires_index} ON {locks} (expires_at_ms);
CREATE TABLE IF NOT EXISTS {fences} (
    fence_key TEXT PRIMARY KEY,
    fence BIGINT NOT NULL DEFAULT 0,
    key_debug TEXT
);
CREATE TABLE IF NOT EXISTS {leaders} (
    key TEXT PRIMARY KEY,
    fence BIGINT NOT NULL,
    candidate TEXT NOT NULL,
    value BYTEA NOT NULL,
    expires_at_ms BIGINT NOT NULL
);
