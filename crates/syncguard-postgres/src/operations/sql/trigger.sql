-- Notifies waiters if a plain DELETE ends a lease, as the release statement does. Like that, it
-- sends nothing while the notification queue is nearly full. If both notify in one transaction, one
-- notification arrives. It sends none for a dead row, because the key was free before.
CREATE OR REPLACE FUNCTION {freed}() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    hash bytea := sha256(convert_to(OLD.key, 'UTF8'));
BEGIN
    IF OLD.expires_at_ms > {now} - 1000
        AND NOT pg_try_advisory_xact_lock(hashtext('{channel}'), get_byte(hash, 0))
        AND pg_notification_queue_usage() < 0.9
    THEN
        PERFORM pg_notify('{channel}', left(encode(hash, 'hex'), 16));
    END IF;
    RETURN NULL;
END
$$;
-- Postgres 12 and 13 have no CREATE OR REPLACE TRIGGER.
DROP TRIGGER IF EXISTS {trigger} ON {locks};
CREATE TRIGGER {trigger} AFTER DELETE ON {locks}
    FOR EACH ROW EXECUTE FUNCTION {freed}();
