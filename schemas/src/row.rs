//! The raw book's row: one judged record with everything that is known of it, and
//! a checksum over all of it.

use crate::digest::{Content, Fingerprint, Hasher, RecordHash, TextHash};
use crate::log::Position;
use crate::record::{EmittedId, IdRef};
use crate::verdict::Verdict;

/// One judged record, borrowed from its envelope or from a book's result row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRow<'a> {
    /// Whose usage.
    pub tenant: &'a str,
    /// Of what.
    pub meter: &'a str,
    /// Who produced it.
    pub source: &'a str,
    /// The id as text.
    pub id: &'a str,
    /// Whether the emitter made the id from its sequence.
    pub id_emitted: bool,
    /// User, agent or API key.
    pub subject: Option<&'a str>,
    /// Base units.
    pub quantity: i64,
    /// Event time, Unix milliseconds; the append time when none was given.
    pub time_ms: i64,
    /// Whether the producer gave the time.
    pub time_given: bool,
    /// A JSON object of the dimensions, names ascending ([`dimensions_json`]).
    pub dimensions: &'a str,
    /// The reservation that it draws down.
    pub reservation: Option<&'a str>,
    /// Where it stands in the log.
    pub position: Position,
    /// Records in its envelope, so that a missing one shows.
    pub envelope_records: u16,
    /// The decision.
    pub verdict: Verdict,
    /// When the log took it, Unix milliseconds.
    pub append_time_ms: i64,
}

/// A dimensions text is not what [`dimensions_json`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("dimensions are not a JSON object of texts")]
pub struct DimensionsError;

/// The one JSON text of a set of dimensions in ascending order of names; `{}` for
/// none.
pub fn dimensions_json<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::from("{");
    for (name, value) in pairs {
        let separator = if text.len() > 1 { "," } else { "" };
        text.push_str(separator);
        text.push_str(&json_text(name));
        text.push(':');
        text.push_str(&json_text(value));
    }
    text.push('}');
    text
}

/// Reads what [`dimensions_json`] wrote, in the text's order.
///
/// # Errors
/// When the text is no JSON object of texts.
pub fn parse_dimensions(text: &str) -> Result<Vec<(String, String)>, DimensionsError> {
    let map: std::collections::BTreeMap<String, String> = serde_json::from_str(text).map_err(|_| DimensionsError)?;
    Ok(map.into_iter().collect())
}

fn json_text(text: &str) -> String {
    serde_json::to_string(text).expect("a text always has a JSON form")
}

impl RawRow<'_> {
    /// The checksum over all columns, 64 bits of XXH3.
    #[must_use]
    pub fn checksum(&self, hasher: &Hasher, scratch: &mut Vec<u8>) -> u64 {
        scratch.clear();
        for text in [self.tenant, self.meter, self.source, self.id, self.dimensions] {
            put_text(scratch, Some(text));
        }
        put_text(scratch, self.subject);
        put_text(scratch, self.reservation);
        for number in [self.quantity, self.time_ms, self.append_time_ms] {
            scratch.extend_from_slice(&number.to_le_bytes());
        }
        scratch.extend_from_slice(&self.position.partition.to_le_bytes());
        scratch.extend_from_slice(&self.position.offset.to_le_bytes());
        scratch.extend_from_slice(&self.position.index.to_le_bytes());
        scratch.extend_from_slice(&self.envelope_records.to_le_bytes());
        scratch.extend_from_slice(&[self.verdict.code(), u8::from(self.time_given), u8::from(self.id_emitted)]);
        hasher.bytes64(scratch)
    }

    /// The fingerprint of the row's key, as the aggregator made it; `None` when the
    /// id text was changed so that it is no emitter's id any more.
    #[must_use]
    pub fn fingerprint(&self, hasher: &Hasher) -> Option<Fingerprint> {
        let scope = hasher.scope(hasher.text(self.tenant), hasher.text(self.source), hasher.text(self.meter));
        let id = if self.id_emitted { IdRef::Emitted(EmittedId::parse(self.id)?) } else { IdRef::of_text(self.id) };
        Some(hasher.fingerprint(scope, &id))
    }

    /// The hash that the record added to its total's digest. `dimensions` is
    /// [`dimensions_hash`] of the row's text, which many rows share.
    #[must_use]
    pub fn record_hash(&self, hasher: &Hasher, fingerprint: Fingerprint, dimensions: TextHash) -> RecordHash {
        let optional = |text: Option<&str>| text.map_or_else(TextHash::default, |text| hasher.text(text));
        let content = Content {
            quantity: self.quantity,
            time_ms: self.time_given.then_some(self.time_ms),
            subject: optional(self.subject),
            dimensions,
            reservation: optional(self.reservation),
        };
        hasher.record(fingerprint, &content)
    }
}

