//! Small steps that native records and CloudEvents share: fields of a JSON object
//! into texts, quantities, times and dimensions, and names into hints.

use std::borrow::Cow;

use odometer_schemas::definitions::Definitions;
use odometer_schemas::limits::{DIMENSIONS_MAX, METER_BYTES_MAX};
use odometer_schemas::meter::{Aggregation, Meter, UNIQUE_VALUE_DIMENSION};
use odometer_schemas::quantity::Quantity;
use odometer_schemas::record::{Dimensions, Record};
use odometer_schemas::time::TimeMs;

use super::json::{self, JsonFault, Value};
use super::options::{HINTS_MAX, NAMES_LISTED_MAX};
use super::refusal::{Refusal, RefusalCode, quoted};

/// A string field; null is absence.
pub(super) fn text_field<'a>(field: &'static str, raw: &'a str) -> Result<Option<Cow<'a, str>>, Refusal> {
    match value_of(field, raw)? {
        Value::Null => Ok(None),
        Value::Text(text) => Ok(Some(text)),
        other => Err(Refusal::wrong_type(field, "a string", other.kind())),
    }
}

/// A value, or the refusal of a string that is not one.
pub(super) fn value_of<'a>(field: &str, raw: &'a str) -> Result<Value<'a>, Refusal> {
    json::value(raw).map_err(|fault| Refusal { field: Some(field.to_owned().into()), ..of_fault(&fault) })
}

/// The refusal of an event whose text is not a usable object.
pub(super) fn of_fault(fault: &JsonFault) -> Refusal {
    match fault {
        JsonFault::Syntax(what, _, column) => {
            Refusal::new(RefusalCode::Malformed, format!("not valid JSON: {what} at column {column}"))
        }
        JsonFault::Shape => Refusal::new(RefusalCode::Malformed, "an event must be a JSON object"),
        JsonFault::Duplicate(name) => {
            let name = quoted(name).into_owned();
            let detail = format!("`{name}` stands twice; a field may stand once");
            Refusal::of_field(RefusalCode::DuplicateField, name, detail)
        }
        JsonFault::TooMany => Refusal::new(RefusalCode::Invalid, "the event has too many fields"),
    }
}

/// An RFC 3339 time with its zone.
pub(super) fn time_of(text: &str) -> Result<TimeMs, Refusal> {
    TimeMs::parse_rfc3339(text).map_err(|e| Refusal::of_field(RefusalCode::Invalid, "time", format!("`time` {e}")))
}

/// A JSON number, or decimal text in a string, in the meter's base unit, exactly.
pub(super) fn quantity_of(field: &str, raw: &str, meter: &Meter) -> Result<Quantity, Refusal> {
    let value = value_of(field, raw)?;
    let text = match &value {
        Value::Number(text) => text,
        Value::Text(text) => text.as_ref(),
        other => return Err(Refusal::wrong_type(field.to_owned(), "a number or a decimal string", other.kind())),
    };
    Quantity::parse_decimal(text, meter.scale).map_err(|e| {
        let detail = format!("`{field}` {e}: `{}` {} of meter `{}`", quoted(text), meter.unit, meter.name);
        Refusal::of_field(RefusalCode::Quantity, field.to_owned(), detail)
    })
}

/// The text of a scalar: a string's characters, a number's or boolean's own text;
/// null is absence.
pub(super) fn scalar_of<'a>(field: &str, raw: &'a str) -> Result<Option<Cow<'a, str>>, Refusal> {
    match value_of(field, raw)? {
        Value::Null => Ok(None),
        Value::Text(text) => Ok(Some(text)),
        Value::Word(text) | Value::Number(text) => Ok(Some(Cow::Borrowed(text))),
        composite @ Value::Composite(_) => {
            Err(Refusal::wrong_type(field.to_owned(), "a string, number or boolean", composite.kind()))
        }
    }
}

