//! Raw map in, checked map out: every relation between keys, each with its fix.

use std::collections::HashMap;

use odometer_schemas::limits::DIMENSIONS_MAX;
use odometer_schemas::meter::path_steps;
use odometer_schemas::time::TimeMs;

use super::raw::{RawMap, RawQuantity, RawRecord, RawTenant, RawTime};
use super::{Format, Layout, Map, QuantityRule, RecordRule, Slot, TenantRule, TimeRule};
use crate::config::document::{Document, DocumentError};
use crate::config::duration::{DURATION_SYNTAX, parse_duration};
use crate::replay::amount::Amount;
use crate::replay::time::TimeReading;

/// The key that is wrong, and what is wrong with it.
type Wrong = (String, String);

fn wrong<T>(key: impl Into<String>, problem: impl Into<String>) -> Result<T, Wrong> {
    Err((key.into(), problem.into()))
}

/// Checks a map's document.
pub(super) fn check(document: &Document) -> Result<Map, DocumentError> {
    let raw: RawMap = document.get()?;
    checked(raw).map_err(|(key, problem)| document.wrong(&key, &problem))
}

fn checked(raw: RawMap) -> Result<Map, Wrong> {
    if raw.source.is_empty() {
        return wrong("source", "must not be empty: it names where the records come from");
    }
    let layout = layout(&raw)?;
    let mut slots = Slots { layout: &layout, names: Vec::new() };
    let time = raw.time.map(|time| time_rule(time, &mut slots)).transpose()?;
    let tenant = tenant_rule(raw.tenant, &mut slots)?;
    let subject = raw.subject.map(|subject| slots.slot("subject.field", &subject.field)).transpose()?;
    if raw.dimensions.len() > DIMENSIONS_MAX {
        return wrong("dimensions", format!("must list at most {DIMENSIONS_MAX} names"));
    }
    let dimension = |(name, field): (String, String)| {
        let slot = slots.slot(&format!("dimensions.{name}"), &field)?;
        Ok::<_, Wrong>((name, slot))
    };
    let dimensions = raw.dimensions.into_iter().map(dimension).collect::<Result<_, Wrong>>()?;
    let records = record_rules(raw.record, &mut slots)?;
    let fields = slots.names;
    Ok(Map { source: raw.source, layout, fields, time, tenant, subject, dimensions, records })
}

/// Numbers the fields that the map uses, as they are first used.
struct Slots<'a> {
    layout: &'a Layout,
    names: Vec<String>,
}

impl Slots<'_> {
    /// The slot of the field that `key` names. A field is a column's name in CSV; in
    /// JSON lines a member's name, or a path such as `$.usage.tokens`.
    fn slot(&mut self, key: &str, field: &str) -> Result<Slot, Wrong> {
        if field.is_empty() {
            return wrong(key, "must name a field of the file");
        }
        if self.layout.format == Format::Jsonl && field.starts_with('$') && path_steps(field).is_none() {
            return wrong(key, format!("`{field}` is not a path such as `$.usage.tokens`"));
        }
        if self.layout.columns.as_ref().is_some_and(|columns| !columns.iter().any(|column| column == field)) {
            return wrong(key, format!("names `{field}`, which `columns` does not list"));
        }
        let known = self.names.iter().position(|name| name == field);
        Ok(Slot(known.unwrap_or_else(|| {
            self.names.push(field.to_owned());
            self.names.len() - 1
        })))
    }
}

fn layout(raw: &RawMap) -> Result<Layout, Wrong> {
    let only_csv = |key: &str| wrong(key, "is only for `format = \"csv\"`; remove it");
    match (raw.format, &raw.columns, &raw.delimiter) {
        (Format::Jsonl, Some(_), _) => return only_csv("columns"),
        (Format::Jsonl, _, Some(_)) => return only_csv("delimiter"),
        _ => {}
    }
    if raw.columns.as_ref().is_some_and(Vec::is_empty) {
        return wrong("columns", "must name every column of a file without a header line; remove it when there is one");
    }
    let delimiter = match raw.delimiter.as_deref().map(str::as_bytes) {
        None => b',',
        Some([byte]) if byte.is_ascii() && !b"\"\r\n".contains(byte) => *byte,
        Some(_) => return wrong("delimiter", "must be one ASCII character such as `;` or `\\t`"),
    };
    Ok(Layout { format: raw.format, columns: raw.columns.clone(), delimiter })
}

