-- The raw book, schema version 1.
-- Times are Unix milliseconds, UTC. Quantities are in the meter's base unit.

-- Every judged record, accepted or not. "offset" and idx are its place in the log.
CREATE TABLE usage_records (
    tenant           TEXT    NOT NULL,
    meter            TEXT    NOT NULL,
    source           TEXT    NOT NULL,
    id               TEXT    NOT NULL,
    id_emitted       INTEGER NOT NULL DEFAULT 0, -- 1: the emitter made the id
    subject          TEXT,
    quantity         INTEGER NOT NULL,
    time             INTEGER NOT NULL,
    time_given       INTEGER NOT NULL DEFAULT 1, -- 0: the append time stands in
    dimensions       TEXT    NOT NULL DEFAULT '{}', -- a JSON object, names ascending
    reservation      TEXT,
    partition        INTEGER NOT NULL,
    "offset"         INTEGER NOT NULL,
    idx              INTEGER NOT NULL,
    envelope_records INTEGER NOT NULL DEFAULT 1,
    verdict          TEXT    NOT NULL,
    reason           TEXT,
    append_time      INTEGER NOT NULL,
    row_hash         INTEGER NOT NULL, -- checksum over all columns
    PRIMARY KEY (partition, "offset", idx)
) STRICT, WITHOUT ROWID;

-- Where a tenant's records may be: per block of 64 offsets, the event times and 32-bit
-- hashes of its tenants and of its (tenant, id) pairs. An index over all ids would cost
-- more than the rows themselves; a look-up reads these first and then only the blocks
-- that match.
CREATE TABLE usage_record_blocks (
    partition INTEGER NOT NULL,
    block     INTEGER NOT NULL, -- "offset" / 64
    time_min  INTEGER NOT NULL,
    time_max  INTEGER NOT NULL,
    tenants   BLOB    NOT NULL, -- little-endian words, ascending
    ids       BLOB    NOT NULL, -- little-endian words, in no order
    PRIMARY KEY (partition, block)
) STRICT, WITHOUT ROWID;

CREATE VIEW usage AS
SELECT tenant, meter, source, id, subject, quantity, time, dimensions, reservation, partition, "offset", idx, append_time
FROM usage_records
WHERE verdict = 'accepted';

-- Log entries that could not be decoded, whole.
CREATE TABLE rejected_envelopes (
    partition   INTEGER NOT NULL,
    "offset"    INTEGER NOT NULL,
    append_time INTEGER NOT NULL,
    reason      TEXT    NOT NULL,
    bytes       BLOB    NOT NULL,
    PRIMARY KEY (partition, "offset")
) STRICT, WITHOUT ROWID;

-- What each aligned range of offsets brought to each minute. A window's usage is the
-- merge of the rows of all its minutes; a row replaces itself as its range grows.
CREATE TABLE usage_rollups (
    window_start INTEGER NOT NULL, -- of the minute
    tenant       TEXT    NOT NULL,
    meter        TEXT    NOT NULL,
    dimensions   TEXT    NOT NULL, -- a JSON object of the dimensions that the meter keeps
    partition    INTEGER NOT NULL,
    range_start  INTEGER NOT NULL,
    last_offset  INTEGER NOT NULL,
    aggregation  TEXT    NOT NULL,
    quantity     TEXT    NOT NULL, -- aggregated value, decimal text of up to 128 bits
    sum          TEXT    NOT NULL, -- sum of quantities, decimal text of up to 128 bits
    records      INTEGER NOT NULL,
    state        BLOB    NOT NULL, -- what the aggregation needs to be merged
    PRIMARY KEY (tenant, meter, window_start, dimensions, partition, range_start)
) STRICT, WITHOUT ROWID;

-- How far each partition has been written.
CREATE TABLE cursors (
    partition   INTEGER PRIMARY KEY,
    next_offset INTEGER NOT NULL
) STRICT;

-- Usage per window, for queries by hand. SQLite has no 128-bit integers: a quantity is
-- NULL where a part of it might pass 64 bits, the query fails where the whole does, and
-- latest and unique_count, which plain SQL cannot merge, are NULL. The usage API answers
-- all of them exactly.
CREATE VIEW usage_windows AS
SELECT width, tenant, meter, window_start - (window_start % width + width) % width AS window_start, dimensions,
    CASE
        WHEN aggregation = 'count' THEN sum(records)
        WHEN max(length(sum)) > 18 THEN NULL
        WHEN aggregation = 'sum' THEN sum(CAST(sum AS INTEGER))
        WHEN aggregation = 'min' THEN min(CAST(quantity AS INTEGER))
        WHEN aggregation = 'max' THEN max(CAST(quantity AS INTEGER))
        WHEN aggregation = 'avg' AND sum(CAST(sum AS INTEGER)) < 0
            THEN (sum(CAST(sum AS INTEGER)) - sum(records) / 2) / sum(records)
        WHEN aggregation = 'avg' THEN (sum(CAST(sum AS INTEGER)) + sum(records) / 2) / sum(records)
    END AS quantity,
    sum(records) AS records
FROM usage_rollups, (SELECT 60000 AS width UNION ALL SELECT 3600000 UNION ALL SELECT 86400000)
GROUP BY width, tenant, meter, 4, dimensions, aggregation;

CREATE VIEW usage_by_minute AS
SELECT tenant, meter, window_start, dimensions, quantity, records FROM usage_windows WHERE width = 60000;

CREATE VIEW usage_by_hour AS
SELECT tenant, meter, window_start, dimensions, quantity, records FROM usage_windows WHERE width = 3600000;

CREATE VIEW usage_by_day AS
SELECT tenant, meter, window_start, dimensions, quantity, records FROM usage_windows WHERE width = 86400000;