/// The dimensions of an object of scalars, in ascending order of names.
pub(super) fn dimensions_of(raw: &str, into: &mut Dimensions) -> Result<(), Refusal> {
    const FIELD: &str = "dimensions";
    let mut refusal = None;
    let result = json::each_member(raw, |name, value| {
        if into.len() == DIMENSIONS_MAX {
            return Err(JsonFault::TooMany);
        }
        match scalar_of(FIELD, value) {
            Ok(Some(text)) => into.push((name.into_owned(), text.into_owned())),
            Ok(None) => {}
            Err(found) => {
                refusal = Some(found);
                return Err(JsonFault::Shape);
            }
        }
        Ok(())
    });
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    into.sort_unstable();
    result.map_err(|fault| match fault {
        JsonFault::Shape => {
            Refusal::of_field(RefusalCode::WrongType, FIELD, "`dimensions` must be an object of strings")
        }
        JsonFault::TooMany => {
            let detail = format!("`dimensions` has more than {DIMENSIONS_MAX} entries");
            Refusal::of_field(RefusalCode::Invalid, FIELD, detail)
        }
        fault => Refusal { field: Some(FIELD.into()), ..of_fault(&fault) },
    })
}

/// The last check before a record may enter the log.
pub(super) fn check(record: &Record, meter: &Meter) -> Result<(), Refusal> {
    record.validate()?;
    let counts_nothing = meter.aggregation == Aggregation::UniqueCount
        && record.subject.is_none()
        && !record.dimensions.iter().any(|(name, _)| name == UNIQUE_VALUE_DIMENSION);
    if counts_nothing {
        let detail = format!("meter `{}` counts distinct texts: give the dimension `value`, or a subject", meter.name);
        return Err(Refusal::of_field(RefusalCode::Missing, "dimensions", detail));
    }
    Ok(())
}

/// Helps with wrong names, a bounded number of times.
#[derive(Debug)]
pub(super) struct Hints<'d> {
    definitions: &'d Definitions,
    left: usize,
}

impl<'d> Hints<'d> {
    pub(super) fn new(definitions: &'d Definitions) -> Self {
        Self { definitions, left: HINTS_MAX }
    }

    /// The refusal of a meter that is not defined.
    pub(super) fn unknown_meter(&mut self, name: &str) -> Refusal {
        let known = self.definitions.meters.iter().map(|m| m.name.as_str());
        let detail = format!("no meter is called `{}`{}", quoted(name), self.hint(name, known));
        Refusal::of_field(RefusalCode::UnknownMeter, "meter", detail)
    }

    /// The refusal of a CloudEvents type that feeds no meter.
    pub(super) fn unknown_type(&mut self, name: &str) -> Refusal {
        let mut known: Vec<&str> = self.definitions.meters.iter().filter_map(|m| m.event_type.as_deref()).collect();
        known.dedup();
        let detail = format!("no meter counts events of type `{}`{}", quoted(name), self.hint(name, known.into_iter()));
        Refusal::of_field(RefusalCode::UnknownType, "type", detail)
    }

    fn hint<'k>(&mut self, name: &str, known: impl Iterator<Item = &'k str> + Clone) -> String {
        if self.left == 0 {
            return String::new();
        }
        self.left -= 1;
        // A typing error changes a letter or two; anything further is another word.
        const DISTANCE_MAX: usize = 3;
        let near = known
            .clone()
            .filter(|_| name.len() <= METER_BYTES_MAX)
            .map(|known| (strsim::levenshtein(name, known), known))
            .min()
            .filter(|(distance, _)| *distance <= DISTANCE_MAX);
        if let Some((_, near)) = near {
            return format!("; did you mean `{near}`?");
        }
        let listed: Vec<String> = known.clone().take(NAMES_LISTED_MAX).map(|name| format!("`{name}`")).collect();
        let more = if known.count() > listed.len() { ", …" } else { "" };
        format!("; known are {}{more}", listed.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_name_is_told_the_nearest_or_the_known_ones() {
        let definitions = Definitions::built_in();
        let mut hints = Hints::new(&definitions);
        let near = hints.unknown_meter("api_cal").detail;
        assert_eq!(near, "no meter is called `api_cal`; did you mean `api_call`?");
        let far = hints.unknown_type("com.example.other").detail;
        assert!(
            far.ends_with(
                "; known are `odometer.agent_minute`, `odometer.api_call`, `odometer.llm`, `odometer.websocket_minute`"
            ),
            "{far}"
        );
        for _ in 0..HINTS_MAX {
            hints.unknown_meter("x");
        }
        assert_eq!(hints.unknown_meter("x").detail, "no meter is called `x`");
    }

    #[test]
    fn dimensions_are_sorted_and_null_is_absence() {
        let mut found = Dimensions::new();
        dimensions_of(r#"{"z":"1","a":2.50,"n":null,"m":false}"#, &mut found).unwrap();
        let expected = [("a", "2.50"), ("m", "false"), ("z", "1")];
        assert_eq!(found, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }
}
