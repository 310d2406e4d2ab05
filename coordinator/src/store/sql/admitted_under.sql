-- admitted_under
-- The schema that a commit was admitted under.
SELECT schema_version FROM commits WHERE org_id = $1 AND client_tx_id = $2
