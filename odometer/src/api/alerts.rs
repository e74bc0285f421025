//! `GET /v1/alerts`: limits that a tenant's usage crossed, oldest first, page by page.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use odometer_sink::totals::{AlertFilter, AlertsOf};
use serde::Serialize;

use super::Api;
use super::parameters::{Parameters, quoted};
use super::problem::Problem;
use crate::alerts::{AlertAnswer, alert_id, parse_alert_id};

pub(super) const PARAMETERS: [&str; 3] = ["tenant", "limit", "after"];
/// Alerts of one page, at a few hundred bytes each.
const ALERTS_MAX: usize = 1_000;
const ALERTS_DEFAULT: usize = 100;

#[derive(Debug, Serialize)]
pub(crate) struct AlertsAnswer {
    alerts: Vec<AlertAnswer>,
    /// What `after` takes for the next page; `null` on the last one.
    next: Option<String>,
}

/// Answers with one page of a tenant's alerts.
pub(crate) async fn list(State(api): State<Api>, uri: Uri) -> Result<Json<AlertsAnswer>, Problem> {
    let parameters = Parameters::read(&uri, &PARAMETERS)?;
    let limit = parameters.limit(ALERTS_DEFAULT, ALERTS_MAX)?;
    let filter = AlertFilter {
        of: AlertsOf::Tenant(parameters.required("tenant", "acme")?.to_owned()),
        after: after(&parameters)?,
        // One more tells whether there is a next page.
        most: Some(u32::try_from(limit + 1).unwrap_or(u32::MAX)),
    };
    let mut rows = api.books.totals(move |book| book.alerts(&filter)).await?;
    let has_next = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| has_next).map(|(partition, row)| alert_id(*partition, row.sequence));
    let alerts = rows.iter().map(|(partition, row)| AlertAnswer::new(*partition, row)).collect();
    Ok(Json(AlertsAnswer { alerts, next }))
}

fn after(parameters: &Parameters) -> Result<Option<u64>, Problem> {
    let Some(text) = parameters.text("after")? else { return Ok(None) };
    parse_alert_id(text).map(|(_, sequence)| Some(sequence)).ok_or_else(|| {
        let detail = format!("`{}` is not the id of an alert", quoted(text));
        Problem::parameter("after", detail, "give the `next` of the page before, or an alert's `id`")
    })
}
