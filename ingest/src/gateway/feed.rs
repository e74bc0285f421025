//! A CloudEvent and the definitions in, the records that it feeds out.

use std::borrow::Cow;
use std::collections::HashMap;

use odometer_schemas::definitions::Definitions;
use odometer_schemas::meter::{Aggregation, Meter, UNIQUE_VALUE_DIMENSION, path_steps};
use odometer_schemas::quantity::Quantity;
use odometer_schemas::record::{Dimensions, Record};

use super::cloudevent::CloudEvent;
use super::form::Door;
use super::json::{self, JsonFault};
use super::record::{Hints, check, of_fault, quantity_of, scalar_of};
use super::refusal::{Refusal, RefusalCode};

/// What every event of one type becomes.
struct Plan<'d> {
    /// The distinct first steps of all paths: the data is scanned for them once.
    roots: Vec<&'d str>,
    meters: Vec<MeterPlan<'d>>,
}

struct MeterPlan<'d> {
    meter: &'d Meter,
    value: Option<Path<'d>>,
    dimensions: Vec<(&'d str, Path<'d>)>,
}

/// How much one event counts for one meter.
struct Amount<'a> {
    quantity: Quantity,
    /// The text that a `unique_count` meter counts.
    unique_value: Option<Cow<'a, str>>,
}

/// A path into the data.
struct Path<'d> {
    /// Index into the plan's roots.
    root: usize,
    /// The steps below it.
    steps: Vec<&'d str>,
    /// The path as a refusal names it: `data.usage.tokens`.
    field: String,
}

impl<'d> Plan<'d> {
    fn new(meters: impl Iterator<Item = &'d Meter>) -> Self {
        let mut roots = Vec::new();
        let meters = meters.map(|meter| MeterPlan::new(meter, &mut roots)).collect();
        Self { roots, meters }
    }
}

impl<'d> MeterPlan<'d> {
    fn new(meter: &'d Meter, roots: &mut Vec<&'d str>) -> Self {
        let value = meter.value.as_deref().and_then(path_steps).and_then(|steps| Path::new(&steps, roots));
        let is_unique = meter.aggregation == Aggregation::UniqueCount && value.is_some();
        let dimensions = meter.dimensions.iter().filter(|d| !(is_unique && d.name == UNIQUE_VALUE_DIMENSION));
        let dimensions = dimensions.filter_map(|dimension| {
            let steps = dimension.path.as_deref().map_or_else(|| Some(vec![dimension.name.as_str()]), path_steps)?;
            Some((dimension.name.as_str(), Path::new(&steps, roots)?))
        });
        Self { meter, value, dimensions: dimensions.collect() }
    }
}

impl<'d> Path<'d> {
    fn new(steps: &[&'d str], roots: &mut Vec<&'d str>) -> Option<Self> {
        let (first, rest) = steps.split_first()?;
        let root = roots.iter().position(|root| root == first).unwrap_or_else(|| {
            roots.push(first);
            roots.len() - 1
        });
        Some(Self { root, steps: rest.to_vec(), field: format!("data.{}", steps.join(".")) })
    }

    /// The value at the path; null is absence.
    fn find<'a>(&self, found: &[Option<&'a str>]) -> Result<Option<&'a str>, Refusal> {
        let mut at = found.get(self.root).copied().flatten();
        for step in &self.steps {
            let Some(raw) = at else { break };
            at = json::pick(raw, &[step]).map_err(|fault| of_data(&fault))?[0];
        }
        Ok(at.filter(|raw| *raw != "null"))
    }
}

/// Turns events into records. Keeps the plan of every type it has met.
pub(super) struct Feeder<'d> {
    definitions: &'d Definitions,
    plans: HashMap<&'d str, Plan<'d>>,
}

impl<'d> Feeder<'d> {
    pub(super) fn new(definitions: &'d Definitions) -> Self {
        Self { definitions, plans: HashMap::new() }
    }

