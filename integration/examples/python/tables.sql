-- The customer's own table, with columns of its own. Coordinates are numeric: exact.
CREATE TABLE IF NOT EXISTS airports (
    id          text COLLATE "C" PRIMARY KEY,
    name        text NOT NULL,
    city        text,
    state       text,
    country     text NOT NULL,
    latitude    numeric NOT NULL,
    longitude   numeric NOT NULL,
    archived_at timestamptz
);

-- The ledger: what makes a commit happen once. Its row is written by the transaction that applies
-- the commit. Keep it for 30 days at least.
CREATE TABLE IF NOT EXISTS coordinator_commits (
    client_tx_id text COLLATE "C" PRIMARY KEY,
    intent_hash  text NOT NULL,
    -- Null only inside the transaction that is still applying the commit.
    answer       jsonb,
    applied_at   timestamptz NOT NULL DEFAULT now()
);

-- The feed: every change of a row, whoever made it.
CREATE TABLE IF NOT EXISTS outbox (
    id           bigserial PRIMARY KEY,
    entity_id    text NOT NULL,
    type         text NOT NULL,
    data         jsonb,
    -- The commit that made the change; null when it was made outside the coordinator.
    client_tx_id text,
    occurred_at  timestamptz NOT NULL DEFAULT now()
);

-- A trigger, so that a change by any other program is in the feed as well.
CREATE OR REPLACE FUNCTION publish_airport() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    gone boolean := TG_OP = 'DELETE';
BEGIN
    INSERT INTO outbox (entity_id, type, data, client_tx_id)
    VALUES (
        CASE WHEN gone THEN OLD.id ELSE NEW.id END,
        CASE TG_OP WHEN 'INSERT' THEN 'CREATE' ELSE TG_OP END,
        CASE WHEN gone THEN NULL ELSE to_jsonb(NEW) - 'archived_at' END,
        nullif(current_setting('coordinator.client_tx_id', true), '')
    );
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER publish AFTER INSERT OR UPDATE OR DELETE ON airports
    FOR EACH ROW EXECUTE FUNCTION publish_airport();
