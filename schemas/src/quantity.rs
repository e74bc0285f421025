//! Exact quantities: signed 64-bit base units in, 128-bit totals out, no floats.

use std::fmt;

/// Digits after the decimal point that a meter's scale may have: 10^18 is the
/// largest power of ten in a signed 64-bit integer.
pub const SCALE_MAX: u8 = 18;
/// Longest decimal text that is looked at, in bytes. The longest exact value of a
/// signed 64-bit integer with an 18-digit fraction takes 21; the rest is leading
/// and trailing zeros, which some encoders produce.
pub const DECIMAL_BYTES_MAX: usize = 64;

/// An amount of usage in the meter's base unit (milliseconds, tokens, bytes,
/// micro-units …).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Quantity(pub i64);

/// Why a decimal text is not a quantity. Nothing is ever rounded on the way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a decimal number: `NaN`, `1,5`, empty text …
    #[error("not a decimal number")]
    NotANumber,
    /// More digits after the point than the meter's scale keeps.
    #[error("has more digits after the decimal point than the meter keeps ({scale})")]
    TooPrecise {
        /// Digits after the point that the meter keeps.
        scale: u8,
    },
    /// Does not fit a signed 64-bit count of base units.
    #[error("is outside the range of a signed 64-bit count of base units")]
    OutOfRange,
    /// The text is longer than [`DECIMAL_BYTES_MAX`].
    #[error("is longer than {DECIMAL_BYTES_MAX} bytes")]
    TooLong,
}

impl Quantity {
    /// Reads JSON number syntax (`-12.50`, `3e2`; a leading `+` is refused) as an
    /// amount of whole units with `scale` digits after the point, exactly.
    ///
    /// # Errors
    /// [`QuantityError`] says why the text has no exact value in base units.
    pub fn parse_decimal(text: &str, scale: u8) -> Result<Self, QuantityError> {
        assert!(scale <= SCALE_MAX, "scale {scale} is above {SCALE_MAX}");
        if text.len() > DECIMAL_BYTES_MAX {
            return Err(QuantityError::TooLong);
        }
        let decimal = Decimal::split(text)?;
        decimal.to_base_units(scale)
    }

    /// `self + other`, or `None` when it does not fit.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// `self * factor`, or `None` when it does not fit.
    #[must_use]
    pub fn checked_mul(self, factor: i64) -> Option<Self> {
        self.0.checked_mul(factor).map(Self)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `numerator / denominator`, rounded half away from zero ("half up" on a bill).
///
/// # Panics
/// When `denominator` is not positive.
#[must_use]
pub fn div_round_half_up(numerator: i128, denominator: i128) -> i128 {
    assert!(denominator > 0, "denominator {denominator} must be positive");
    let quotient = numerator / denominator;
    let remainder = (numerator % denominator).abs();
    if remainder >= denominator - remainder { quotient + numerator.signum() } else { quotient }
}

/// The parts of a decimal number, borrowed from its text.
struct Decimal<'a> {
    negative: bool,
    integer: &'a str,
    fraction: &'a str,
    exponent: i64,
}

impl<'a> Decimal<'a> {
    fn split(text: &'a str) -> Result<Self, QuantityError> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
            None => (unsigned, 0),
        };
        let (integer, fraction) = match mantissa.split_once('.') {
            Some((_, "")) => return Err(QuantityError::NotANumber),
            Some(parts) => parts,
            None => (mantissa, ""),
        };
        let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if integer.is_empty() || !all_digits(integer) || !all_digits(fraction) {
            return Err(QuantityError::NotANumber);
        }
        Ok(Self { negative, integer, fraction, exponent })
    }

    fn to_base_units(&self, scale: u8) -> Result<Quantity, QuantityError> {
        // The value is `digits * 10^power` base units.
        let mut digits = 0_i128;
        let mut power = self.exponent + i64::from(scale);
        let significant = self.integer.bytes().map(|b| (b, 0)).chain(self.fraction.bytes().map(|b| (b, 1)));
        for (byte, after_point) in significant {
            power -= after_point;
            // Zeros at the end are kept back as powers of ten, so that only
            // significant digits can overflow.
            digits = digits
                .checked_mul(10)
                .and_then(|d| d.checked_add(i128::from(byte - b'0')))
                .ok_or(QuantityError::OutOfRange)?;
            if digits > i128::from(u64::MAX) * 10_i128.pow(18) {
                return Err(self.too_large_or_too_precise(scale));
            }
        }
        if digits == 0 {
            return Ok(Quantity(0));
        }
        while power < 0 && digits % 10 == 0 {
            digits /= 10;
            power += 1;
        }
        if power < 0 {
            return Err(QuantityError::TooPrecise { scale });
        }
        for _ in 0..power.min(20) {
            digits = digits.checked_mul(10).ok_or(QuantityError::OutOfRange)?;
        }
        if power > 20 {
            return Err(QuantityError::OutOfRange);
        }
        let signed = if self.negative { -digits } else { digits };
        i64::try_from(signed).map(Quantity).map_err(|_| QuantityError::OutOfRange)
    }

