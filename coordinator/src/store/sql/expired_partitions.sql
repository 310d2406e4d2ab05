/* expired_partitions
   Names, quoted, of the partitions of deltas older than $1 days and of attempts older than $2 days,
   oldest first. A partition's name carries its day. Locks nothing. Another node may drop one meanwhile: its name is
   taken from this statement's snapshot. */
SELECT quote_ident(child.relname) AS name
FROM pg_inherits
JOIN pg_class child ON child.oid = pg_inherits.inhrelid
JOIN (VALUES ('deltas'::regclass, $1::int), ('attempts'::regclass, $2::int)) AS kept (parent, days)
  ON kept.parent = pg_inherits.inhparent
WHERE child.relname ~ '^(deltas|attempts)_[0-9]{8}$'
  AND to_date(right(child.relname, 8), 'YYYYMMDD') < (now() AT TIME ZONE 'UTC')::date - kept.days
ORDER BY child.relname
