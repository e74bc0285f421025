-- The totals book, schema version 3: limits that were crossed, and how far each
-- channel has told of them.

CREATE TABLE quota_alerts (
    partition    bigint           NOT NULL,
    sequence     bigint           NOT NULL, -- offset * 65536 + number within the entry
    at           bigint           NOT NULL, -- append time, Unix milliseconds
    tenant       text COLLATE "C" NOT NULL,
    meter        text COLLATE "C" NOT NULL,
    scope        text COLLATE "C" NOT NULL, -- tenant, subject, key
    name         text COLLATE "C" NOT NULL, -- the subject or key; empty for a tenant's own limit
    period_start bigint           NOT NULL,
    period_end   bigint           NOT NULL,
    percent      bigint           NOT NULL, -- 50, 80, 100, 110
    policy       text             NOT NULL,
    limit_units  bigint           NOT NULL, -- base units
    used         bigint           NOT NULL, -- base units
    PRIMARY KEY (partition, sequence),
    UNIQUE (tenant, meter, scope, name, period_start, percent)
);

CREATE TABLE quota_alerts_told (
    partition bigint NOT NULL,
    channel   text   NOT NULL, -- webhook, topic
    sequence  bigint NOT NULL, -- the last that was told
    PRIMARY KEY (partition, channel)
);
