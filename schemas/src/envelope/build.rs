//! Records in, sealed envelopes out.

use super::frame::{self, FRAME_BYTES, Head, Kind, Origin};
use super::lists::Lists;
use super::wire::{CONFIG, WireId, WireRecord, WireScope, WireTables};
use super::write::put_record;
use crate::control::Control;
use crate::limits::{DECODE_BYTES_MAX, ENVELOPE_BYTES_MAX, ENVELOPE_RECORDS_MAX};
use crate::record::{IdRef, Record};

/// The record does not fit into this envelope any more: seal it and start another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the envelope is full")]
pub struct EnvelopeFull;

/// Gathers records of one partition and seals them into an envelope.
///
/// Call order: [`push`](Self::push) until it answers [`EnvelopeFull`] or enough time
/// has passed, then [`seal`](Self::seal), which empties the builder for the next
/// envelope and keeps its memory: less than a MiB, since no envelope is larger than 64 KiB.
#[derive(Debug, Default)]
pub struct EnvelopeBuilder {
    strings: Lists<u8>,
    scopes: Lists<WireScope>,
    dimensions: Lists<(u16, u16)>,
    last: Last,
    /// The dimensions that are being looked up.
    pairs: Vec<(u16, u16)>,
    base_time_ms: Option<i64>,
    /// Encoded records; tables are encoded when sealing, since they come first.
    records: Vec<u8>,
    count: usize,
    /// Upper bounds of the encoded tables and of what decoding them will claim.
    table_bytes: usize,
    decode_bytes: usize,
}

/// Numbers of what the last record had: neighbours often are of one event.
#[derive(Debug, Default)]
struct Last {
    tenant: u16,
    source: u16,
    subject: u16,
    dimensions: u16,
}

/// Bytes kept free for the lengths of the three tables and the base time.
const TABLE_HEADS_BYTES: usize = 40;
/// What a decoder claims per record and per table entry at most; a bound on the
/// in-memory size of the wire structs, strings being borrowed.
const DECODE_RECORD_BYTES: usize = 96;
const DECODE_ENTRY_BYTES: usize = 32;

