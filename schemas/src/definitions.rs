//! The rules in force: a control record that stands in every partition, so that
//! verdicts and totals stay a pure function of the log.

use bincode::{Decode, Encode};

use crate::meter::{Meter, MeterError};

/// The version of the judging rules that this build knows. A partition whose
/// definitions carry a higher one must not be owned by it.
pub const RULES_VERSION: u32 = 2;

/// Most meters of one installation. Keeps a meter's number inside 16 bits and the
/// definitions record far inside one envelope.
pub const METERS_MAX: usize = 256;

/// Everything besides the records themselves that a verdict may depend on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Definitions {
    /// [`RULES_VERSION`] of the build that wrote them.
    pub rules_version: u32,
    /// Keys every fingerprint and digest of the installation.
    pub hash_seed: u64,
    /// All meters, by name in ascending order.
    pub meters: Vec<Meter>,
    /// How duplicates are told.
    pub dedupe: DedupeRule,
    /// How far ahead of log time an event time may lie, in milliseconds.
    pub future_ms_max: i64,
}

/// How long ids are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DedupeRule {
    /// Log time over which an id is remembered at least, in milliseconds.
    pub window_ms: i64,
}

impl DedupeRule {
    /// 35 days: a month's worth of retries, and one day more than the longest
    /// window of the field.
    pub const WINDOW_MS_DEFAULT: i64 = 35 * 24 * 3_600_000;
    /// Buckets that a window is cut into: an id is forgotten with its whole bucket,
    /// so it is remembered for the window and up to an eighth more.
    pub const BUCKETS: i64 = 8;

    /// The log-time bucket of `append_time_ms`.
    #[must_use]
    pub fn bucket_of(self, append_time_ms: i64) -> i64 {
        append_time_ms.div_euclid(self.bucket_ms())
    }

    /// Log time that one bucket spans, in milliseconds.
    #[must_use]
    pub fn bucket_ms(self) -> i64 {
        (self.window_ms / Self::BUCKETS).max(1)
    }
}

impl Definitions {
    /// The default tolerance for clocks that run ahead: five minutes.
    pub const FUTURE_MS_MAX_DEFAULT: i64 = 5 * 60_000;
    /// The default key of fingerprints and digests. It is public: it spreads keys,
    /// it hides nothing. An installation may set its own.
    pub const HASH_SEED_DEFAULT: u64 = 0x6f64_6f6d_6574_6572;

    /// The definitions of an installation without configuration.
    #[must_use]
    pub fn built_in() -> Self {
        Self::with_meters(Meter::built_in())
    }

    /// Default rules over `meters`, in whatever order they come.
    #[must_use]
    pub fn with_meters(mut meters: Vec<Meter>) -> Self {
        meters.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            rules_version: RULES_VERSION,
            hash_seed: Self::HASH_SEED_DEFAULT,
            meters,
            dedupe: DedupeRule { window_ms: DedupeRule::WINDOW_MS_DEFAULT },
            future_ms_max: Self::FUTURE_MS_MAX_DEFAULT,
        }
    }

    /// The meter called `name`.
    #[must_use]
    pub fn meter(&self, name: &str) -> Option<&Meter> {
        let index = self.meters.binary_search_by(|m| m.name.as_str().cmp(name)).ok()?;
        self.meters.get(index)
    }

    /// The meters that a CloudEvents `type` feeds.
    pub fn meters_of_type<'a>(&'a self, event_type: &'a str) -> impl Iterator<Item = &'a Meter> {
        self.meters.iter().filter(move |m| m.event_type.as_deref() == Some(event_type))
    }

    /// Checks the definitions as a whole.
    ///
    /// # Errors
    /// Names the meter, the field and the fix.
    pub fn validate(&self) -> Result<(), MeterError> {
        for meter in &self.meters {
            meter.validate()?;
        }
        let wrong =
            |meter: &Meter, field, problem: String| Err(MeterError { meter: meter.name.clone(), field, problem });
        for pair in self.meters.windows(2) {
            if pair[0].name >= pair[1].name {
                return wrong(&pair[1], "name", "is defined twice".into());
            }
        }
        match self.meters.get(METERS_MAX) {
            Some(meter) => wrong(meter, "name", format!("is one meter too many; {METERS_MAX} are allowed")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meters_are_found_by_name_and_by_type() {
        let definitions = Definitions::built_in();
        definitions.validate().unwrap();
        assert_eq!(definitions.meter("api_call").unwrap().name, "api_call");
        assert!(definitions.meter("api_cal").is_none());
        assert_eq!(definitions.meters_of_type("odometer.llm").count(), 2);
    }

    #[test]
    fn a_meter_defined_twice_is_refused() {
        let mut meters = Meter::built_in();
        meters.push(meters[0].clone());
        let error = Definitions::with_meters(meters).validate().unwrap_err();
        assert_eq!(error.to_string(), "meter `agent_minute`: name is defined twice");
    }
}
