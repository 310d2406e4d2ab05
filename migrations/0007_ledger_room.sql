-- A commit for a Data Source is written twice, when it is accepted and when it is settled: with room on
-- the page, the second writes no index. Holds for new pages.
ALTER TABLE commits SET (fillfactor = 85);
