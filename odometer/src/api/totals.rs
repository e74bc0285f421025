//! `GET /v1/totals`: period totals from the totals book.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use odometer_schemas::commit::TotalRow;
use odometer_schemas::digest::Digest;
use odometer_schemas::period::parse_month;
use odometer_schemas::time::{Interval, TimeMs};
use odometer_sink::totals::{PeriodFilter, TotalsFilter};
use serde::{Deserialize, Serialize};

use super::Api;
use super::parameters::{Parameters, quoted};
use super::problem::Problem;

pub(super) const PARAMETERS: [&str; 3] = ["tenant", "meter", "period"];

/// One total as the API and `odometer totals --json` show it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TotalAnswer {
    pub(crate) tenant: String,
    pub(crate) meter: String,
    /// RFC 3339.
    pub(crate) period_start: String,
    /// RFC 3339, exclusive.
    pub(crate) period_end: String,
    /// Base units; a text, since it may have 128 bits.
    pub(crate) quantity: String,
    pub(crate) records: u64,
    /// 32 hexadecimal digits.
    pub(crate) digest: String,
    pub(crate) aggregation: String,
}

impl From<&TotalRow> for TotalAnswer {
    fn from(row: &TotalRow) -> Self {
        Self {
            tenant: row.tenant.to_string(),
            meter: row.meter.to_string(),
            period_start: TimeMs(row.period_start_ms).to_string(),
            period_end: TimeMs(row.period_end_ms).to_string(),
            quantity: row.quantity.to_string(),
            records: row.records,
            digest: Digest(row.digest).to_string(),
            aggregation: row.aggregation.name().to_owned(),
        }
    }
}

/// Answers with all totals that match.
pub(crate) async fn list(State(api): State<Api>, uri: Uri) -> Result<Json<Vec<TotalAnswer>>, Problem> {
    let parameters = Parameters::read(&uri, &PARAMETERS)?;
    let filter = TotalsFilter {
        tenant: parameters.owned("tenant")?,
        meter: parameters.owned("meter")?,
        period: month(&parameters)?.map(PeriodFilter::StartsIn),
    };
    let rows = api.books.totals(move |book| book.totals(&filter)).await?;
    Ok(Json(rows.iter().map(TotalAnswer::from).collect()))
}

/// The month that `period` names.
pub(super) fn month(parameters: &Parameters) -> Result<Option<Interval>, Problem> {
    let Some(text) = parameters.text("period")? else { return Ok(None) };
    parse_month(text).map(Some).ok_or_else(|| {
        Problem::parameter("period", format!("`{}` is not a month", quoted(text)), "write a month such as 2023-11")
    })
}
