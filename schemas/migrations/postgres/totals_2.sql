-- The totals book, schema version 2: what quota stands on, piece by piece. Open
-- reservations change as often as they are drawn on: space for a second version keeps
-- them on their page.

CREATE TABLE quota_state (
    partition bigint           NOT NULL,
    kind      bigint           NOT NULL, -- 0 owner, 1 plan, 2 terms, 3 counter, 4 reservation, 5 early records
    tenant    text COLLATE "C" NOT NULL,
    name      text COLLATE "C" NOT NULL,
    state     bytea            NOT NULL,
    PRIMARY KEY (partition, kind, tenant, name)
) WITH (fillfactor = 50);
