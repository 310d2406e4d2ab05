-- prune_turn: whether this transaction may delete what is past its retention: one node at a time.
-- Locks: an advisory lock, until the transaction ends.
SELECT pg_try_advisory_xact_lock(1869049972, 1)
