//! A row's decimal text in, an exact quantity out. Nothing is rounded.

use odometer_schemas::quantity::{Quantity, QuantityError};

use super::map::QuantityUnit;

/// A quantity as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Amount {
    /// A whole number of the meter's unit.
    Whole(i64),
    /// A decimal number of the meter's unit, as the row has it: only the meter knows
    /// how many of its digits are kept.
    Decimal(Box<str>),
}

/// Why a text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AmountError {
    /// Not a number, too long, or too large.
    #[error("{0}")]
    Quantity(#[from] QuantityError),
    /// Not a whole number of milliseconds after conversion.
    #[error("is not a whole number of milliseconds when read in `{unit}`")]
    NotWhole {
        /// The unit of the map.
        unit: &'static str,
    },
}

/// How a unit becomes milliseconds: the value is read with `scale` digits after the
/// point, then multiplied by `numerator / denominator`. No text with more significant
/// digits after the point gives a whole number of milliseconds.
struct Conversion {
    unit: &'static str,
    scale: u8,
    numerator: i128,
    denominator: i128,
}

const fn conversion(unit: QuantityUnit) -> Conversion {
    match unit {
        QuantityUnit::Ms => Conversion { unit: "ms", scale: 0, numerator: 1, denominator: 1 },
        QuantityUnit::S => Conversion { unit: "s", scale: 3, numerator: 1, denominator: 1 },
        QuantityUnit::Min => Conversion { unit: "min", scale: 5, numerator: 6, denominator: 10 },
        QuantityUnit::H => Conversion { unit: "h", scale: 7, numerator: 36, denominator: 100 },
    }
}

impl Amount {
    /// Reads decimal text, in `unit` when the map gives one: then the result is in
    /// milliseconds.
    ///
    /// # Errors
    /// When the text is no number, or has no exact value.
    pub(super) fn parse(text: &str, unit: Option<QuantityUnit>) -> Result<Self, AmountError> {
        let Some(unit) = unit else {
            return match Quantity::parse_decimal(text, 0) {
                Ok(quantity) => Ok(Self::Whole(quantity.0)),
                Err(QuantityError::TooPrecise { .. }) => Ok(Self::Decimal(text.into())),
                Err(error) => Err(error.into()),
            };
        };
        let conversion = conversion(unit);
        let not_whole = AmountError::NotWhole { unit: conversion.unit };
        let scaled = match Quantity::parse_decimal(text, conversion.scale) {
            Ok(quantity) => i128::from(quantity.0) * conversion.numerator,
            Err(QuantityError::TooPrecise { .. }) => return Err(not_whole),
            Err(error) => return Err(error.into()),
        };
        if scaled % conversion.denominator != 0 {
            return Err(not_whole);
        }
        let whole = i64::try_from(scaled / conversion.denominator).map_err(|_| QuantityError::OutOfRange)?;
        Ok(Self::Whole(whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use QuantityUnit::{H, Min, Ms, S};

    #[test]
    fn units_convert_exactly_or_not_at_all() {
        let not_whole = |unit| Err(AmountError::NotWhole { unit });
        let cases = [
            ("1.5", Some(S), Ok(1500)),
            ("0.0005", Some(S), not_whole("s")),
            ("-2", Some(S), Ok(-2000)),
            ("1.5", Some(Min), Ok(90_000)),
            ("0.00005", Some(Min), Ok(3)),
            ("0.00001", Some(Min), not_whole("min")),
            ("0.3333333", Some(Min), not_whole("min")),
            ("0.0000025", Some(H), Ok(9)),
            ("0.25", Some(H), Ok(900_000)),
            ("7", Some(Ms), Ok(7)),
            ("7.5", Some(Ms), not_whole("ms")),
            ("9223372036854775.807", Some(S), Ok(i64::MAX)),
            ("9223372036854775.808", Some(S), Err(QuantityError::OutOfRange.into())),
            ("", Some(S), Err(QuantityError::NotANumber.into())),
            ("1e3", None, Ok(1000)),
            ("12,5", None, Err(QuantityError::NotANumber.into())),
            ("1e400", None, Err(QuantityError::OutOfRange.into())),
        ];
        for (text, unit, expected) in cases {
            assert_eq!(Amount::parse(text, unit), expected.map(Amount::Whole), "{text} {unit:?}");
        }
        assert_eq!(Amount::parse("0.25", None), Ok(Amount::Decimal("0.25".into())));
    }
}
