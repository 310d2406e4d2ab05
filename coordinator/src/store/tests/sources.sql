CREATE TABLE attempts_all PARTITION OF attempts DEFAULT;
INSERT INTO data_sources (org_id, source_id, url, retry_delays_ms, request_timeout_ms,
    max_in_flight, state, pending_count, dead_count, attempts_by_outcome, created_at, updated_at)
VALUES
    ('acme', 'crm', 'https://x/', '{5000}', 1000, 1, 'failing', 2, 1, '{5,0,2,0,0,0}', now(), now()),
    ('acme', 'quiet', 'https://y/', '{5000,300000}', 1000, 1, 'enabled', 0, 0, '{0,0,0,0,0,0}',
        now(), now());
INSERT INTO source_requests (org_id, source_id, kind, last_success_at, last_error_at,
    last_error_class, last_error_message, last_error_status)
VALUES
    ('acme', 'crm', 'commit', now(), now(), 'timeout', 'no answer', 0),
    ('acme', 'crm', 'load', now(), NULL, NULL, NULL, NULL);
INSERT INTO commits (org_id, client_tx_id, commit_id, fingerprint, participant_id,
    participant_kind, source_id, state, accepted_at, schema_version)
SELECT 'acme', 't' || n, gen_random_uuid(), sha256('x'), 'ann', 'user', 'crm', 'queued', now(), 1
FROM generate_series(1, 3) AS n;
INSERT INTO inbox (org_id, source_id, sequence, client_tx_id, commit_id, body, lanes, dead,
    attempts, due_at, last_error_at, last_error_class, last_error_message, last_error_status,
    accepted_at)
SELECT 'acme', 'crm', n, 't' || n, commits.commit_id, 'x', '{}', n = 1, 1, now(),
    CASE n WHEN 1 THEN now() END, CASE n WHEN 1 THEN 'timeout' END, NULL, NULL,
    now() - interval '1 minute'
FROM generate_series(1, 3) AS n
JOIN commits ON commits.client_tx_id = 't' || n;
INSERT INTO attempts (org_id, source_id, started_at, commit_id, number, client_tx_id, cause, node,
    deadline, duration_ms, http_status, outcome)
SELECT 'acme', 'crm', now() + n * interval '1 second', commits.commit_id, attempt.number,
    attempt.client_tx_id, attempt.cause, gen_random_uuid(), now(), attempt.took, 503,
    attempt.outcome
FROM (VALUES (1, 't1', 1, 'accept', 10, 'retry'), (2, 't1', 2, 'schedule', 10, 'retry'),
    (3, 't2', 1, 'accept', NULL, NULL)) AS attempt (n, client_tx_id, number, cause, took, outcome)
JOIN commits ON commits.client_tx_id = attempt.client_tx_id;
INSERT INTO schemas (org_id, version, document, created_at)
VALUES ('acme', 1, '{"v":1}', now()), ('acme', 2, '{"v":2}', now());
UPDATE heads SET schema_version = 2 WHERE org_id = 'acme'