/// The hash of a dimensions text.
///
/// # Errors
/// When the text is no JSON object of texts.
pub fn dimensions_hash(hasher: &Hasher, text: &str) -> Result<TextHash, DimensionsError> {
    let pairs = parse_dimensions(text)?;
    Ok(hasher.dimensions(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))))
}

/// Length first, so that texts are joined without ambiguity; absence has a length
/// that no text has.
fn put_text(out: &mut Vec<u8>, text: Option<&str>) {
    let bytes = text.map(str::as_bytes);
    let length = bytes.map_or(u32::MAX, |b| u32::try_from(b.len()).unwrap_or(u32::MAX - 1));
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASHER: Hasher = Hasher::new(3);

    fn row() -> RawRow<'static> {
        RawRow {
            tenant: "acme",
            meter: "api_call",
            source: "worker",
            id: "1",
            id_emitted: false,
            subject: None,
            quantity: 1,
            time_ms: 1_700_000_000_000,
            time_given: true,
            dimensions: "{}",
            reservation: None,
            position: Position { partition: 1, offset: 2, index: 3 },
            envelope_records: 4,
            verdict: Verdict::Accepted,
            append_time_ms: 1_700_000_000_001,
        }
    }

    #[test]
    fn the_checksum_covers_every_column() {
        let base = row();
        let position = base.position;
        let changed = [
            RawRow { tenant: "acm", ..base },
            RawRow { meter: "x", ..base },
            RawRow { source: "x", ..base },
            RawRow { id: "2", ..base },
            RawRow { id_emitted: true, ..base },
            RawRow { subject: Some("s"), ..base },
            RawRow { quantity: 2, ..base },
            RawRow { time_ms: 0, ..base },
            RawRow { time_given: false, ..base },
            RawRow { dimensions: "{\"a\":\"b\"}", ..base },
            RawRow { reservation: Some("r"), ..base },
            RawRow { position: Position { partition: 2, ..position }, ..base },
            RawRow { position: Position { offset: 3, ..position }, ..base },
            RawRow { position: Position { index: 4, ..position }, ..base },
            RawRow { envelope_records: 5, ..base },
            RawRow { verdict: Verdict::Late, ..base },
            RawRow { append_time_ms: 0, ..base },
        ];
        let mut scratch = Vec::new();
        let mut seen = vec![base.checksum(&HASHER, &mut scratch)];
        for row in changed {
            let checksum = row.checksum(&HASHER, &mut scratch);
            assert!(!seen.contains(&checksum), "{row:?}");
            seen.push(checksum);
        }
    }

    #[test]
    fn dimensions_survive_their_text() {
        let pairs = [("a", "quote \" and \\"), ("b", "é\u{1f600}")];
        let text = dimensions_json(pairs.into_iter());
        let read = parse_dimensions(&text).unwrap();
        assert_eq!(read, pairs.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(dimensions_json(std::iter::empty()), "{}");
        assert!(parse_dimensions("{\"a\":1}").is_err());
        assert_eq!(dimensions_hash(&HASHER, &text), Ok(HASHER.dimensions(pairs.into_iter())));
    }
}
