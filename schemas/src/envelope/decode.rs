//! Envelope bytes in, borrowed records out; or the name of what is wrong.

use super::frame::{self, Head, Kind, Origin};
use super::read::Reader;
use super::wire::{CONFIG, WireId, WireRecord, WireScope, WireTables};
use crate::control::Control;
use crate::limits::{
    DIMENSION_NAME_BYTES_MAX, DIMENSION_VALUE_BYTES_MAX, DIMENSIONS_MAX, ENVELOPE_BYTES_MAX, ID_BYTES_MAX,
    METER_BYTES_MAX, RESERVATION_BYTES_MAX, SOURCE_BYTES_MAX, SUBJECT_BYTES_MAX, TENANT_BYTES_MAX,
};
use crate::quantity::Quantity;
use crate::record::{EmittedId, IdRef, Record, check_text};
use crate::time::TimeMs;

/// Why bytes are not an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than an envelope may have.
    #[error("{bytes} bytes are more than an envelope's {ENVELOPE_BYTES_MAX}")]
    TooLarge {
        /// Bytes found.
        bytes: usize,
    },
    /// Does not begin as an envelope does.
    #[error("not an envelope")]
    Magic,
    /// A frame version that this build does not know.
    #[error("frame version {found} is not known to this build")]
    Version {
        /// The version found.
        found: u8,
    },
    /// A body codec that this build does not know.
    #[error("codec {found} is not known to this build")]
    Codec {
        /// The codec found.
        found: u8,
    },
    /// Ends before the length that it states.
    #[error("truncated")]
    Truncated,
    /// Goes on after the length that it states.
    #[error("bytes follow the body")]
    TrailingBytes,
    /// The bytes were changed on the way.
    #[error("checksum does not match")]
    Checksum,
    /// The frame is whole, but its content breaks a rule of the format.
    #[error("malformed body: {0}")]
    Body(&'static str),
}

/// A decoded envelope.
#[derive(Debug)]
pub enum Decoded<'a> {
    /// Usage records.
    Usage(Usage<'a>),
    /// One control record.
    Control(Box<Control<'a>>),
}

/// The records of one envelope, borrowed from its bytes. Every index was checked and
/// every text is within its limit.
#[derive(Debug)]
pub struct Usage<'a> {
    origin: Origin,
    tables: WireTables<'a>,
    records: Vec<WireRecord<'a>>,
}

/// String-table indices of a record's tenant, source and meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Index into [`Usage::strings`].
    pub tenant: usize,
    /// Index into [`Usage::strings`].
    pub source: usize,
    /// Index into [`Usage::strings`].
    pub meter: usize,
}

/// One record of a decoded envelope. What it shares with others is an index into
/// the envelope's tables, so that a reader resolves each distinct value once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Index into [`Usage::scopes`].
    pub scope: usize,
    /// The id as it came.
    pub id: IdRef<'a>,
    /// Base units.
    pub quantity: Quantity,
    /// As given; `None` when the log's time stands in.
    pub time: Option<TimeMs>,
    /// Index into [`Usage::strings`].
    pub subject: Option<usize>,
    /// Index of the dimension set, for [`Usage::dimensions`].
    pub dimensions: Option<usize>,
    /// Index into [`Usage::strings`].
    pub reservation: Option<usize>,
}

/// Decodes one envelope.
///
/// # Errors
/// [`DecodeError`] names the first rule that the bytes break.
pub fn decode(bytes: &[u8]) -> Result<Decoded<'_>, DecodeError> {
    let (head, body) = frame::open(bytes)?;
    match head.kind {
        Kind::Usage => decode_usage(head, body).map(Decoded::Usage),
        Kind::Control => decode_control(body).map(|control| Decoded::Control(Box::new(control))),
    }
}

/// How the body of a [`Control::Quota`] begins.
const QUOTA: u8 = 7;

