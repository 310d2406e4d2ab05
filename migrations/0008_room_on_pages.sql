-- A commit for a Data Source is written twice, when it is accepted and when it is settled, and so is its
-- row's version: a few milliseconds apart, as are most others on their page. With room for all of them
-- there, the second time writes no index. The price is disk: managed commits, which are written once,
-- take as much more. Holds for new pages.
ALTER TABLE commits SET (fillfactor = 60);
ALTER TABLE row_versions SET (fillfactor = 60);
