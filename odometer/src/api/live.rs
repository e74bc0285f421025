//! `GET /v1/tenants/{tenant}/usage`: a tenant's counters as they stand in memory now,
//! read without stopping the writer and without asking a book. Another node's counters
//! are that node's to show.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use odometer_aggregator::LiveUsage;
use odometer_schemas::partition::partition_of;
use odometer_schemas::time::TimeMs;
use serde::Serialize;

use super::Api;
use super::parameters::Parameters;
use super::problem::{Problem, ProblemKind};
use super::totals::month;
use crate::node::progress::{StageName, Standing, now};

pub(super) const PARAMETERS: [&str; 2] = ["meter", "period"];

#[derive(Debug, Serialize)]
pub(crate) struct LiveAnswer {
    tenant: String,
    /// Everything acknowledged before this time is counted, RFC 3339.
    as_of: String,
    /// The answer's distance from now.
    lag_ms: i64,
    usage: Vec<MeterUsage>,
}

#[derive(Debug, Serialize)]
struct MeterUsage {
    meter: String,
    /// `None` for a meter that is not defined any more.
    unit: Option<String>,
    base_unit: Option<String>,
    aggregation: &'static str,
    period_start: String,
    period_end: String,
    /// The aggregated value in base units, saturated at the ends of 64 bits.
    quantity: String,
    records: u64,
    recent_minutes: Vec<Minute>,
}

/// The sum of one minute of event time, whatever the aggregation.
#[derive(Debug, Serialize)]
struct Minute {
    start: String,
    sum: String,
}

/// Answers with every period that is in memory; with nothing for a tenant that has no
/// usage, since tenants need no registration.
pub(crate) async fn list(
    State(api): State<Api>,
    tenant: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, Problem> {
    let fix = "write it as percent-encoded UTF-8: `pool/7` is `pool%2F7`";
    let Path(tenant) = tenant.map_err(|e| Problem::parameter("tenant", e.body_text(), fix))?;
    if tenant.is_empty() {
        return Err(Problem::parameter("tenant", "the tenant is empty", fix));
    }
    let parameters = Parameters::read(&uri, &PARAMETERS)?;
    let (meter, period) = (parameters.text("meter")?, month(&parameters)?);
    let partition = partition_of(&tenant, u32::try_from(api.progress.partitions.len()).unwrap_or(u32::MAX));
    if api.progress.of(partition).standing() != Standing::Authoritative {
        return elsewhere(&api, partition, &uri).await;
    }
    // Taken before the counters are read, so that it never claims too much.
    let lag_ms = lag_ms(&api, partition);
    let as_of = now().plus_ms(-lag_ms);
    let wanted = |usage: &LiveUsage| {
        let start = usage.cell.period().start;
        meter.is_none_or(|meter| *usage.meter == *meter) && period.is_none_or(|period| period.contains(start))
    };
    let usage =
        api.cells.of_tenant(&tenant).iter().filter(|usage| wanted(usage)).map(|usage| show(&api, usage)).collect();
    Ok(Json(LiveAnswer { as_of: as_of.to_string(), lag_ms, tenant, usage }).into_response())
}

/// Sends the caller to the node that the totals book names as the partition's owner.
async fn elsewhere(api: &Api, partition: u32, uri: &Uri) -> Result<Response, Problem> {
    let cursors = api.books.totals(|book| book.cursors()).await?;
    let owner = cursors.into_iter().find(|cursor| cursor.partition == partition).map(|cursor| cursor.owner);
    match owner.filter(|owner| !owner.is_empty() && **owner != *api.own_url) {
        Some(owner) => {
            let location = format!("{owner}{}", uri.path_and_query().map_or("/", |path| path.as_str()));
            Ok((StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response())
        }
        None => {
            let detail = format!("partition {partition}, which holds the tenant, is being recovered");
            Err(Problem::new(ProblemKind::Recovering, detail, "ask again as Retry-After says, or ask /v1/totals"))
        }
    }
}

fn lag_ms(api: &Api, partition: u32) -> i64 {
    let progress = api.progress.of(partition);
    let counted = progress.offset_of(StageName::Count);
    // The counter tells its own lag; one that stands still tells nothing.
    progress.lag_ms(now()).max(api.watch.lag_ms(partition, StageName::Count, counted))
}

fn show(api: &Api, usage: &LiveUsage) -> MeterUsage {
    let definition = api.meters.iter().find(|meter| *meter.name == *usage.meter);
    let period = usage.cell.period();
    let minute = |(start, sum): (TimeMs, i64)| Minute { start: start.to_string(), sum: sum.to_string() };
    MeterUsage {
        meter: usage.meter.as_ref().to_owned(),
        unit: definition.map(|meter| meter.unit.clone()),
        base_unit: definition.map(|meter| meter.base_unit.clone()),
        aggregation: usage.aggregation.name(),
        period_start: period.start.to_string(),
        period_end: period.end.to_string(),
        quantity: usage.cell.settled().to_string(),
        records: usage.cell.records(),
        recent_minutes: usage.cell.recent_minutes().into_iter().map(minute).collect(),
    }
}
