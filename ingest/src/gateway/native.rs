//! The members of one JSON object in, one record out:
//! `{id, source?, tenant, meter, quantity, time?, subject?, dimensions?, reservation?}`.

use std::borrow::Cow;

use odometer_schemas::definitions::Definitions;
use odometer_schemas::record::Record;
use odometer_schemas::time::TimeMs;

use super::json::Member;
use super::record::{Hints, check, dimensions_of, quantity_of, text_field, time_of};
use super::refusal::{Refusal, RefusalCode, quoted};

/// The source of native records that name none.
pub(super) const SOURCE_DEFAULT: &str = "http";

#[derive(Default)]
struct Fields<'a> {
    id: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    tenant: Option<Cow<'a, str>>,
    meter: Option<Cow<'a, str>>,
    quantity: Option<&'a str>,
    time: Option<TimeMs>,
    subject: Option<Cow<'a, str>>,
    dimensions: Option<&'a str>,
    reservation: Option<Cow<'a, str>>,
}

impl<'a> Fields<'a> {
    fn read(members: &[Member<'a>]) -> Result<Self, Refusal> {
        let mut fields = Self::default();
        for (name, raw) in members {
            let raw: &'a str = raw;
            match name.as_ref() {
                "id" => fields.id = text_field("id", raw)?,
                "source" => fields.source = text_field("source", raw)?,
                "tenant" => fields.tenant = text_field("tenant", raw)?,
                "meter" => fields.meter = text_field("meter", raw)?,
                "quantity" => fields.quantity = present(raw),
                "time" => fields.time = text_field("time", raw)?.as_deref().map(time_of).transpose()?,
                "subject" => fields.subject = text_field("subject", raw)?,
                "dimensions" => fields.dimensions = present(raw),
                "reservation" => fields.reservation = text_field("reservation", raw)?,
                unknown => return Err(unknown_field(unknown)),
            }
        }
        Ok(fields)
    }
}

/// A value that is there: null is absence.
fn present(raw: &str) -> Option<&str> {
    (raw != "null").then_some(raw)
}

fn unknown_field(name: &str) -> Refusal {
    let name = quoted(name).into_owned();
    let detail = format!(
        "`{name}` is not a field of a record; known are id, source, tenant, meter, quantity, time, subject, \
         dimensions and reservation"
    );
    Refusal::of_field(RefusalCode::UnknownField, name, detail)
}

/// Overwrites `record` with what `members` say.
///
/// # Errors
/// Names the first field that is wrong; `record` then holds anything.
pub(super) fn read_record(
    members: &[Member<'_>],
    definitions: &Definitions,
    hints: &mut Hints<'_>,
    record: &mut Record,
) -> Result<(), Refusal> {
    let fields = Fields::read(members)?;
    overwrite(record.id.get_or_insert_default(), &fields.id.ok_or_else(|| Refusal::missing("id"))?);
    overwrite(&mut record.source, fields.source.as_deref().unwrap_or(SOURCE_DEFAULT));
    overwrite(&mut record.tenant, &fields.tenant.ok_or_else(|| Refusal::missing("tenant"))?);
    let name = fields.meter.ok_or_else(|| Refusal::missing("meter"))?;
    let meter = definitions.meter(&name).ok_or_else(|| hints.unknown_meter(&name))?;
    overwrite(&mut record.meter, &name);
    record.quantity = quantity_of("quantity", fields.quantity.ok_or_else(|| Refusal::missing("quantity"))?, meter)?;
    record.time = fields.time;
    record.subject = fields.subject.map(Cow::into_owned);
    record.reservation = fields.reservation.map(Cow::into_owned);
    record.dimensions.clear();
    if let Some(raw) = fields.dimensions {
        dimensions_of(raw, &mut record.dimensions)?;
    }
    check(record, meter)
}

/// Replaces a text and keeps its allocation: one record is reused for a whole body.
fn overwrite(slot: &mut String, text: &str) {
    slot.clear();
    slot.push_str(text);
}