    /// More significant digits than any exact value has: name the likelier cause.
    fn too_large_or_too_precise(&self, scale: u8) -> QuantityError {
        if self.fraction.len() > usize::from(scale) && self.exponent <= 0 {
            QuantityError::TooPrecise { scale }
        } else {
            QuantityError::OutOfRange
        }
    }
}

fn parse_exponent(text: &str) -> Result<i64, QuantityError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError::NotANumber);
    }
    // An exponent this large decides the matter without being added to.
    const EXPONENT_MAX: i64 = 1_000_000;
    let magnitude = digits.parse::<i64>().unwrap_or(EXPONENT_MAX).min(EXPONENT_MAX);
    Ok(if text.starts_with('-') { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimal_text_converts_exactly_or_not_at_all() {
        use QuantityError::{NotANumber, OutOfRange, TooLong, TooPrecise};
        let long = "1".repeat(DECIMAL_BYTES_MAX + 1);
        let cases: [(&str, u8, Result<i64, QuantityError>); 26] = [
            ("0", 0, Ok(0)),
            ("-0", 3, Ok(0)),
            ("42", 0, Ok(42)),
            ("-42", 0, Ok(-42)),
            ("1.5", 3, Ok(1500)),
            ("1.50000000000000000000", 1, Ok(15)),
            ("0.001", 3, Ok(1)),
            ("0.0001", 3, Err(TooPrecise { scale: 3 })),
            ("1.00000000000000000001", 0, Err(TooPrecise { scale: 0 })),
            ("0.12345678901234567890", 18, Err(TooPrecise { scale: 18 })),
            ("1e3", 0, Ok(1000)),
            ("1E+3", 0, Ok(1000)),
            ("1500e-3", 3, Ok(1500)),
            ("1e400", 0, Err(OutOfRange)),
            ("1e-400", 0, Err(TooPrecise { scale: 0 })),
            ("0e400", 0, Ok(0)),
            ("9223372036854775807", 0, Ok(i64::MAX)),
            ("-9223372036854775808", 0, Ok(i64::MIN)),
            ("9223372036854775808", 0, Err(OutOfRange)),
            ("9223372036854775807", 1, Err(OutOfRange)),
            ("NaN", 0, Err(NotANumber)),
            ("", 0, Err(NotANumber)),
            ("1.", 0, Err(NotANumber)),
            (".5", 1, Err(NotANumber)),
            ("+1", 0, Err(NotANumber)),
            (&long, 0, Err(TooLong)),
        ];
        for (text, scale, expected) in cases {
            assert_eq!(Quantity::parse_decimal(text, scale), expected.map(Quantity), "{text} at scale {scale}");
        }
    }

    #[test]
    fn half_rounds_away_from_zero() {
        for (n, d, expected) in [(5, 2, 3), (-5, 2, -3), (4, 3, 1), (-4, 3, -1), (0, 7, 0), (7, 7, 1)] {
            assert_eq!(div_round_half_up(n, d), expected, "{n}/{d}");
        }
    }

    proptest! {
        #[test]
        fn every_base_unit_value_survives_its_own_text(value: i64, scale in 0..=SCALE_MAX) {
            let divisor = 10_i128.pow(u32::from(scale));
            let magnitude = i128::from(value).abs();
            let sign = if value < 0 { "-" } else { "" };
            let text = format!("{sign}{}.{:0width$}", magnitude / divisor, magnitude % divisor, width = usize::from(scale).max(1));
            prop_assert_eq!(Quantity::parse_decimal(&text, scale), Ok(Quantity(value)));
        }

        #[test]
        fn no_text_panics(text in ".{0,70}", scale in 0..=SCALE_MAX) {
            let _ = Quantity::parse_decimal(&text, scale);
        }
    }
}
