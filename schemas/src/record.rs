//! One usage fact, owned and borrowed, and the checks that every one passes before
//! it may enter the log.

use std::fmt;

use crate::limits::{
    DIMENSION_NAME_BYTES_MAX, DIMENSION_VALUE_BYTES_MAX, DIMENSIONS_MAX, ID_BYTES_MAX, METER_BYTES_MAX,
    RESERVATION_BYTES_MAX, SOURCE_BYTES_MAX, SUBJECT_BYTES_MAX, TENANT_BYTES_MAX,
};
use crate::quantity::Quantity;
use crate::time::TimeMs;

/// Names of dimensions and their values, in ascending order of names.
pub type Dimensions = Vec<(String, String)>;

/// One usage fact. Its key is (tenant, source, id, meter): one event may feed
/// several meters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The organisation that is metered and billed.
    pub tenant: String,
    /// Who produced it; ids are unique within a source.
    pub source: String,
    /// The caller's id, or none when the emitter makes one from its sequence.
    pub id: Option<String>,
    /// What is counted.
    pub meter: String,
    /// How much, in the meter's base unit.
    pub quantity: Quantity,
    /// When it happened; without it, when the log took it.
    pub time: Option<TimeMs>,
    /// User, agent or API key within the tenant.
    pub subject: Option<String>,
    /// At most [`DIMENSIONS_MAX`], ascending, no name twice.
    pub dimensions: Dimensions,
    /// The reservation that this usage draws down.
    pub reservation: Option<String>,
}

/// An id as the wire carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdRef<'a> {
    /// The caller's text, unless it is a canonical UUID.
    Text(&'a str),
    /// A lower-case, hyphenated UUID, as the number that its digits are.
    Uuid(u128),
    /// Made by an emitter: (source, epoch, sequence) of the envelope and index.
    Emitted(EmittedId),
}

/// What makes an emitter's own id unique for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EmittedId {
    /// The emitter's random identity.
    pub source: u128,
    /// Raised when the emitter restarts with its state.
    pub epoch: u32,
    /// The record's number within (source, epoch, partition).
    pub sequence: u64,
}

impl<'a> IdRef<'a> {
    /// The one wire form of a caller's id: canonical UUIDs in sixteen bytes, all
    /// else as text. Two texts are equal exactly when their wire forms are.
    #[must_use]
    pub fn of_text(text: &'a str) -> Self {
        parse_uuid(text.as_bytes()).map_or(Self::Text(text), Self::Uuid)
    }
}

impl fmt::Display for IdRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Uuid(n) => {
                let group = |shift: u32, bits: u32| (n >> shift) & ((1 << bits) - 1);
                write!(
                    f,
                    "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                    group(96, 32),
                    group(80, 16),
                    group(64, 16),
                    group(48, 16),
                    group(0, 48)
                )
            }
            Self::Emitted(id) => write!(f, "{:032x}-{}-{}", id.source, id.epoch, id.sequence),
        }
    }
}

impl EmittedId {
    /// Reads what [`IdRef`] displays for an emitter's id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (source, epoch, sequence) = (parts.next()?, parts.next()?, parts.next()?);
        if source.len() != 32 || parts.next().is_some() {
            return None;
        }
        Some(Self {
            source: u128::from_str_radix(source, 16).ok()?,
            epoch: epoch.parse().ok()?,
            sequence: sequence.parse().ok()?,
        })
    }
}

/// The bytes of a canonical UUID text: lower-case hexadecimal, hyphens at 8, 13, 18
/// and 23 (RFC 9562, section 4). `None` for any other text.
fn parse_uuid(text: &[u8]) -> Option<u128> {
    let text: &[u8; 36] = text.try_into().ok()?;
    let mut number = 0;
    for (i, byte) in text.iter().enumerate() {
        let value = match (i, byte) {
            (8 | 13 | 18 | 23, b'-') => continue,
            (8 | 13 | 18 | 23, _) => return None,
            (_, b'0'..=b'9') => byte - b'0',
            (_, b'a'..=b'f') => byte - b'a' + 10,
            _ => return None,
        };
        number = (number << 4) | u128::from(value);
    }
    Some(number)
}

/// A record that may not enter the log: which field, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct FieldError {
    /// The field's name as a caller writes it.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl FieldError {
    /// An error of `field`.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }
}

