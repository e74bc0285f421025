//! What the raw book of a data directory holds as rejected: log entries that could not
//! be decoded, and records that were refused by verdict.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::bail;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use odometer_schemas::row::RawRow;
use odometer_sink::raw::{OwnedRow, RawCursor, RawVisitor, RejectedEnvelope, RollupRow, Scanned};
use serde_json::{Value, json};

use super::{List, Listed};
use crate::node::files::Files;
use crate::node::footing::BookPlace;

/// What a scan picks out.
struct Picker<'a> {
    is_wanted: &'a dyn Fn(&str) -> bool,
    limit: usize,
    found: Vec<Found>,
    has_more: bool,
}

enum Found {
    Entry(RejectedEnvelope),
    Record(OwnedRow),
}

pub(super) fn list(data_dir: &Path, limit: usize) -> anyhow::Result<List> {
    let (found, has_more) = pick(data_dir, &|_| true, limit)?;
    let listed = found.iter().map(|found| Listed { row: found.row(), json: found.json() }).collect();
    Ok(List { header: ["PLACE", "REJECTED AT", "BYTES", "WHAT", "REASON"], listed, has_more })
}

pub(super) fn show(data_dir: &Path, place: &str) -> anyhow::Result<Value> {
    let (found, _) = pick(data_dir, &|found| found == place, 1)?;
    match found.first() {
        Some(found) => Ok(found.json()),
        None => bail!(
            "nothing was rejected at {place}; `odometer rejects list` shows places such as `0/17` (a log entry) and \
             `0/17/3` (a record in one)"
        ),
    }
}

fn pick(data_dir: &Path, is_wanted: &dyn Fn(&str) -> bool, limit: usize) -> anyhow::Result<(Vec<Found>, bool)> {
    let mut picker = Picker { is_wanted, limit, found: Vec::new(), has_more: false };
    BookPlace::Files(Files::new(data_dir)).raw()?.scan(&mut picker)?;
    Ok((picker.found, picker.has_more))
}

impl Picker<'_> {
    fn offer(&mut self, found: impl FnOnce() -> Found) {
        if self.found.len() < self.limit {
            self.found.push(found());
        } else {
            self.has_more = true;
        }
    }
}

impl RawVisitor for Picker<'_> {
    fn cursors(&mut self, _: &[RawCursor]) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn row(&mut self, row: Scanned<'_, RawRow<'_>>, _: u64) {
        // What does not read back is for `odometer verify` to show.
        let Scanned::Row(row) = row else { return };
        if row.verdict.name() == "rejected" && (self.is_wanted)(&row.position.to_string()) {
            self.offer(|| Found::Record(row.into()));
        }
    }

    fn rejected(&mut self, envelope: Scanned<'_, RejectedEnvelope>) {
        let Scanned::Row(entry) = envelope else { return };
        if (self.is_wanted)(&place_of(entry)) {
            self.offer(|| Found::Entry(entry.clone()));
        }
    }

    fn rollup(&mut self, _: Scanned<'_, RollupRow<'_>>) {}
}

fn place_of(entry: &RejectedEnvelope) -> String {
    format!("{}/{}", entry.partition, entry.offset)
}

impl Found {
    fn row(&self) -> [String; super::COLUMNS] {
        match self {
            Self::Entry(entry) => [
                place_of(entry),
                entry.append_time.to_string(),
                entry.bytes.len().to_string(),
                "log entry".into(),
                entry.verdict.reason().unwrap_or_default().into(),
            ],
            Self::Record(row) => [
                row.position.to_string(),
                row.append_time.to_string(),
                String::new(),
                format!("record {} of {}: {} {}", row.id, row.tenant, row.quantity, row.meter),
                row.verdict.reason().unwrap_or_default().into(),
            ],
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Entry(entry) => json!({
                "place": place_of(entry),
                "kind": "log_entry",
                "rejected_at": entry.append_time.to_string(),
                "reason": entry.verdict.reason(),
                "bytes_base64": BASE64_STANDARD.encode(&entry.bytes),
            }),
            Self::Record(row) => json!({
                "place": row.position.to_string(),
                "kind": "record",
                "rejected_at": row.append_time.to_string(),
                "reason": row.verdict.reason(),
                "tenant": row.tenant,
                "source": row.source,
                "id": row.id,
                "meter": row.meter,
                "subject": row.subject,
                "quantity": row.quantity.to_string(),
                "time": row.time.to_string(),
                "dimensions": serde_json::from_str(&row.dimensions).unwrap_or_else(|_| json!(row.dimensions)),
            }),
        }
    }
}