/// Whether this is an envelope of quota operations ([`Control::Quota`]). Its frame and its
/// checksum are looked at, its operations are not.
#[must_use]
pub fn is_quota(bytes: &[u8]) -> bool {
    // Mostly this says no, before the checksum is made.
    bytes.get(frame::FRAME_BYTES) == Some(&QUOTA)
        && frame::open(bytes).is_ok_and(|(head, _)| head.kind == Kind::Control)
}

fn decode_control(body: &[u8]) -> Result<Control<'_>, DecodeError> {
    let malformed = |_| DecodeError::Body("not a control record");
    let (control, used) = bincode::borrow_decode_from_slice(body, CONFIG).map_err(malformed)?;
    if used != body.len() {
        return Err(DecodeError::Body("bytes follow the control record"));
    }
    Ok(control)
}

fn decode_usage(head: Head, body: &[u8]) -> Result<Usage<'_>, DecodeError> {
    let mut reader = Reader::new(body);
    let tables = reader.tables().ok_or(DecodeError::Body("tables do not parse"))?;
    check_tables(&tables, reader.is_plain())?;
    let mut records = Vec::with_capacity(head.count);
    for _ in 0..head.count {
        let record = reader.record().ok_or(DecodeError::Body("a record does not parse"))?;
        check_record(&record, &tables)?;
        records.push(record);
    }
    if !reader.is_at_end() {
        return Err(DecodeError::Body("bytes follow the records"));
    }
    Ok(Usage { origin: head.origin, tables, records })
}

fn check_tables(tables: &WireTables<'_>, are_plain: bool) -> Result<(), DecodeError> {
    let strings = tables.strings.as_slice();
    let within = |index: u16, bytes_max: usize| match strings.get(usize::from(index)) {
        None => Err(DecodeError::Body("string index out of range")),
        Some(text) => check_length(text, bytes_max),
    };
    // Plain texts are within the longest text of any kind already; the kind's own limit
    // is checked where it is used.
    for text in strings.iter().filter(|_| !are_plain) {
        check_text("text", text, SOURCE_BYTES_MAX)
            .map_err(|_| DecodeError::Body("a text is empty, too long or holds control characters"))?;
    }
    for scope in &tables.scopes {
        within(scope.tenant, TENANT_BYTES_MAX)?;
        within(scope.source, SOURCE_BYTES_MAX)?;
        within(scope.meter, METER_BYTES_MAX)?;
    }
    for set in &tables.dimensions {
        if set.is_empty() || set.len() > DIMENSIONS_MAX {
            return Err(DecodeError::Body("a dimension set has no or too many entries"));
        }
        for (name, value) in set {
            within(*name, DIMENSION_NAME_BYTES_MAX)?;
            within(*value, DIMENSION_VALUE_BYTES_MAX)?;
        }
        let name = |pair: &(u16, u16)| strings[usize::from(pair.0)];
        if set.windows(2).any(|pair| name(&pair[0]) >= name(&pair[1])) {
            return Err(DecodeError::Body("dimensions are not in ascending order"));
        }
    }
    Ok(())
}

const _: () = assert!(SUBJECT_BYTES_MAX <= SOURCE_BYTES_MAX && DIMENSION_VALUE_BYTES_MAX <= SOURCE_BYTES_MAX);

#[inline]
fn check_record(record: &WireRecord<'_>, tables: &WireTables<'_>) -> Result<(), DecodeError> {
    if usize::from(record.scope) >= tables.scopes.len() {
        return Err(DecodeError::Body("scope index out of range"));
    }
    if usize::from(record.dimensions) > tables.dimensions.len() {
        return Err(DecodeError::Body("dimension set index out of range"));
    }
    for (optional, bytes_max) in [(record.subject, SUBJECT_BYTES_MAX), (record.reservation, RESERVATION_BYTES_MAX)] {
        if optional > 0 {
            let text = tables.strings.get(usize::from(optional) - 1);
            check_length(text.ok_or(DecodeError::Body("string index out of range"))?, bytes_max)?;
        }
    }
    if let WireId::Text(text) = record.id {
        check_text("id", text, ID_BYTES_MAX)
            .map_err(|_| DecodeError::Body("an id is empty, too long or holds control characters"))?;
        if matches!(IdRef::of_text(text), IdRef::Uuid(_)) {
            // Two forms of one id would be two keys.
            return Err(DecodeError::Body("a UUID stands as text"));
        }
    }
    if let Some(delta) = record.time
        && tables.base_time_ms.checked_add(delta).is_none()
    {
        return Err(DecodeError::Body("a time runs past 64 bits"));
    }
    Ok(())
}

