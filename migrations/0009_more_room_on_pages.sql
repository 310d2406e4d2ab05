-- Half of a page for the second write of each commit and of each row's version: where 60 % of it was
-- filled the first time, a fifth of the commits had no room left and wrote their indexes again. Holds
-- for new pages.
ALTER TABLE commits SET (fillfactor = 50);
ALTER TABLE row_versions SET (fillfactor = 50);
