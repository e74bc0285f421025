//! Rows by position in, missing and misplaced ones out: every envelope's rows must be
//! 0, 1, 2 … up to the size that they state.

use odometer_schemas::log::Position;
use odometer_schemas::row::RawRow;

use super::difference::{Difference, Differences};

/// Finds identical copies of one position, which an engine may keep for a while and
/// which count for nothing. Rows come by position.
#[derive(Debug, Default)]
pub(super) struct Copies {
    last: Option<(Position, u64)>,
    pub(super) found: u64,
}

impl Copies {
    /// Whether the row is a copy of the one before.
    pub(super) fn is_copy(&mut self, position: Position, checksum: u64) -> bool {
        let is_copy = self.last.replace((position, checksum)) == Some((position, checksum));
        self.found += u64::from(is_copy);
        is_copy
    }
}

/// Follows the rows of one envelope after the other.
#[derive(Debug, Default)]
pub(super) struct EnvelopeCheck {
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    last: Position,
    last_checksum: u64,
    records: u16,
    next_index: u16,
}

impl EnvelopeCheck {
    /// Takes the next row by position, copies excepted.
    pub(super) fn row(&mut self, row: &RawRow<'_>, checksum: u64, differences: &mut Differences) {
        let position = row.position;
        match &mut self.current {
            Some(current) if current.last == position => {
                let first = current.last_checksum;
                return differences.push(|| Difference::PositionTwice { position, first, second: checksum });
            }
            Some(current) if current.holds(position) => {}
            _ => {
                self.finish(differences);
                let records = row.envelope_records;
                self.current = Some(Current { last: position, last_checksum: checksum, records, next_index: 0 });
            }
        }
        if let Some(current) = &mut self.current {
            current.row(row, checksum, differences);
        }
    }

    /// The last envelope has no more rows.
    pub(super) fn finish(&mut self, differences: &mut Differences) {
        if let Some(current) = self.current.take() {
            current.missing_up_to(current.records, differences);
        }
    }
}

impl Current {
    fn holds(&self, position: Position) -> bool {
        (self.last.partition, self.last.offset) == (position.partition, position.offset)
    }

    fn row(&mut self, row: &RawRow<'_>, checksum: u64, differences: &mut Differences) {
        let position = row.position;
        if row.envelope_records != self.records || position.index >= self.records {
            let envelope_records = self.records;
            differences.push(|| Difference::EnvelopeSize { position, envelope_records, stated: row.envelope_records });
        }
        self.missing_up_to(position.index.min(self.records), differences);
        self.next_index = position.index.saturating_add(1);
        self.last = position;
        self.last_checksum = checksum;
    }

    fn missing_up_to(&self, end: u16, differences: &mut Differences) {
        for index in self.next_index..end {
            let position = Position { index, ..self.last };
            differences.push(|| Difference::MissingRow { position, envelope_records: self.records });
        }
    }
}