fn check_length(text: &str, bytes_max: usize) -> Result<(), DecodeError> {
    if text.len() > bytes_max {
        return Err(DecodeError::Body("a text is longer than its kind allows"));
    }
    Ok(())
}

impl<'a> Usage<'a> {
    /// Whose records these are.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Number of records, 1 to 512.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Never true: an envelope holds at least one record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The string table.
    #[must_use]
    pub fn strings(&self) -> &[&'a str] {
        &self.tables.strings
    }

    /// The distinct (tenant, source, meter) of the records.
    pub fn scopes(&self) -> impl ExactSizeIterator<Item = Scope> + '_ {
        self.tables.scopes.iter().map(|WireScope { tenant, source, meter }| Scope {
            tenant: usize::from(*tenant),
            source: usize::from(*source),
            meter: usize::from(*meter),
        })
    }

    /// Number of distinct dimension sets.
    #[must_use]
    pub fn dimension_sets(&self) -> usize {
        self.tables.dimensions.len()
    }

    /// The names and values of dimension set `set`, ascending by name.
    pub fn dimensions(&self, set: usize) -> impl Iterator<Item = (&'a str, &'a str)> + '_ {
        let string = |index: u16| self.tables.strings[usize::from(index)];
        self.tables.dimensions[set].iter().map(move |(name, value)| (string(*name), string(*value)))
    }

    /// The record at `index`.
    #[inline]
    #[must_use]
    pub fn record(&self, index: usize) -> RecordRef<'a> {
        let wire = &self.records[index];
        let optional = |number: u16| usize::from(number).checked_sub(1);
        let id = match wire.id {
            WireId::Text(text) => IdRef::Text(text),
            WireId::Uuid(bytes) => IdRef::Uuid(u128::from_be_bytes(bytes)),
            WireId::Emitted => IdRef::Emitted(EmittedId {
                source: self.origin.source,
                epoch: self.origin.epoch,
                sequence: self.origin.first_sequence + index as u64,
            }),
        };
        RecordRef {
            scope: usize::from(wire.scope),
            id,
            quantity: Quantity(wire.quantity),
            time: wire.time.map(|delta| TimeMs(self.tables.base_time_ms + delta)),
            subject: optional(wire.subject),
            dimensions: optional(wire.dimensions),
            reservation: optional(wire.reservation),
        }
    }

    /// All records in order.
    pub fn records(&self) -> impl ExactSizeIterator<Item = RecordRef<'a>> + '_ {
        (0..self.records.len()).map(|index| self.record(index))
    }

    /// The record at `index` with its own copies of everything. An emitter's own id
    /// becomes `None`, as it was given.
    #[must_use]
    pub fn to_owned_record(&self, index: usize) -> Record {
        let record = self.record(index);
        let scope = self.tables.scopes[record.scope];
        let string = |index: usize| self.tables.strings[index].to_owned();
        let pairs = record.dimensions.into_iter().flat_map(|set| self.dimensions(set));
        Record {
            tenant: string(scope.tenant.into()),
            source: string(scope.source.into()),
            id: (!matches!(record.id, IdRef::Emitted(_))).then(|| record.id.to_string()),
            meter: string(scope.meter.into()),
            quantity: record.quantity,
            time: record.time,
            subject: record.subject.map(string),
            dimensions: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            reservation: record.reservation.map(string),
        }
    }
}
