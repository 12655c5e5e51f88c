-- Tells those who wait of leases that are ended by a plain DELETE, as the release statement does for
-- its own, and like it nobody while the queue of notifications is nearly full. What both tell in one
-- transaction arrives once. A row that is dead already was free before: nobody is told of a purge.
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
CREATE OR REPLACE TRIGGER {freed} AFTER DELETE ON {locks}
    FOR EACH ROW EXECUTE FUNCTION {freed}();
