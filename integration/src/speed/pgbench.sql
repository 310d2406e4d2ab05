\set n :n + 1
\set key random(0, :keys - 1)
\set fresh random(0, 1)
\set number random(0, 999999999)
WITH put AS (
    INSERT INTO rows (id, row)
    VALUES (
        CASE :fresh::int
            WHEN 1 THEN 'n' || :run::text || '-' || :client_id::text || '-' || :n::text
            ELSE 'k' || :key::text
        END,
        jsonb_build_object('text', 'TEXT', 'number', :number::bigint)
    )
    ON CONFLICT (id) DO UPDATE SET row = rows.row || excluded.row
    RETURNING id, row
), entry AS (
    INSERT INTO ledger (client_tx_id, commit_id, fingerprint, participant, state, accepted_at)
    SELECT 'r' || :run::text || '-' || :client_id::text || '-' || :n::text, gen_random_uuid(),
           '\x9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08', 'user-1', 'confirmed', now()
    FROM put
)
INSERT INTO deltas (created_at, client_tx_id, kind, row_id, row)
SELECT now(), 'r' || :run::text || '-' || :client_id::text || '-' || :n::text,
       CASE :fresh::int WHEN 1 THEN 'CREATE' ELSE 'UPDATE' END, put.id, put.row
FROM put;
