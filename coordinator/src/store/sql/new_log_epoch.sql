-- new_log_epoch
-- Gives the log of $1, or every log when $1 is null, a new epoch, and moves the heads on, so that
-- nothing is appended that was decided before. Locks those heads.
UPDATE heads
SET log_epoch = gen_random_uuid(), version = version + 1
WHERE $1::text IS NULL OR org_id = $1
