//! A map as its TOML says it, before any relation is checked.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMap {
    pub(super) source: String,
    pub(super) format: Format,
    pub(super) columns: Option<Vec<String>>,
    pub(super) delimiter: Option<String>,
    pub(super) time: Option<RawTime>,
    pub(super) tenant: RawTenant,
    pub(super) subject: Option<RawField>,
    #[serde(default)]
    pub(super) dimensions: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) record: Vec<RawRecord>,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::replay) enum Format {
    /// Comma-separated values, RFC 4180.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTime {
    pub(super) field: String,
    pub(super) format: Option<String>,
    pub(super) unit: Option<TimeUnit>,
    pub(super) origin: Option<String>,
    pub(super) span: Option<String>,
}

/// The unit of a numeric time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::replay) enum TimeUnit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
}

impl TimeUnit {
    /// Its name in maps.
    pub(in crate::replay) const fn name(self) -> &'static str {
        match self {
            Self::S => "s",
            Self::Ms => "ms",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTenant {
    pub(super) value: Option<String>,
    pub(super) field: Option<String>,
    pub(super) fields: Option<Vec<String>>,
    pub(super) join: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawField {
    pub(super) field: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRecord {
    pub(super) meter: String,
    pub(super) quantity: RawQuantity,
    #[serde(rename = "where")]
    pub(super) only_where: Option<RawWhere>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWhere {
    pub(super) field: String,
    pub(super) equals: Scalar,
}

/// A quantity: `1`, `"0.5"` or `{ field = "tokens", unit = "s" }`.
#[derive(Debug)]
pub(super) enum RawQuantity {
    Constant(String),
    Field(RawQuantityField),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawQuantityField {
    pub(super) field: String,
    pub(super) unit: Option<QuantityUnit>,
}

/// The unit of a field that feeds a meter counted in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::replay) enum QuantityUnit {
    /// Milliseconds.
    Ms,
    /// Seconds.
    S,
    /// Minutes.
    Min,
    /// Hours.
    H,
}

/// A text, a whole number or a truth value, as the text that rows are compared with.
#[derive(Debug)]
pub(super) struct Scalar(pub(super) String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalars;
        impl Visitor<'_> for Scalars {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a whole number or true/false (write other numbers as text, as the file has them)")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.into()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }

            fn visit_bool<E: Error>(self, truth: bool) -> Result<Scalar, E> {
                Ok(Scalar(truth.to_string()))
            }
        }
        deserializer.deserialize_any(Scalars)
    }
}

impl<'de> Deserialize<'de> for RawQuantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Quantities;
        impl<'de> Visitor<'de> for Quantities {
            type Value = RawQuantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number, a decimal number as text such as \"0.5\", or { field = \"NAME\" }")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<RawQuantity, E> {
                Ok(RawQuantity::Constant(number.to_string()))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<RawQuantity, E> {
                Ok(RawQuantity::Constant(text.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawQuantity, A::Error> {
                RawQuantityField::deserialize(MapAccessDeserializer::new(map)).map(RawQuantity::Field)
            }
        }
        deserializer.deserialize_any(Quantities)
    }
}
