/* ensure_partitions
   Makes the daily partitions of deltas and attempts, from yesterday to two weeks ahead, that are
   missing. Days are UTC days. An attempt is written twice: its partitions leave room for that on the
   page.

   Locks: one advisory lock, so that nodes take turns, and SHARE UPDATE EXCLUSIVE on the parents: a
   partition is made beside its parent and then attached, because CREATE TABLE … PARTITION OF would
   hold up every write. Reads and writes go on. */
BEGIN;
SET LOCAL lock_timeout = '30s';
SET LOCAL statement_timeout = '60s';
SET LOCAL client_min_messages = 'warning';
DO $$
DECLARE
    parent text;
    day    date;
    name   text;
    today  date := (now() AT TIME ZONE 'UTC')::date;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('coordinator.partitions', 0));
    FOREACH parent IN ARRAY ARRAY['deltas', 'attempts'] LOOP
        FOR offset_days IN -1..14 LOOP
            day := today + offset_days;
            name := parent || '_' || to_char(day, 'YYYYMMDD');
            CONTINUE WHEN to_regclass(name) IS NOT NULL;
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS) WITH (fillfactor = %s)',
                           name, parent, CASE parent WHEN 'attempts' THEN 45 ELSE 100 END);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                           parent, name,
                           day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
        END LOOP;
    END LOOP;
END
$$;
COMMIT;
