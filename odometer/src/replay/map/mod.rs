//! The trace map: which fields of a row become which records.
//!
//! TOML in (`raw`), a checked map out. Fields are numbered (slots), so that reading
//! rows and making records never compares names. It reads no trace.

mod check;
mod raw;
#[cfg(test)]
mod tests;

use std::path::Path;

pub(super) use raw::{Format, QuantityUnit, TimeUnit};

use super::time::TimeReading;
use crate::config::document::{Document, DocumentError};

/// The number of a field that the map uses, in the order of [`Map::fields`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Slot(pub(super) usize);

/// A checked map.
#[derive(Debug)]
pub(super) struct Map {
    /// The source of every record.
    pub(super) source: String,
    /// How the file is laid out.
    pub(super) layout: Layout,
    /// Names of all fields in use, by slot.
    pub(super) fields: Vec<String>,
    /// Where event time comes from; without it none is sent.
    pub(super) time: Option<TimeRule>,
    /// Where the tenant comes from.
    pub(super) tenant: TenantRule,
    /// Where the subject comes from.
    pub(super) subject: Option<Slot>,
    /// Dimension names and their fields, ascending by name.
    pub(super) dimensions: Vec<(String, Slot)>,
    /// What each row becomes, in the map's order.
    pub(super) records: Vec<RecordRule>,
}

/// How a trace file is laid out, besides its compression.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// CSV or JSON lines.
    pub(super) format: Format,
    /// Names of the columns of a CSV file that has no header line.
    pub(super) columns: Option<Vec<String>>,
    /// What separates CSV cells.
    pub(super) delimiter: u8,
}

/// Where a row's event time comes from.
#[derive(Debug)]
pub(super) struct TimeRule {
    /// The field.
    pub(super) slot: Slot,
    /// How its text is read.
    pub(super) reading: TimeReading,
    /// How far one repetition of the trace is shifted, when the map says so, in
    /// milliseconds.
    pub(super) span_ms: Option<i64>,
}

/// Where a row's tenant comes from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TenantRule {
    /// The same for every row.
    Value(String),
    /// The texts of the fields, joined.
    Fields {
        /// At least one.
        slots: Vec<Slot>,
        /// What stands between them.
        join: String,
    },
}

/// One `[[record]]` of the map.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RecordRule {
    /// The meter.
    pub(super) meter: String,
    /// How much.
    pub(super) quantity: QuantityRule,
    /// Only rows whose field has this text.
    pub(super) only_where: Option<(Slot, String)>,
    /// How many earlier rules of the map feed the same meter. It becomes part of the
    /// id, so that two rules of one meter never share a key.
    pub(super) earlier_of_meter: usize,
}

/// Where a record's quantity comes from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum QuantityRule {
    /// The same for every row.
    Constant(super::amount::Amount),
    /// A field's decimal text.
    Field {
        /// The field.
        slot: Slot,
        /// The unit of a time meter's field, when it is not already the meter's.
        unit: Option<QuantityUnit>,
    },
}

impl Map {
    /// Reads and checks a map file.
    ///
    /// # Errors
    /// Names the file, the line, the key and the fix.
    pub(super) fn load(file: &Path) -> Result<Self, DocumentError> {
        check::check(&Document::read(file)?)
    }

    /// Checks the text of a map.
    #[cfg(test)]
    pub(super) fn parse(text: &str) -> Result<Self, DocumentError> {
        check::check(&Document::parse("map.toml", text.into())?)
    }

    /// The field's name, for messages.
    pub(super) fn field(&self, slot: Slot) -> &str {
        self.fields.get(slot.0).map_or("?", String::as_str)
    }
}
