-- The totals book, schema version 2: what quota stands on, piece by piece.

CREATE TABLE quota_state (
    partition INTEGER NOT NULL,
    kind      INTEGER NOT NULL, -- 0 owner, 1 plan, 2 terms, 3 counter, 4 reservation, 5 early records
    tenant    TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    state     BLOB    NOT NULL,
    PRIMARY KEY (partition, kind, tenant, name)
) STRICT, WITHOUT ROWID;
