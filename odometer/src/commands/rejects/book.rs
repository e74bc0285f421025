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

#[cfg(test)]
mod tests {
    use odometer_schemas::envelope::{EnvelopeBuilder, Origin};
    use odometer_schemas::quantity::Quantity;
    use odometer_schemas::record::{Dimensions, Record};

    use super::*;
    use crate::config::Config;
    use crate::node::Node;

    fn envelope_of_unknown_usage() -> Vec<u8> {
        let mut builder = EnvelopeBuilder::new();
        let record = Record {
            tenant: "acme".into(),
            source: "s".into(),
            id: Some("r-1".into()),
            meter: "nobody.knows".into(),
            quantity: Quantity(7),
            time: None,
            subject: None,
            dimensions: Dimensions::default(),
            reservation: None,
        };
        builder.push(&record).unwrap();
        builder.seal(Origin::default())
    }

    #[test]
    fn entries_and_records_that_were_rejected_are_listed_and_shown() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.server.data_dir = directory.path().to_owned();
        config.server.partitions = 1;
        let node = Node::start(&config).unwrap();
        let append = |bytes| node.appender().append(0, bytes).wait_blocking().unwrap().offset;
        let (entry, record) = (append(b"ODOX".to_vec()), append(envelope_of_unknown_usage()));
        node.drain().unwrap();

        let (entry, record) = (format!("0/{entry}"), format!("0/{record}/0"));
        let List { mut listed, has_more, .. } = list(directory.path(), 10).unwrap();
        listed.sort_by_key(|listed| listed.row[0].len());
        let places: Vec<&str> = listed.iter().map(|listed| listed.row[0].as_str()).collect();
        assert_eq!((places.as_slice(), has_more), ([entry.as_str(), record.as_str()].as_slice(), false));
        assert!(list(directory.path(), 1).unwrap().has_more);

        let shown = show(directory.path(), &entry).unwrap();
        assert_eq!((&shown["reason"], &shown["bytes_base64"]), (&json!("not_an_envelope"), &json!("T0RPWA==")));
        let shown = show(directory.path(), &record).unwrap();
        let seen = ["reason", "tenant", "id", "quantity"].map(|name| shown[name].as_str().unwrap());
        assert_eq!(seen, ["unknown_meter", "acme", "r-1", "7"]);
        let missing = show(directory.path(), "0/99").unwrap_err().to_string();
        assert!(missing.starts_with("nothing was rejected at 0/99"), "{missing}");
    }
}
