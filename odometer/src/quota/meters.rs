//! Amounts as callers write them in, base units out, by the meter's scale; and the
//! names of the units that answers count in. Never a float, never rounded.

use std::collections::HashMap;

use odometer_schemas::meter::{Aggregation, Meter};
use odometer_schemas::quantity::Quantity;
use odometer_schemas::quota::{AMOUNT_MAX, QuotaError};

use crate::api::parameters::quoted;

/// What one of a concurrency limit is called.
const SLOT: &str = "slot";

/// What the surfaces know of every defined meter.
#[derive(Debug)]
pub(crate) struct Meters(HashMap<String, Known>);

#[derive(Debug)]
struct Known {
    unit: String,
    base_unit: String,
    scale: u8,
    adds_up: bool,
}

impl Meters {
    pub(crate) fn new(meters: &[Meter]) -> Self {
        let known = |meter: &Meter| Known {
            unit: meter.unit.clone(),
            base_unit: meter.base_unit.clone(),
            scale: meter.scale,
            adds_up: matches!(meter.aggregation, Aggregation::Sum | Aggregation::Count),
        };
        Self(meters.iter().map(|meter| (meter.name.clone(), known(meter))).collect())
    }

    /// What the amounts of a meter, or of a concurrency limit, count.
    pub(crate) fn base_unit(&self, meter: &str) -> &str {
        self.0.get(meter).map_or(SLOT, |known| &known.base_unit)
    }

    /// Whether usage of a meter can be limited: it is defined, and its records add up.
    pub(crate) fn adds_up(&self, meter: &str) -> bool {
        self.0.get(meter).is_some_and(|known| known.adds_up)
    }

    /// Whether a meter is defined.
    pub(crate) fn defines(&self, meter: &str) -> bool {
        self.0.contains_key(meter)
    }

    /// Whether a meter counts milliseconds, so that an amount may be a duration.
    pub(crate) fn counts_ms(&self, meter: &str) -> bool {
        self.0.get(meter).is_some_and(|known| known.base_unit == "ms")
    }

    /// Reads decimal text in the meter's unit, exactly; whole slots for a name that is
    /// no meter.
    ///
    /// # Errors
    /// [`QuotaError::Invalid`] says what is wrong with the value of `field`.
    pub(crate) fn parse(&self, field: &'static str, meter: &str, text: &str) -> Result<u64, QuotaError> {
        let (scale, unit) = self.0.get(meter).map_or((0, SLOT), |known| (known.scale, &known.unit));
        let wrong = |why: &dyn std::fmt::Display| {
            let problem = format!("{why}: `{}` {unit} of `{}`", quoted(text), quoted(meter));
            Err(QuotaError::Invalid { field, problem })
        };
        match Quantity::parse_decimal(text, scale) {
            Ok(Quantity(amount)) => match u64::try_from(amount) {
                Ok(amount) => Ok(amount),
                Err(_) => wrong(&"must not be negative"),
            },
            // Denied, like any amount that no limit can hold, not refused: the caller
            // has asked for something that can be understood.
            Err(odometer_schemas::quantity::QuantityError::OutOfRange) if !text.starts_with('-') => Ok(u64::MAX),
            Err(error) => wrong(&error),
        }
    }

    /// As [`Meters::parse`], for a limit, which must fit.
    ///
    /// # Errors
    /// [`QuotaError::Invalid`] also above [`AMOUNT_MAX`].
    pub(crate) fn parse_limit(&self, meter: &str, text: &str) -> Result<i64, QuotaError> {
        let amount = self.parse("limit", meter, text)?;
        i64::try_from(amount).ok().filter(|amount| *amount <= AMOUNT_MAX).ok_or_else(|| {
            let problem = format!("of `{}` must be at most {AMOUNT_MAX} base units", quoted(meter));
            QuotaError::Invalid { field: "limit", problem }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_in_the_meters_unit_exactly_or_refused() {
        let mut all = Meter::built_in();
        all.push(Meter {
            name: "storage".into(),
            unit: "GB".into(),
            base_unit: "byte".into(),
            scale: 9,
            ..all[0].clone()
        });
        let meters = Meters::new(&all);
        for (meter, text, expected) in [
            ("storage", "1.5", Some(1_500_000_000)),
            ("storage", "1.0000000001", None),
            ("api_call", "3", Some(3)),
            ("api_call", "3e2", Some(300)),
            ("api_call", "1.5", None),
            ("agents", "1", Some(1)),
            ("agents", "0.5", None),
            ("api_call", "-1", None),
            ("api_call", "99999999999999999999", Some(u64::MAX)),
            ("api_call", "NaN", None),
        ] {
            assert_eq!(meters.parse("amount", meter, text).ok(), expected, "{text} of {meter}");
        }
        let error = meters.parse("amount", "storage", "x").unwrap_err().to_string();
        assert_eq!(error, "amount not a decimal number: `x` GB of `storage`");
        assert_eq!((meters.base_unit("storage"), meters.base_unit("agents")), ("byte", "slot"));
        assert!(meters.parse_limit("api_call", "1152921504606846977").is_err());
    }
}
