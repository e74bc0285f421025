//! `GET /v1/records`: raw records with their verdicts, page by page in log order, and
//! `GET /v1/rejected`: log entries that could not be decoded, kept whole.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use odometer_sink::raw::{OwnedRow, RecordFilter, RejectedEnvelope, RejectedFilter};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Api;
use super::parameters::Parameters;
use super::problem::Problem;

pub(super) const PARAMETERS: [&str; 9] = ["tenant", "id", "source", "meter", "from", "to", "verdict", "limit", "after"];
pub(super) const REJECTED_PARAMETERS: [&str; 3] = ["partition", "limit", "after"];
/// Records of one page. A record may have 7 KiB of dimensions, so a page stays below
/// eight megabytes.
const RECORDS_MAX: usize = 1000;
const RECORDS_DEFAULT: usize = 100;
/// Entries of one page. One may have 64 KiB, and base64 adds a third.
const REJECTED_MAX: usize = 100;
const REJECTED_DEFAULT: usize = 20;

const VERDICTS: [(&str, &str); 5] = [
    ("accepted", "accepted"),
    ("duplicate", "duplicate"),
    ("conflict", "conflict"),
    ("late", "late"),
    ("rejected", "rejected"),
];

#[derive(Debug, Serialize)]
pub(crate) struct RecordsAnswer {
    records: Vec<RecordAnswer>,
    /// What `after` takes for the next page; `null` on the last one.
    next: Option<String>,
}

#[derive(Debug, Serialize)]
struct RecordAnswer {
    /// `partition/offset/index` in the log.
    position: String,
    tenant: String,
    source: String,
    id: String,
    /// Whether the emitter made the id.
    id_emitted: bool,
    meter: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// Base units.
    quantity: String,
    time: String,
    /// Whether the producer gave the time; otherwise it is the append time.
    time_given: bool,
    dimensions: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reservation: Option<String>,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    append_time: String,
}

/// Answers with one page of a tenant's records.
pub(crate) async fn list(State(api): State<Api>, uri: Uri) -> Result<Json<RecordsAnswer>, Problem> {
    let parameters = Parameters::read(&uri, &PARAMETERS)?;
    let limit = parameters.limit(RECORDS_DEFAULT, RECORDS_MAX)?;
    let filter = RecordFilter {
        tenant: parameters.required("tenant", "acme")?.to_owned(),
        id: parameters.owned("id")?,
        source: parameters.owned("source")?,
        meter: parameters.owned("meter")?,
        from: parameters.time("from")?,
        to: parameters.time("to")?,
        verdict: parameters.choice("verdict", &VERDICTS)?.map(str::to_owned),
        after: parameters.after_position()?,
        // One more tells whether there is a next page.
        limit: limit + 1,
    };
    let mut rows = api.books.raw(move |book| book.records(&filter)).await?;
    let next = page(&mut rows, limit).map(|last| last.position.to_string());
    Ok(Json(RecordsAnswer { records: rows.into_iter().map(show).collect(), next }))
}

fn show(row: OwnedRow) -> RecordAnswer {
    RecordAnswer {
        position: row.position.to_string(),
        tenant: row.tenant,
        source: row.source,
        id: row.id,
        id_emitted: row.id_emitted,
        meter: row.meter,
        subject: row.subject,
        quantity: row.quantity.to_string(),
        time: row.time.to_string(),
        time_given: row.time_given,
        dimensions: dimensions(&row.dimensions),
        reservation: row.reservation,
        verdict: row.verdict.name(),
        reason: row.verdict.reason(),
        append_time: row.append_time.to_string(),
    }
}

/// The book's JSON as it is; as a text, should somebody have damaged it.
fn dimensions(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned())
        .or_else(|_| serde_json::value::to_raw_value(text))
        .expect("a text always serialises")
}

#[derive(Debug, Serialize)]
pub(crate) struct RejectedAnswer {
    entries: Vec<EntryAnswer>,
    /// What `after` takes for the next page; `null` on the last one.
    next: Option<String>,
}

#[derive(Debug, Serialize)]
struct EntryAnswer {
    partition: u32,
    offset: u64,
    append_time: String,
    verdict: &'static str,
    reason: Option<&'static str>,
    bytes_base64: String,
}

/// Answers with one page of undecodable log entries.
pub(crate) async fn rejected(State(api): State<Api>, uri: Uri) -> Result<Json<RejectedAnswer>, Problem> {
    let parameters = Parameters::read(&uri, &REJECTED_PARAMETERS)?;
    let partitions = u32::try_from(api.progress.partitions.len()).unwrap_or(u32::MAX);
    let limit = parameters.limit(REJECTED_DEFAULT, REJECTED_MAX)?;
    let filter = RejectedFilter {
        partition: parameters.partition(partitions)?,
        after: parameters.after_entry()?,
        limit: limit + 1,
    };
    let mut entries = api.books.raw(move |book| book.rejected(&filter)).await?;
    let next = page(&mut entries, limit).map(|last| format!("{}/{}", last.partition, last.offset));
    Ok(Json(RejectedAnswer { entries: entries.iter().map(show_entry).collect(), next }))
}

fn show_entry(entry: &RejectedEnvelope) -> EntryAnswer {
    EntryAnswer {
        partition: entry.partition,
        offset: entry.offset,
        append_time: entry.append_time.to_string(),
        verdict: entry.verdict.name(),
        reason: entry.verdict.reason(),
        bytes_base64: BASE64_STANDARD.encode(&entry.bytes),
    }
}

/// Cuts what was found to a page; its last entry, when there is a next one.
fn page<T>(found: &mut Vec<T>, limit: usize) -> Option<&T> {
    let has_next = found.len() > limit;
    found.truncate(limit);
    found.last().filter(|_| has_next)
}
