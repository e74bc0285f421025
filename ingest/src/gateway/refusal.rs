//! Why one event was refused, in a stable word and in a sentence.

use std::borrow::Cow;

use odometer_schemas::record::FieldError;

use super::options::QUOTE_BYTES_MAX;

/// The stable word that a refusal's `reason` begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RefusalCode {
    /// Not JSON, or not an object.
    Malformed,
    /// A required field is absent or null.
    Missing,
    /// A field that no record has.
    UnknownField,
    /// One name stands twice.
    DuplicateField,
    /// The value's JSON type is wrong.
    WrongType,
    /// The value breaks a rule of its field.
    Invalid,
    /// The quantity has no exact value in the meter's base unit.
    Quantity,
    /// No such meter is defined.
    UnknownMeter,
    /// No meter counts this CloudEvents type.
    UnknownType,
    /// The event holds no value for any meter of its type.
    NoValue,
    /// The log did not take it.
    LogUnavailable,
    /// The log gave no answer: it may have been stored.
    Unknown,
}

impl RefusalCode {
    /// All codes, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Malformed,
        Self::Missing,
        Self::UnknownField,
        Self::DuplicateField,
        Self::WrongType,
        Self::Invalid,
        Self::Quantity,
        Self::UnknownMeter,
        Self::UnknownType,
        Self::NoValue,
        Self::LogUnavailable,
        Self::Unknown,
    ];

    /// The word in answers and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Missing => "missing",
            Self::UnknownField => "unknown_field",
            Self::DuplicateField => "duplicate_field",
            Self::WrongType => "wrong_type",
            Self::Invalid => "invalid",
            Self::Quantity => "quantity",
            Self::UnknownMeter => "unknown_meter",
            Self::UnknownType => "unknown_type",
            Self::NoValue => "no_value",
            Self::LogUnavailable => "log_unavailable",
            Self::Unknown => "unknown",
        }
    }
}

/// Why one event was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.name())]
pub struct Refusal {
    /// The stable word.
    pub code: RefusalCode,
    /// The field as the caller writes it, where one is to blame.
    pub field: Option<Cow<'static, str>>,
    /// What is wrong, and what would be right.
    pub detail: Cow<'static, str>,
}

impl Refusal {
    pub(super) fn new(code: RefusalCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, field: None, detail: detail.into() }
    }

    pub(super) fn of_field(
        code: RefusalCode,
        field: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { code, field: Some(field.into()), detail: detail.into() }
    }

    pub(super) fn missing(field: &'static str) -> Self {
        Self::of_field(RefusalCode::Missing, field, format!("`{field}` is required"))
    }

    pub(super) fn wrong_type(field: impl Into<Cow<'static, str>>, wanted: &str, found: &str) -> Self {
        let field = field.into();
        let detail = format!("`{field}` must be {wanted}, not {found}");
        Self::of_field(RefusalCode::WrongType, field, detail)
    }
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        Self::of_field(RefusalCode::Invalid, error.field, format!("`{}` {}", error.field, error.problem))
    }
}

/// A caller's text as far as an answer quotes it.
pub(super) fn quoted(text: &str) -> Cow<'_, str> {
    if text.len() <= QUOTE_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{}…", &text[..text.floor_char_boundary(QUOTE_BYTES_MAX)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_numbered_in_order() {
        for (number, code) in RefusalCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, number);
        }
    }

    #[test]
    fn a_long_text_is_quoted_up_to_a_whole_character() {
        assert_eq!(quoted("short"), "short");
        let long = "é".repeat(100);
        assert_eq!(quoted(&long).chars().count(), QUOTE_BYTES_MAX / 2 + 1);
    }
}
