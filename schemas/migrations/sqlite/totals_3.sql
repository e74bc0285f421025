-- The totals book, schema version 3: limits that were crossed, and how far each
-- channel has told of them.

CREATE TABLE quota_alerts (
    partition    INTEGER NOT NULL,
    sequence     INTEGER NOT NULL, -- offset * 65536 + number within the entry
    at           INTEGER NOT NULL, -- append time, Unix milliseconds
    tenant       TEXT    NOT NULL,
    meter        TEXT    NOT NULL,
    scope        TEXT    NOT NULL, -- tenant, subject, key
    name         TEXT    NOT NULL, -- the subject or key; empty for a tenant's own limit
    period_start INTEGER NOT NULL,
    period_end   INTEGER NOT NULL,
    percent      INTEGER NOT NULL, -- 50, 80, 100, 110
    policy       TEXT    NOT NULL,
    limit_units  INTEGER NOT NULL, -- base units
    used         INTEGER NOT NULL, -- base units
    PRIMARY KEY (partition, sequence),
    UNIQUE (tenant, meter, scope, name, period_start, percent)
) STRICT, WITHOUT ROWID;

CREATE TABLE quota_alerts_told (
    partition INTEGER NOT NULL,
    channel   TEXT    NOT NULL, -- webhook, topic
    sequence  INTEGER NOT NULL, -- the last that was told
    PRIMARY KEY (partition, channel)
) STRICT, WITHOUT ROWID;
