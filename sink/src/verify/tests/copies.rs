use std::ops::ControlFlow;

use odometer_schemas::row::RawRow;

use super::super::*;
use super::books::{Books, tenant};
use crate::raw::{
    OwnedRow, RawBatch, RawVisitor, RecordFilter, RejectedEnvelope, RejectedFilter, RollupRow, Scanned, SqliteRaw,
    UsageQuery, UsageRow,
};
use crate::totals::SqliteTotals;

/// A raw book whose engine keeps every row twice.
struct Twice(SqliteRaw);

/// Shows every row twice to the visitor inside.
struct Doubling<'v>(&'v mut dyn RawVisitor);

impl RawVisitor for Doubling<'_> {
    fn cursors(&mut self, cursors: &[RawCursor]) -> ControlFlow<()> {
        self.0.cursors(cursors)
    }

    fn row(&mut self, row: Scanned<'_, RawRow<'_>>, stored_hash: u64) {
        self.0.row(row, stored_hash);
        self.0.row(row, stored_hash);
    }

    fn rejected(&mut self, envelope: Scanned<'_, RejectedEnvelope>) {
        self.0.rejected(envelope);
    }

    fn rollup(&mut self, rollup: Scanned<'_, RollupRow<'_>>) {
        self.0.rollup(rollup);
    }
}

impl RawBook for Twice {
    fn cursors(&mut self) -> Result<Vec<RawCursor>, BookError> {
        self.0.cursors()
    }

    fn write(&mut self, batch: &RawBatch) -> Result<(), BookError> {
        self.0.write(batch)
    }

    fn records(&mut self, filter: &RecordFilter) -> Result<Vec<OwnedRow>, BookError> {
        self.0.records(filter)
    }

    fn usage(&mut self, query: &UsageQuery) -> Result<Vec<UsageRow>, BookError> {
        self.0.usage(query)
    }

    fn rejected(&mut self, filter: &RejectedFilter) -> Result<Vec<RejectedEnvelope>, BookError> {
        self.0.rejected(filter)
    }

    fn scan(&mut self, visitor: &mut dyn RawVisitor) -> Result<(), BookError> {
        self.0.scan(&mut Doubling(visitor))
    }
}

#[test]
fn copies_are_reported_and_count_for_nothing() {
    let books = Books::agreeing();
    let mut totals = SqliteTotals::open_read_only(&books.path("totals")).unwrap();
    let mut raw = Twice(SqliteRaw::open_read_only(&books.path("raw")).unwrap());
    for tenant in [None, Some(tenant(0)), Some(tenant(1))] {
        let scope = VerifyScope { tenant, period: None };
        let mut attendant = Attendant { progress: &mut |_| {}, wait: &mut |_| false };
        let report = verify(&mut totals, &mut raw, &scope, &mut attendant).unwrap();
        let Report::Proven(findings) = report else { panic!("{report:?}") };
        assert_eq!(findings.differences, [], "{scope:?}");
        assert_eq!((findings.rows, findings.copies), (30, 15));
    }
}