fn time_rule(raw: RawTime, slots: &mut Slots<'_>) -> Result<TimeRule, Wrong> {
    let reading = match (raw.format, raw.unit, raw.origin) {
        (Some(_), Some(_), _) => return wrong("time.unit", "cannot stand beside `format`; keep one of them"),
        (Some(_), None, Some(_)) => {
            return wrong("time.origin", "is for numbers with `unit`; remove it, or `format`");
        }
        (Some(format), None, None) => {
            TimeReading::text(&format).map_err(|problem| ("time.format".to_owned(), problem))?
        }
        (None, None, _) => {
            return wrong(
                "time",
                "must have `format` (such as \"%Y-%m-%d %H:%M:%S%.f\", or \"rfc3339\") or `unit` (\"s\" or \"ms\")",
            );
        }
        (None, Some(unit), origin) => {
            let origin = origin.map_or(Ok(TimeMs(0)), |text| {
                TimeMs::parse_rfc3339(&text).map_err(|e| ("time.origin".to_owned(), format!("is {e}")))
            })?;
            TimeReading::number(unit, origin)
        }
    };
    let span_ms = raw.span.map(|text| span_ms(&text)).transpose()?;
    Ok(TimeRule { slot: slots.slot("time.field", &raw.field)?, reading, span_ms })
}

fn span_ms(text: &str) -> Result<i64, Wrong> {
    let Some(span) = parse_duration(text) else { return wrong("time.span", DURATION_SYNTAX) };
    match i64::try_from(span.as_millis()) {
        Ok(ms) if ms > 0 => Ok(ms),
        _ => wrong("time.span", "must be longer than zero"),
    }
}

fn tenant_rule(raw: RawTenant, slots: &mut Slots<'_>) -> Result<TenantRule, Wrong> {
    if raw.join.is_some() && raw.fields.is_none() {
        return wrong("tenant.join", "is only for `fields`; remove it");
    }
    match (raw.value, raw.field, raw.fields) {
        (Some(value), None, None) if value.is_empty() => wrong("tenant.value", "must not be empty"),
        (Some(value), None, None) => Ok(TenantRule::Value(value)),
        (None, Some(field), None) => {
            Ok(TenantRule::Fields { slots: vec![slots.slot("tenant.field", &field)?], join: String::new() })
        }
        (None, None, Some(fields)) if fields.is_empty() => wrong("tenant.fields", "must name at least one field"),
        (None, None, Some(fields)) => {
            let slots = fields.iter().map(|field| slots.slot("tenant.fields", field)).collect::<Result<_, _>>()?;
            Ok(TenantRule::Fields { slots, join: raw.join.unwrap_or_else(|| "/".into()) })
        }
        _ => wrong("tenant", "must have exactly one of `value`, `field` and `fields`"),
    }
}

fn record_rules(raw: Vec<RawRecord>, slots: &mut Slots<'_>) -> Result<Vec<RecordRule>, Wrong> {
    if raw.is_empty() {
        return wrong("record", "is missing: at least one [[record]] says what a row becomes");
    }
    let mut of_meter: HashMap<String, usize> = HashMap::new();
    let mut rules = Vec::with_capacity(raw.len());
    for (index, record) in raw.into_iter().enumerate() {
        if record.meter.is_empty() {
            return wrong(format!("record[{index}].meter"), "must not be empty");
        }
        let quantity = match record.quantity {
            RawQuantity::Constant(text) => QuantityRule::Constant(
                Amount::parse(&text, None).map_err(|e| (format!("record[{index}].quantity"), e.to_string()))?,
            ),
            RawQuantity::Field(field) => {
                let slot = slots.slot(&format!("record[{index}].quantity.field"), &field.field)?;
                QuantityRule::Field { slot, unit: field.unit }
            }
        };
        let only_where = match record.only_where {
            Some(only) => Some((slots.slot(&format!("record[{index}].where.field"), &only.field)?, only.equals.0)),
            None => None,
        };
        let seen = of_meter.entry(record.meter.clone()).or_default();
        rules.push(RecordRule { meter: record.meter, quantity, only_where, earlier_of_meter: *seen });
        *seen += 1;
    }
    Ok(rules)
}
