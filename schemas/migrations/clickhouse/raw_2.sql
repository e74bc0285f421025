-- The raw book, schema version 2.
-- Writing rows again while parts are merged takes most of the engine's time. With a
-- larger base it merges more parts at once, and writes each row again a third less
-- often; a table has some tens of parts more for it.
ALTER TABLE usage_records MODIFY SETTING merge_selector_base = 10;

ALTER TABLE usage_rollups MODIFY SETTING merge_selector_base = 10;
