-- The totals book, schema version 1.
-- Times are Unix milliseconds, UTC. Amounts that may pass 64 bits are decimal text.

CREATE TABLE installation (
    only_row   INTEGER PRIMARY KEY CHECK (only_row = 1),
    log_id     TEXT    NOT NULL,
    partitions INTEGER NOT NULL,
    hash_seed  TEXT    NOT NULL -- 16 hexadecimal digits
) STRICT;

-- How far each partition has been decided, by whom, and what became of its records.
CREATE TABLE partitions (
    partition   INTEGER PRIMARY KEY,
    epoch       INTEGER NOT NULL,
    owner       TEXT    NOT NULL, -- the owner's public URL, or empty
    next_offset INTEGER NOT NULL,
    log_time    INTEGER NOT NULL,
    received    INTEGER NOT NULL,
    accepted    INTEGER NOT NULL,
    duplicate   INTEGER NOT NULL,
    conflict    INTEGER NOT NULL,
    late        INTEGER NOT NULL,
    rejected    INTEGER NOT NULL,
    rules       BLOB
) STRICT;

-- The billing table: one row per tenant, meter and billing period [start, end).
CREATE TABLE period_totals (
    tenant       TEXT    NOT NULL,
    meter        TEXT    NOT NULL,
    period_start INTEGER NOT NULL,
    period_end   INTEGER NOT NULL,
    quantity     TEXT    NOT NULL, -- the meter's aggregated value in base units
    records      INTEGER NOT NULL,
    digest       TEXT    NOT NULL, -- 32 hexadecimal digits
    aggregation  TEXT    NOT NULL,
    sum          TEXT    NOT NULL, -- the sum of quantities, whatever the aggregation
    partition    INTEGER NOT NULL,
    state        BLOB    NOT NULL, -- what the aggregation needs to go on
    PRIMARY KEY (tenant, meter, period_start)
) STRICT, WITHOUT ROWID;

-- A claim loads all totals of one partition.
CREATE INDEX period_totals_by_partition ON period_totals (partition);

CREATE TABLE source_marks (
    partition INTEGER NOT NULL,
    source    TEXT    NOT NULL, -- 32 hexadecimal digits
    epoch     INTEGER NOT NULL,
    low_water TEXT    NOT NULL, -- decimal, unsigned 64 bits
    above     BLOB    NOT NULL, -- little-endian 64-bit words
    PRIMARY KEY (partition, source)
) STRICT, WITHOUT ROWID;

-- The verdicts of each envelope that was not wholly accepted: runs of one byte of
-- verdict and two of length.
CREATE TABLE exceptions (
    partition INTEGER NOT NULL,
    "offset"  INTEGER NOT NULL,
    verdicts  BLOB    NOT NULL,
    PRIMARY KEY (partition, "offset")
) STRICT, WITHOUT ROWID;

-- The definitions that each partition has seen, as the control envelope that
-- brought them.
CREATE TABLE definitions (
    partition   INTEGER NOT NULL,
    "offset"    INTEGER NOT NULL,
    definitions BLOB    NOT NULL,
    PRIMARY KEY (partition, "offset")
) STRICT, WITHOUT ROWID;