const _: () = assert!(size_of::<WireRecord<'_>>() <= DECODE_RECORD_BYTES);

impl EnvelopeBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Records gathered so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether nothing has been gathered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// An upper bound of the sealed envelope's size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        FRAME_BYTES + TABLE_HEADS_BYTES + self.table_bytes + self.records.len()
    }

    /// Adds a record that passed [`Record::validate`].
    ///
    /// # Errors
    /// [`EnvelopeFull`] when a limit would be passed; the builder is unchanged.
    pub fn push(&mut self, record: &Record) -> Result<(), EnvelopeFull> {
        self.push_all(std::slice::from_ref(record))
    }

    /// Adds the records of one event, each of which passed [`Record::validate`]: all
    /// of them, or none.
    ///
    /// # Errors
    /// [`EnvelopeFull`] when a limit would be passed; the builder is unchanged.
    pub fn push_all(&mut self, records: &[Record]) -> Result<(), EnvelopeFull> {
        let cost = records.iter().map(Cost::of).fold(Cost::default(), Cost::plus);
        let fits = self.count + records.len() <= ENVELOPE_RECORDS_MAX
            && self.bytes() + cost.wire_bytes <= ENVELOPE_BYTES_MAX
            && self.decode_bytes + cost.decode_bytes <= DECODE_BYTES_MAX;
        if !fits {
            return Err(EnvelopeFull);
        }
        records.iter().for_each(|record| self.add(record));
        Ok(())
    }

    /// Adds a record that is known to fit.
    fn add(&mut self, record: &Record) {
        self.last.tenant = self.string_again(self.last.tenant, &record.tenant);
        self.last.source = self.string_again(self.last.source, &record.source);
        let meter = self.string(&record.meter);
        let scope = self.scope(WireScope { tenant: self.last.tenant, source: self.last.source, meter });
        let subject = record.subject.as_deref().map_or(0, |subject| {
            self.last.subject = self.string_again(self.last.subject, subject);
            self.last.subject + 1
        });
        let reservation = record.reservation.as_deref().map_or(0, |text| self.string(text) + 1);
        let dimensions = self.dimension_set(record);
        let time = record.time.map(|t| t.0 - *self.base_time_ms.get_or_insert(t.0));
        let id = match record.id.as_deref().map(IdRef::of_text) {
            Some(IdRef::Text(text)) => WireId::Text(text),
            Some(IdRef::Uuid(uuid)) => WireId::Uuid(uuid.to_be_bytes()),
            Some(IdRef::Emitted(_)) | None => WireId::Emitted,
        };
        let wire = WireRecord { scope, id, quantity: record.quantity.0, time, subject, dimensions, reservation };
        put_record(&wire, &mut self.records);
        self.count += 1;
        self.decode_bytes += DECODE_RECORD_BYTES;
    }

    /// Seals what was gathered and leaves the builder empty.
    ///
    /// # Panics
    /// When nothing was gathered.
    pub fn seal(&mut self, origin: Origin) -> Vec<u8> {
        assert!(self.count > 0, "an envelope holds at least one record");
        let text = |bytes| std::str::from_utf8(bytes).expect("only texts were added");
        let tables = WireTables {
            strings: self.strings.iter().map(text).collect(),
            scopes: self.scopes.iter().flatten().copied().collect(),
            dimensions: self.dimensions.iter().map(<[_]>::to_vec).collect(),
            base_time_ms: self.base_time_ms.unwrap_or(0),
        };
        let mut body = Vec::with_capacity(self.bytes());
        encode_into(&tables, &mut body);
        body.extend_from_slice(&self.records);
        let sealed = frame::seal(Head { kind: Kind::Usage, origin, count: self.count }, &body);
        self.clear();
        sealed
    }

    fn clear(&mut self) {
        self.strings.clear();
        self.scopes.clear();
        self.dimensions.clear();
        self.records.clear();
        self.last = Last::default();
        self.base_time_ms = None;
        (self.count, self.table_bytes, self.decode_bytes) = (0, 0, 0);
    }

    /// The number of a text that may well be number `last`.
    fn string_again(&mut self, last: u16, text: &str) -> u16 {
        if self.strings.get(last) == Some(text.as_bytes()) { last } else { self.string(text) }
    }

    fn string(&mut self, text: &str) -> u16 {
        let (index, new) = self.strings.number_of(text.as_bytes());
        if new {
            self.table_bytes += text.len() + 3;
            self.decode_bytes += DECODE_ENTRY_BYTES + text.len();
        }
        index
    }

    fn scope(&mut self, scope: WireScope) -> u16 {
        let (index, new) = self.scopes.number_of(&[scope]);
        if new {
            self.table_bytes += 9;
            self.decode_bytes += DECODE_ENTRY_BYTES;
        }
        index
    }

    fn dimension_set(&mut self, record: &Record) -> u16 {
        if record.dimensions.is_empty() {
            return 0;
        }
        if !self.has_last_dimensions(record) {
            self.last.dimensions = self.new_dimension_set(record);
        }
        self.last.dimensions + 1
    }

    fn has_last_dimensions(&self, record: &Record) -> bool {
        let is = |number, text: &str| self.strings.get(number) == Some(text.as_bytes());
        self.dimensions.get(self.last.dimensions).is_some_and(|last| {
            last.len() == record.dimensions.len()
                && last
                    .iter()
                    .zip(&record.dimensions)
                    .all(|(pair, (name, value))| is(pair.0, name) && is(pair.1, value))
        })
    }

    fn new_dimension_set(&mut self, record: &Record) -> u16 {
        let mut pairs = std::mem::take(&mut self.pairs);
        pairs.clear();
        pairs.extend(record.dimensions.iter().map(|(name, value)| (self.string(name), self.string(value))));
        let (index, new) = self.dimensions.number_of(&pairs);
        if new {
            self.table_bytes += 3 + 6 * pairs.len();
            self.decode_bytes += DECODE_ENTRY_BYTES + 4 * pairs.len();
        }
        self.pairs = pairs;
        index
    }
}

/// Seals one control record.
///
/// # Panics
/// When it is larger than an envelope: definitions are limited far below that.
#[must_use]
pub fn encode_control(control: &Control, origin: Origin) -> Vec<u8> {
    let mut body = Vec::new();
    encode_into(control, &mut body);
    frame::seal(Head { kind: Kind::Control, origin, count: 1 }, &body)
}

pub(super) fn encode_into<T: bincode::Encode>(value: &T, out: &mut Vec<u8>) {
    bincode::encode_into_std_write(value, out, CONFIG).expect("writing to memory cannot fail");
}

/// What more records can add at most.
#[derive(Clone, Copy, Default)]
struct Cost {
    wire_bytes: usize,
    decode_bytes: usize,
}

impl Cost {
    fn of(record: &Record) -> Self {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let shared = record.tenant.len() + record.source.len() + record.meter.len();
        let own = text(&record.id) + text(&record.subject) + text(&record.reservation);
        let dimensions: usize = record.dimensions.iter().map(|(n, v)| n.len() + v.len() + 12).sum();
        // 64: scope entry, length prefixes and the varint fields at their widest.
        let wire_bytes = shared + own + dimensions + 64;
        let entries = 6 + 3 * record.dimensions.len();
        Self { wire_bytes, decode_bytes: wire_bytes + DECODE_RECORD_BYTES + entries * DECODE_ENTRY_BYTES }
    }

    fn plus(self, other: Self) -> Self {
        Self { wire_bytes: self.wire_bytes + other.wire_bytes, decode_bytes: self.decode_bytes + other.decode_bytes }
    }
}