    /// The records of one event into `records`, which it overwrites.
    ///
    /// # Errors
    /// Refuses the event as a whole: none of its records may be stored then.
    pub(super) fn feed(
        &mut self,
        event: &CloudEvent<'_>,
        door: Door,
        hints: &mut Hints<'_>,
        records: &mut Vec<Record>,
    ) -> Result<(), Refusal> {
        records.clear();
        let plan = self.plan(&event.event_type).ok_or_else(|| hints.unknown_type(&event.event_type))?;
        let owner = Owner::of(event, door)?;
        let found = match &event.data {
            Some(data) => json::pick(data, &plan.roots).map_err(|fault| of_data(&fault))?,
            None => Vec::new(),
        };
        for meter in &plan.meters {
            let Some(amount) = meter.amount(&found)? else { continue };
            let record = Record {
                tenant: owner.tenant.to_owned(),
                source: event.source.clone().into_owned(),
                id: Some(event.id.clone().into_owned()),
                meter: meter.meter.name.clone(),
                quantity: amount.quantity,
                time: event.time,
                subject: owner.subject.map(str::to_owned),
                dimensions: meter.dimensions(&found, amount.unique_value)?,
                reservation: event.reservation.clone().map(Cow::into_owned),
            };
            check(&record, meter.meter).map_err(|refusal| owner.blame(refusal))?;
            records.push(record);
        }
        if records.is_empty() { Err(plan.no_value()) } else { Ok(()) }
    }

    fn plan(&mut self, event_type: &str) -> Option<&Plan<'d>> {
        if !self.plans.contains_key(event_type) {
            let of_type = |meter: &&Meter| meter.event_type.as_deref() == Some(event_type);
            let name = self.definitions.meters.iter().find(of_type)?.event_type.as_deref()?;
            self.plans.insert(name, Plan::new(self.definitions.meters_of_type(name)));
        }
        self.plans.get(event_type)
    }
}

impl Plan<'_> {
    /// The refusal of an event without a value for any of its meters.
    fn no_value(&self) -> Refusal {
        let paths: Vec<&str> = self.meters.iter().filter_map(|m| m.value.as_ref()).map(|p| p.field.as_str()).collect();
        let field = paths.first().map_or("data", |path| *path).to_owned();
        let detail = format!("the event has no value at `{}`", paths.join("`, `"));
        Refusal::of_field(RefusalCode::NoValue, field, detail)
    }
}

impl MeterPlan<'_> {
    /// How much; none when the event has no value for this meter.
    fn amount<'a>(&self, found: &[Option<&'a str>]) -> Result<Option<Amount<'a>>, Refusal> {
        let Some(path) = &self.value else { return Ok(Some(Amount { quantity: Quantity(1), unique_value: None })) };
        let Some(raw) = path.find(found)? else { return Ok(None) };
        Ok(Some(match self.meter.aggregation {
            Aggregation::UniqueCount => Amount { quantity: Quantity(1), unique_value: scalar_of(&path.field, raw)? },
            _ => Amount { quantity: quantity_of(&path.field, raw, self.meter)?, unique_value: None },
        }))
    }

    fn dimensions(&self, found: &[Option<&str>], unique_value: Option<Cow<'_, str>>) -> Result<Dimensions, Refusal> {
        let mut dimensions: Dimensions = Vec::new();
        for (name, path) in &self.dimensions {
            let Some(raw) = path.find(found)? else { continue };
            if let Some(text) = scalar_of(&path.field, raw)? {
                dimensions.push(((*name).to_owned(), text.into_owned()));
            }
        }
        if let Some(text) = unique_value {
            dimensions.push((UNIQUE_VALUE_DIMENSION.to_owned(), text.into_owned()));
        }
        dimensions.sort_unstable();
        Ok(dimensions)
    }
}

/// The refusal of data that cannot be looked into.
fn of_data(fault: &JsonFault) -> Refusal {
    let refusal = of_fault(fault);
    let field = refusal.field.as_deref().map_or_else(|| "data".to_owned(), |name| format!("data.{name}"));
    Refusal { field: Some(field.into()), ..refusal }
}

/// Whose usage an event is.
struct Owner<'a> {
    tenant: &'a str,
    subject: Option<&'a str>,
    /// The attribute that named the tenant.
    field: &'static str,
}

impl<'a> Owner<'a> {
    fn of(event: &'a CloudEvent<'_>, door: Door) -> Result<Self, Refusal> {
        let subject = event.subject.as_deref();
        match (door, event.tenant.as_deref(), subject) {
            (Door::Native, Some(tenant), subject) => Ok(Self { tenant, subject, field: "tenant" }),
            (_, _, Some(tenant)) => Ok(Self { tenant, subject: None, field: "subject" }),
            (Door::OpenMeter, _, None) => Err(Refusal::missing("subject")),
            (Door::Native, None, None) => {
                let detail = "the tenant is missing: give the extension attribute `tenant`, or `subject`";
                Err(Refusal::of_field(RefusalCode::Missing, "tenant", detail))
            }
        }
    }

    /// A refusal of the tenant names the attribute that it stood in.
    fn blame(&self, refusal: Refusal) -> Refusal {
        match refusal.field.as_deref() {
            Some("tenant") => Refusal { field: Some(self.field.into()), ..refusal },
            _ => refusal,
        }
    }
}
