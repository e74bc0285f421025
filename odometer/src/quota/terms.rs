//! Limits as people write them in, in the configuration and over the API; checked
//! limits in base units out, with their meter looked up.

use odometer_schemas::quota::{AMOUNT_MAX, Kind, Limit, QuotaError, Scope, WhenDegraded};
use serde::Deserialize;

use super::meters::Meters;
use crate::api::parameters::quoted;
use crate::config::duration::parse_duration;

/// One limit as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenLimit {
    meter: String,
    #[serde(default = "tenant_scope")]
    scope: Scope,
    #[serde(default = "usage_kind")]
    kind: Kind,
    /// Absent or null: counted, never stopped.
    #[serde(default)]
    limit: Option<WrittenAmount>,
    #[serde(default)]
    grace_percent: Option<u8>,
    #[serde(default)]
    when_degraded: WhenDegraded,
}

/// Whole base units, or text: a decimal number of the meter's unit, or a duration where
/// the meter counts milliseconds.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "must be whole base units, or text such as \"1.5\" in the meter's unit, or \"100min\"")]
enum WrittenAmount {
    Number(i64),
    Text(String),
}

const fn tenant_scope() -> Scope {
    Scope::Tenant
}

const fn usage_kind() -> Kind {
    Kind::Usage
}

impl WrittenLimit {
    /// The limit in base units.
    ///
    /// # Errors
    /// [`QuotaError::Invalid`] names the field: a meter that cannot be limited, or a
    /// value that is no amount of it.
    pub(crate) fn resolve(self, meters: &Meters) -> Result<Limit, QuotaError> {
        if self.kind == Kind::Usage {
            check_meter(&self.meter, meters)?;
        }
        let limit = self.limit.map(|amount| amount.resolve(&self.meter, meters)).transpose()?;
        let Self { meter, scope, kind, grace_percent, when_degraded, .. } = self;
        Ok(Limit { meter, scope, kind, limit, grace_percent, when_degraded })
    }
}

/// Whether usage of `meter` can be limited.
///
/// # Errors
/// [`QuotaError::Invalid`] says what is wrong with it.
pub(crate) fn check_meter(meter: &str, meters: &Meters) -> Result<(), QuotaError> {
    let invalid = |problem: String| Err(QuotaError::Invalid { field: "meter", problem });
    if !meters.defines(meter) {
        let fix = "define it with [[meter]], or write kind = \"concurrency\" to limit what is held at one moment";
        return invalid(format!("`{}` is not defined; {fix}", quoted(meter)));
    }
    if !meters.adds_up(meter) {
        return invalid(format!("`{meter}` does not add up; only meters with aggregation sum or count can be limited"));
    }
    Ok(())
}

impl WrittenAmount {
    fn resolve(self, meter: &str, meters: &Meters) -> Result<i64, QuotaError> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Text(text) => match duration_ms(&text).filter(|_| meters.counts_ms(meter)) {
                Some(ms) => Ok(ms),
                None => meters.parse_limit(meter, &text),
            },
        }
    }
}

/// `2h`, `100min`, `1h30m`: in milliseconds.
fn duration_ms(text: &str) -> Option<i64> {
    // Minutes are what agents are sold by, and `m` alone could be read as months.
    let duration = parse_duration(&text.replace("min", "m"))?;
    // What is too long is refused with the limit's own bound.
    Some(i64::try_from(duration.as_millis()).unwrap_or(AMOUNT_MAX + 1))
}

#[cfg(test)]
mod tests {
    use odometer_schemas::meter::{Aggregation, Meter};

    use super::*;

    fn read(json: &str) -> Result<Limit, String> {
        let mut all = Meter::built_in();
        all.push(Meter { name: "peak".into(), aggregation: Aggregation::Max, ..all[0].clone() });
        let written: WrittenLimit = serde_json::from_str(json).map_err(|error| error.to_string())?;
        written.resolve(&Meters::new(&all)).map_err(|error| error.to_string())
    }

    #[test]
    fn limits_are_read_as_people_write_them() {
        for (limit, expected) in [
            ("6000000", Some(6_000_000)),
            ("\"6000000\"", Some(6_000_000)),
            ("\"100min\"", Some(6_000_000)),
            ("\"1h30min\"", Some(5_400_000)),
            ("\"2h\"", Some(7_200_000)),
            ("null", None),
        ] {
            let read = read(&format!("{{\"meter\":\"agent_minute\",\"limit\":{limit}}}")).unwrap();
            assert_eq!(read, Limit::usage("agent_minute", expected), "{limit}");
        }
        let agents = read(r#"{"meter":"agents","kind":"concurrency","limit":"5"}"#).unwrap();
        assert_eq!(agents, Limit::concurrency("agents", Some(5)));
    }

    #[test]
    fn what_cannot_be_limited_is_named() {
        for (json, expected) in [
            (r#"{"meter":"nope","limit":1}"#, "meter `nope` is not defined"),
            (r#"{"meter":"peak","limit":1}"#, "meter `peak` does not add up"),
            (r#"{"meter":"api_call","limit":"2h"}"#, "limit not a decimal number: `2h` call of `api_call`"),
            (r#"{"meter":"api_call","limit":1.5}"#, "must be whole base units"),
            (r#"{"meter":"api_call","limits":1}"#, "unknown field `limits`"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.starts_with(expected), "{json}: {error}");
        }
    }
}