/// Checks one text of a record: not empty, not too long, no control characters
/// (they break every table, CSV and log line that the text will ever stand in).
///
/// # Errors
/// Names the field and the limit.
#[inline]
pub fn check_text(field: &'static str, text: &str, bytes_max: usize) -> Result<(), FieldError> {
    if text.is_empty() {
        return Err(FieldError::new(field, "must not be empty"));
    }
    if text.len() > bytes_max {
        return Err(FieldError::new(field, format!("has {} bytes; at most {bytes_max} are allowed", text.len())));
    }
    if !is_printable_ascii(text.as_bytes()) && text.chars().any(char::is_control) {
        return Err(FieldError::new(field, "must not hold control characters"));
    }
    Ok(())
}

/// Whether all bytes are ASCII from space to tilde, as in nearly every text. Looks at
/// every byte without branching, so that the compiler can take many at a time.
#[inline]
fn is_printable_ascii(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |all, byte| all & (byte.wrapping_sub(0x20) < 0x5f))
}

impl Record {
    /// Checks every field against its limit.
    ///
    /// # Errors
    /// Names the first field that is wrong.
    pub fn validate(&self) -> Result<(), FieldError> {
        check_text("tenant", &self.tenant, TENANT_BYTES_MAX)?;
        check_text("source", &self.source, SOURCE_BYTES_MAX)?;
        check_text("meter", &self.meter, METER_BYTES_MAX)?;
        let optional = [
            ("id", &self.id, ID_BYTES_MAX),
            ("subject", &self.subject, SUBJECT_BYTES_MAX),
            ("reservation", &self.reservation, RESERVATION_BYTES_MAX),
        ];
        for (field, text, bytes_max) in optional {
            text.as_ref().map_or(Ok(()), |text| check_text(field, text, bytes_max))?;
        }
        if let Some(time) = self.time {
            time.checked().map_err(|e| FieldError::new("time", e.to_string()))?;
        }
        check_dimensions(&self.dimensions)
    }
}

/// Checks a record's dimensions: count, sizes, order.
///
/// # Errors
/// Names what is wrong.
pub fn check_dimensions(dimensions: &[(String, String)]) -> Result<(), FieldError> {
    if dimensions.len() > DIMENSIONS_MAX {
        return Err(FieldError::new(
            "dimensions",
            format!("has {} entries; at most {DIMENSIONS_MAX} are allowed", dimensions.len()),
        ));
    }
    for (name, value) in dimensions {
        check_text("dimensions", name, DIMENSION_NAME_BYTES_MAX)?;
        check_text("dimensions", value, DIMENSION_VALUE_BYTES_MAX)?;
    }
    if dimensions.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
        return Err(FieldError::new("dimensions", "must not name one dimension twice"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_id_text_survives_its_wire_form(text in "[0-9a-f-]{36}|.{1,40}") {
            prop_assert_eq!(IdRef::of_text(&text).to_string(), text);
        }

        #[test]
        fn uuids_and_emitted_ids_survive_their_text(uuid: u128, source: u128, epoch: u32, sequence: u64) {
            let text = IdRef::Uuid(uuid).to_string();
            prop_assert_eq!(IdRef::of_text(&text), IdRef::Uuid(uuid));
            let emitted = EmittedId { source, epoch, sequence };
            prop_assert_eq!(EmittedId::parse(&IdRef::Emitted(emitted).to_string()), Some(emitted));
        }
    }

    #[test]
    fn only_the_canonical_uuid_text_is_a_uuid() {
        assert!(matches!(IdRef::of_text("6f9619ff-8b86-4d01-b42d-00cf4fc964ff"), IdRef::Uuid(_)));
        for text in [
            "6F9619FF-8B86-4D01-B42D-00CF4FC964FF",
            "6f9619ff8b864d01b42d00cf4fc964ff",
            "6f9619ff-8b86-4d01-b42d-00cf4fc964f",
        ] {
            assert_eq!(IdRef::of_text(text), IdRef::Text(text));
        }
    }

    #[test]
    fn texts_have_limits() {
        assert!(check_text("tenant", "acme", 4).is_ok());
        for (text, problem) in [("", "empty"), ("acme!", "at most 4"), ("a\nb", "control"), ("\u{85}", "control")] {
            let error = check_text("tenant", text, 4).unwrap_err();
            assert!(error.problem.contains(problem), "{text:?}: {error}");
        }
    }
}
