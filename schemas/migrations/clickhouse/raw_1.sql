-- The raw book, schema version 1.
-- Times are UTC with milliseconds, stored as exact Unix milliseconds whatever they are.
-- Quantities are in the meter's base unit.
--
-- Every table is a ReplacingMergeTree, so what was sent twice is there once: at once
-- with FINAL or in the views, and in the end on disk. What an insert acknowledges has
-- been synced. A part stays in one file while it is as small as one insert, which syncing
-- each insert needs; larger ones have a file per column, which merging is quicker with.
--
-- On replicated tables (`odometer migrate` with `replicated`), the account that
-- Odometer uses needs the settings insert_quorum = 'auto', insert_quorum_parallel = 0
-- and select_sequential_consistency = 1, so that what was confirmed survives a replica.

-- Every judged record, accepted or not. offset and idx are its place in the log.
--
-- Parts are cut by the month of appending, not of the event: a batch then touches one
-- or two of them, however old its events are. The smallest and largest append time of
-- each part are known to the engine, so a batch's rows are found again without
-- reading what was written before.
CREATE TABLE IF NOT EXISTS usage_records (
    tenant           LowCardinality(String),
    meter            LowCardinality(String),
    source           LowCardinality(String),
    id               String CODEC(ZSTD(1)),
    id_emitted       Bool DEFAULT false, -- the emitter made the id
    subject          LowCardinality(Nullable(String)),
    quantity         Int64 CODEC(T64, LZ4),
    time             DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    time_given       Bool DEFAULT true, -- false: the append time stands in
    dimensions       LowCardinality(String) DEFAULT '{}', -- a JSON object, names ascending
    reservation      LowCardinality(Nullable(String)),
    partition        UInt32,
    offset           UInt64 CODEC(Delta, LZ4),
    idx              UInt16 CODEC(Delta, LZ4),
    envelope_records UInt16 DEFAULT 1,
    verdict          LowCardinality(String),
    reason           LowCardinality(Nullable(String)),
    append_time      DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    row_hash         UInt64 CODEC(NONE), -- checksum over all columns
    INDEX ids id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX times time TYPE minmax GRANULARITY 1,
    INDEX places (partition, offset) TYPE minmax GRANULARITY 1
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(append_time)
ORDER BY (tenant, meter, time, partition, offset, idx)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1,
    min_bytes_for_wide_part = 67108864, ttl_only_drop_parts = 1;

-- Equal keys have equal append times, so months need not be compared with each other.
CREATE VIEW IF NOT EXISTS usage AS
SELECT tenant, meter, source, id, subject, quantity, time, dimensions, reservation, partition, offset, idx, append_time
FROM usage_records FINAL
WHERE verdict = 'accepted'
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- Log entries that could not be decoded, whole.
CREATE TABLE IF NOT EXISTS rejected_envelopes (
    partition   UInt32,
    offset      UInt64,
    append_time DateTime64(3, 'UTC'),
    reason      LowCardinality(String),
    bytes       String CODEC(ZSTD(1))
) ENGINE = ReplacingMergeTree
ORDER BY (partition, offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

-- What each aligned range of offsets brought to each minute. Usage is the merge of all
-- rows of its minutes; a row replaces itself as its range grows.
CREATE TABLE IF NOT EXISTS usage_rollups (
    window_start DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    tenant       LowCardinality(String),
    meter        LowCardinality(String),
    dimensions   LowCardinality(String), -- a JSON object of the dimensions that the meter keeps
    partition    UInt32,
    range_start  UInt64 CODEC(Delta, LZ4),
    last_offset  UInt64 CODEC(Delta, LZ4),
    aggregation  LowCardinality(String),
    quantity     Int128, -- aggregated value
    sum          Int128, -- sum of quantities
    records      UInt64 CODEC(T64, LZ4),
    state        String, -- what the aggregation needs to be merged
    append_time  DateTime64(3, 'UTC') CODEC(Delta, LZ4), -- newest of the batch that wrote the row
    INDEX append_times append_time TYPE minmax GRANULARITY 1000000
) ENGINE = ReplacingMergeTree(last_offset)
ORDER BY (tenant, meter, window_start, dimensions, partition, range_start)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1,
    min_bytes_for_wide_part = 67108864;

-- How far each partition has been written: the largest next_offset.
CREATE TABLE IF NOT EXISTS cursors (
    partition   UInt32,
    next_offset UInt64
) ENGINE = ReplacingMergeTree(next_offset)
ORDER BY partition
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

-- Usage per window of `width` milliseconds, for queries by hand: hours and days are
-- added up from minutes. latest and unique_count, which plain SQL cannot merge, are
-- NULL; the usage API answers them.
CREATE VIEW IF NOT EXISTS usage_windows AS
SELECT tenant, meter,
    fromUnixTimestamp64Milli(intDiv(toUnixTimestamp64Milli(rows.window_start), {width:Int64}) * {width:Int64}, 'UTC')
        AS window_start,
    dimensions,
    multiIf(
        aggregation = 'sum', sum(rows.sum),
        aggregation = 'count', toInt128(sum(rows.records)),
        aggregation = 'min', min(rows.quantity),
        aggregation = 'max', max(rows.quantity),
        aggregation = 'avg', intDiv(
            sum(rows.sum) + sign(sum(rows.sum)) * intDiv(toInt128(sum(rows.records)), 2),
            toInt128(sum(rows.records))),
        NULL) AS quantity,
    sum(rows.records) AS records
FROM usage_rollups AS rows FINAL
GROUP BY tenant, meter, window_start, dimensions, aggregation;

CREATE VIEW IF NOT EXISTS usage_by_minute AS SELECT * FROM usage_windows(width = 60000);

CREATE VIEW IF NOT EXISTS usage_by_hour AS SELECT * FROM usage_windows(width = 3600000);

CREATE VIEW IF NOT EXISTS usage_by_day AS SELECT * FROM usage_windows(width = 86400000);

-- Which versions of this schema were made here.
CREATE TABLE IF NOT EXISTS schema_versions (
    version UInt32
) ENGINE = ReplacingMergeTree
ORDER BY version
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
