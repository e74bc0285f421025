-- The raw book, schema version 3.
-- Merging all columns of a row at once takes a third less time than the key first and
-- then each other column by itself: most columns are dictionaries, which the engine
-- gathers slowly one at a time. Rows are narrow enough that it needs little memory.
ALTER TABLE usage_records MODIFY SETTING enable_vertical_merge_algorithm = 0;

ALTER TABLE usage_rollups MODIFY SETTING enable_vertical_merge_algorithm = 0;
