-- The totals book, schema version 1. Names and meanings are those of the SQLite book.
-- Times are Unix milliseconds, UTC. Texts that are keys sort by bytes, whatever the
-- database's collation is and however it changes.

CREATE TABLE installation (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    log_id     text    NOT NULL,
    partitions bigint  NOT NULL,
    hash_seed  text    NOT NULL -- 16 hexadecimal digits
);

-- How far each partition has been decided, by whom, and what became of its records.
-- Each row changes about once a second: free space keeps its versions on their page.
CREATE TABLE partitions (
    partition   bigint PRIMARY KEY,
    epoch       bigint NOT NULL,
    owner       text   NOT NULL, -- the owner's public URL, or empty
    next_offset bigint NOT NULL,
    log_time    bigint NOT NULL,
    received    bigint NOT NULL,
    accepted    bigint NOT NULL,
    duplicate   bigint NOT NULL,
    conflict    bigint NOT NULL,
    late        bigint NOT NULL,
    rejected    bigint NOT NULL,
    rules       bytea
) WITH (fillfactor = 50);

-- The billing table: one row per tenant, meter and billing period [start, end). The
-- key has a name so that a wider one can take its place while the table is in use.
-- A busy commit changes nearly every row, and touches no indexed column: with room for
-- a second version of each, updates stay on their page.
CREATE TABLE period_totals (
    tenant       text COLLATE "C" NOT NULL,
    meter        text COLLATE "C" NOT NULL,
    period_start bigint           NOT NULL,
    period_end   bigint           NOT NULL,
    quantity     numeric(39, 0)   NOT NULL, -- the meter's aggregated value in base units
    records      bigint           NOT NULL,
    digest       text             NOT NULL, -- 32 hexadecimal digits
    aggregation  text             NOT NULL,
    sum          numeric(39, 0)   NOT NULL, -- the sum of quantities, whatever the aggregation
    partition    bigint           NOT NULL,
    state        bytea            NOT NULL, -- what the aggregation needs to go on
    CONSTRAINT period_totals_key PRIMARY KEY (tenant, meter, period_start)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

-- A claim loads all totals of one partition.
CREATE INDEX period_totals_by_partition ON period_totals (partition);

-- The billing table as people read it: periods as times, without what only the
-- pipeline needs.
CREATE VIEW period_totals_readable AS
SELECT tenant,
       meter,
       timestamptz 'epoch' + period_start * interval '1 millisecond' AS period_start,
       timestamptz 'epoch' + period_end * interval '1 millisecond'   AS period_end,
       quantity,
       records,
       aggregation
FROM period_totals;

CREATE TABLE source_marks (
    partition bigint         NOT NULL,
    source    text           NOT NULL COLLATE "C", -- 32 hexadecimal digits
    epoch     bigint         NOT NULL,
    low_water numeric(20, 0) NOT NULL,
    above     bytea          NOT NULL, -- little-endian 64-bit words
    PRIMARY KEY (partition, source)
) WITH (fillfactor = 70);

-- The verdicts of each envelope that was not wholly accepted: runs of one byte of
-- verdict and two of length.
CREATE TABLE exceptions (
    partition bigint NOT NULL,
    "offset"  bigint NOT NULL,
    verdicts  bytea  NOT NULL,
    PRIMARY KEY (partition, "offset")
);

-- The definitions that each partition has seen, as the control envelope that
-- brought them.
CREATE TABLE definitions (
    partition   bigint NOT NULL,
    "offset"    bigint NOT NULL,
    definitions bytea  NOT NULL,
    PRIMARY KEY (partition, "offset")
);
