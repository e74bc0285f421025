//! Meters: what is counted, in which unit, and how it adds up.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::limits::{DIMENSION_NAME_BYTES_MAX, DIMENSIONS_MAX, METER_BYTES_MAX};
use crate::quantity::SCALE_MAX;

/// The dimension that holds the counted text of a `unique_count` meter. A record
/// without it counts its subject instead.
pub const UNIQUE_VALUE_DIMENSION: &str = "value";

/// How a meter's records of one period become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// The sum of quantities.
    Sum,
    /// The number of records, whatever their quantity.
    Count,
    /// The smallest quantity.
    Min,
    /// The largest quantity.
    Max,
    /// The sum divided by the number of records, rounded half up to a base unit.
    Avg,
    /// The quantity with the latest event time; the later position wins a tie.
    Latest,
    /// The number of distinct texts in the dimension `value` (else the subject).
    UniqueCount,
}

impl Aggregation {
    /// The name in configuration and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Count => "count",
            Self::Min => "min",
            Self::Max => "max",
            Self::Avg => "avg",
            Self::Latest => "latest",
            Self::UniqueCount => "unique_count",
        }
    }

    /// The aggregation called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Sum, Self::Count, Self::Min, Self::Max, Self::Avg, Self::Latest, Self::UniqueCount];
        all.into_iter().find(|aggregation| aggregation.name() == name)
    }
}

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meter {
    /// `api_call`, `llm.prompt_tokens` …
    pub name: String,
    /// The unit that decimal input is in: `token`, `minute`, `call`, `GB` …
    pub unit: String,
    /// The base unit that quantities are counted in: `token`, `ms`, `byte` …
    pub base_unit: String,
    /// Digits after the decimal point that one `unit` keeps: a quantity of decimal
    /// text is `value * 10^scale` base units.
    #[serde(default)]
    pub scale: u8,
    /// How records add up.
    #[serde(default = "default_aggregation")]
    pub aggregation: Aggregation,
    /// The CloudEvents `type` that feeds this meter, if any.
    #[serde(default)]
    pub event_type: Option<String>,
    /// Where the quantity stands in a CloudEvent's `data`: `$.tokens`,
    /// `$.usage.total`. Without it every event counts 1.
    #[serde(default)]
    pub value: Option<String>,
    /// Dimensions kept in rollups: name in answers and its path in `data`.
    #[serde(default)]
    pub dimensions: Vec<Dimension>,
}

/// One kept dimension of a meter.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dimension {
    /// The name in records, rollups and answers.
    pub name: String,
    /// Where its value stands in a CloudEvent's `data`; `$.NAME` unless given.
    #[serde(default)]
    pub path: Option<String>,
}

const fn default_aggregation() -> Aggregation {
    Aggregation::Sum
}

/// What is wrong with a meter's definition: the field and the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("meter `{meter}`: {field} {problem}")]
pub struct MeterError {
    /// The meter's name as given.
    pub meter: String,
    /// The offending field.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl Meter {
    /// The meters that every installation has unless its configuration redefines
    /// them.
    #[must_use]
    pub fn built_in() -> Vec<Self> {
        let meter = |name: &str, unit: &str, base_unit: &str, event_type: &str, value: Option<&str>| Self {
            name: name.into(),
            unit: unit.into(),
            base_unit: base_unit.into(),
            scale: 0,
            aggregation: Aggregation::Sum,
            event_type: Some(event_type.into()),
            value: value.map(Into::into),
            dimensions: vec![Dimension { name: "model".into(), path: None }],
        };
        vec![
            // One unit is one millisecond: a minute is not a power of ten of them.
            meter("agent_minute", "ms", "ms", "odometer.agent_minute", Some("$.duration_ms")),
            meter("websocket_minute", "ms", "ms", "odometer.websocket_minute", Some("$.duration_ms")),
            meter("api_call", "call", "call", "odometer.api_call", None),
            meter("llm.prompt_tokens", "token", "token", "odometer.llm", Some("$.prompt_tokens")),
            meter("llm.generated_tokens", "token", "token", "odometer.llm", Some("$.generated_tokens")),
        ]
    }

    /// Checks one definition on its own.
    ///
    /// # Errors
    /// Names the field and the fix.
    pub fn validate(&self) -> Result<(), MeterError> {
        let wrong = |field, problem: String| Err(MeterError { meter: self.name.clone(), field, problem });
        if self.name.is_empty() || self.name.len() > METER_BYTES_MAX {
            return wrong("name", format!("must have 1 to {METER_BYTES_MAX} bytes"));
        }
        if !self.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b)) {
            return wrong("name", "may hold only ASCII letters, digits, `.`, `_`, `-` and `/`".into());
        }
        if self.scale > SCALE_MAX {
            return wrong("scale", format!("must be at most {SCALE_MAX}"));
        }
        if self.dimensions.len() > DIMENSIONS_MAX {
            return wrong("dimensions", format!("may list at most {DIMENSIONS_MAX} names"));
        }
        for dimension in &self.dimensions {
            if dimension.name.is_empty() || dimension.name.len() > DIMENSION_NAME_BYTES_MAX {
                return wrong("dimensions", format!("must have names of 1 to {DIMENSION_NAME_BYTES_MAX} bytes"));
            }
        }
        let paths = self.value.iter().chain(self.dimensions.iter().filter_map(|d| d.path.as_ref()));
        for path in paths {
            if path_steps(path).is_none() {
                return wrong("value", format!("`{path}` is not a path such as `$.usage.tokens`"));
            }
        }
        Ok(())
    }

    /// Whether `other` may replace this definition while records of it exist:
    /// everything that old quantities mean must stay.
    #[must_use]
    pub fn can_become(&self, other: &Self) -> bool {
        self.unit == other.unit
            && self.base_unit == other.base_unit
            && self.scale == other.scale
            && self.aggregation == other.aggregation
    }
}

/// The member names of a path such as `$.usage.tokens`; `None` when it is no path.
#[must_use]
pub fn path_steps(path: &str) -> Option<Vec<&str>> {
    let steps: Vec<&str> = path.strip_prefix("$.")?.split('.').collect();
    steps.iter().all(|step| !step.is_empty()).then_some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_meters_are_valid_and_distinct() {
        let meters = Meter::built_in();
        for meter in &meters {
            meter.validate().unwrap();
        }
        let mut names: Vec<_> = meters.iter().map(|m| &m.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), meters.len());
    }

    #[test]
    fn aggregations_are_found_by_their_names() {
        for name in ["sum", "count", "min", "max", "avg", "latest", "unique_count"] {
            assert_eq!(Aggregation::from_name(name).map(Aggregation::name), Some(name));
        }
        assert_eq!(Aggregation::from_name("median"), None);
    }

    #[test]
    fn a_wrong_definition_is_named() {
        let good = Meter::built_in().remove(0);
        let cases = [
            (Meter { name: String::new(), ..good.clone() }, "name"),
            (Meter { name: "two words".into(), ..good.clone() }, "name"),
            (Meter { scale: 19, ..good.clone() }, "scale"),
            (Meter { value: Some("tokens".into()), ..good.clone() }, "value"),
            (Meter { value: Some("$.".into()), ..good.clone() }, "value"),
            (Meter { dimensions: vec![Dimension { name: String::new(), path: None }], ..good }, "dimensions"),
        ];
        for (meter, field) in cases {
            assert_eq!(meter.validate().unwrap_err().field, field);
        }
    }
}
