//! `GET /v1/usage`: usage per window, from the raw book's rollups.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use odometer_schemas::meter::Meter;
use odometer_schemas::partition::partition_of;
use odometer_schemas::time::{DAY_MS, HOUR_MS, Interval, MINUTE_MS, TimeMs};
use odometer_sink::raw::{RawCursor, USAGE_ROWS_MAX, UsageQuery, UsageRow, UsageWindow};
use serde::Serialize;

use super::Api;
use super::parameters::{Parameters, listed, quoted};
use super::problem::{Problem, ProblemKind};
use crate::node::progress::{StageName, now};

pub(super) const PARAMETERS: [&str; 6] = ["tenant", "meter", "from", "to", "window", "group_by"];
const WINDOWS: [(&str, UsageWindow); 4] = [
    ("minute", UsageWindow::Minute),
    ("hour", UsageWindow::Hour),
    ("day", UsageWindow::Day),
    ("month", UsageWindow::Month),
];
/// Names that a problem lists: as many as a reader looks through.
const NAMES_LISTED_MAX: usize = 20;

#[derive(Debug, Serialize)]
pub(crate) struct UsageAnswer {
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    meter: String,
    /// `None` for a meter that has usage but is not defined any more.
    unit: Option<String>,
    base_unit: Option<String>,
    aggregation: Option<&'static str>,
    window: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_by: Option<String>,
    /// Start of the first window, RFC 3339.
    from: String,
    /// End of the last one.
    to: String,
    /// Everything acknowledged before this time is in the rows, RFC 3339.
    complete_through: String,
    rows: Vec<RowAnswer>,
}

#[derive(Debug, Serialize)]
struct RowAnswer {
    window_start: String,
    window_end: String,
    /// Absent unless grouped; `null` for records without the dimension.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<Option<String>>,
    /// Base units; a text, since it may have 128 bits.
    quantity: String,
    records: u64,
}

/// Answers with the windows that have usage.
pub(crate) async fn list(State(api): State<Api>, uri: Uri) -> Result<Json<UsageAnswer>, Problem> {
    let parameters = Parameters::read(&uri, &PARAMETERS)?;
    let (query, window) = question(&parameters, now())?;
    let defined = api.meters.iter().find(|meter| meter.name == query.meter);
    if let (Some(meter), Some(group_by)) = (defined, &query.group_by) {
        check_group(meter, group_by)?;
    }
    // Looked at before the book is asked, so that it never claims too much.
    let seen = api.watch.seen();
    let asked = query.clone();
    let (cursors, rows) = api.books.raw(move |book| Ok((book.cursors()?, book.usage(&asked)?))).await?;
    if defined.is_none() && rows.is_empty() {
        return Err(unknown_meter(&query.meter, &api.meters));
    }
    let partitions = u32::try_from(seen.partitions.len()).unwrap_or(u32::MAX);
    let own = query.tenant.as_ref().map(|tenant| partition_of(tenant, partitions));
    let fresh = |partition| seen.fresh_through(partition, StageName::Raw, cursor_of(&cursors, partition));
    let complete_through = (0..partitions).filter(|p| own.is_none_or(|own| own == *p)).map(fresh).min();
    Ok(Json(answer(query, window, defined, complete_through, &rows)))
}

fn question(parameters: &Parameters, now: TimeMs) -> Result<(UsageQuery, &'static str), Problem> {
    let window = parameters.choice("window", &WINDOWS)?.unwrap_or(UsageWindow::Hour);
    let (from, to) = (parameters.time("from")?, parameters.time("to")?);
    let to = to.unwrap_or_else(|| window.of(now).end);
    let from = from.unwrap_or_else(|| to.plus_ms(-span_default_ms(window)));
    if from >= to {
        let detail = format!("`from` ({from}) is not before `to` ({to})");
        return Err(Problem::parameter("from", detail, "ask for a time that has a length; `to` is exclusive"));
    }
    let query = UsageQuery {
        tenant: parameters.owned("tenant")?,
        meter: parameters.required("meter", "api_call")?.to_owned(),
        from,
        to,
        window,
        group_by: parameters.owned("group_by")?,
    };
    let name = WINDOWS.iter().find(|(_, known)| *known == window).map_or("", |(name, _)| name);
    let windows = windows_of(query.window_starts(), window);
    if windows > USAGE_ROWS_MAX as i64 {
        let detail = format!("{windows} windows of a {name} lie between {from} and {to}; {USAGE_ROWS_MAX} are allowed");
        return Err(Problem::new(ProblemKind::AnswerTooLarge, detail, "ask for a shorter time or a wider window")
            .field("window"));
    }
    Ok((query, name))
}

/// How far back an answer goes without `from`: what fits a screen.
fn span_default_ms(window: UsageWindow) -> i64 {
    match window {
        UsageWindow::Minute => HOUR_MS,
        UsageWindow::Hour => DAY_MS,
        UsageWindow::Day => 31 * DAY_MS,
        UsageWindow::Month => 366 * DAY_MS,
    }
}

/// Windows in an interval; for months a few too many.
fn windows_of(starts: Interval, window: UsageWindow) -> i64 {
    let width_ms = match window {
        UsageWindow::Minute => MINUTE_MS,
        UsageWindow::Hour => HOUR_MS,
        UsageWindow::Day => DAY_MS,
        UsageWindow::Month => 28 * DAY_MS,
    };
    (starts.end.0 - starts.start.0) / width_ms
}

fn check_group(meter: &Meter, group_by: &str) -> Result<(), Problem> {
    let kept: Vec<&str> = meter.dimensions.iter().map(|dimension| dimension.name.as_str()).collect();
    if kept.contains(&group_by) {
        return Ok(());
    }
    let detail = format!("`{}` is not a dimension that meter `{}` keeps", quoted(group_by), meter.name);
    Err(Problem::parameter(
        "group_by",
        detail,
        format!("it keeps {}; more can be kept from now on by its definition", listed(&kept)),
    ))
}

pub(super) fn unknown_meter(name: &str, meters: &[Meter]) -> Problem {
    let names: Vec<&str> = meters.iter().map(|meter| meter.name.as_str()).collect();
    let fix = match names.get(..NAMES_LISTED_MAX).filter(|first| first.len() < names.len()) {
        Some(first) => format!("known meters are {} and {} more", first.join(", "), names.len() - first.len()),
        None => format!("known meters are {}", names.join(", ")),
    };
    Problem::parameter("meter", format!("there is no meter `{}`", quoted(name)), fix)
}

fn cursor_of(cursors: &[RawCursor], partition: u32) -> u64 {
    cursors.iter().find(|cursor| cursor.partition == partition).map_or(0, |cursor| cursor.next_offset)
}

fn answer(
    query: UsageQuery,
    window: &'static str,
    meter: Option<&Meter>,
    complete_through: Option<TimeMs>,
    rows: &[UsageRow],
) -> UsageAnswer {
    let interval = query.window_starts();
    let is_grouped = query.group_by.is_some();
    let row = |row: &UsageRow| RowAnswer {
        window_start: row.window_start.to_string(),
        window_end: row.window_end.to_string(),
        group: is_grouped.then(|| row.group.clone()),
        quantity: row.quantity.to_string(),
        records: row.records,
    };
    UsageAnswer {
        tenant: query.tenant,
        meter: query.meter,
        unit: meter.map(|meter| meter.unit.clone()),
        base_unit: meter.map(|meter| meter.base_unit.clone()),
        aggregation: meter.map(|meter| meter.aggregation.name()),
        window,
        group_by: query.group_by,
        from: interval.start.to_string(),
        to: interval.end.to_string(),
        complete_through: complete_through.unwrap_or_default().to_string(),
        rows: rows.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(query: &str) -> Result<UsageQuery, Problem> {
        let parameters = Parameters::read(&format!("/v1/usage?{query}").parse().unwrap(), &PARAMETERS)?;
        let now = TimeMs::parse_rfc3339("2023-11-16T18:17:03Z").unwrap();
        question(&parameters, now).map(|(query, _)| query)
    }

    #[test]
    fn without_times_an_answer_ends_with_the_window_of_now() {
        for (window, from, to) in [
            ("minute", "2023-11-16T17:18:00Z", "2023-11-16T18:18:00Z"),
            ("hour", "2023-11-15T19:00:00Z", "2023-11-16T19:00:00Z"),
            ("day", "2023-10-17T00:00:00Z", "2023-11-17T00:00:00Z"),
            ("month", "2022-11-01T00:00:00Z", "2023-12-01T00:00:00Z"),
        ] {
            let starts = ask(&format!("meter=api_call&window={window}")).unwrap().window_starts();
            assert_eq!((starts.start.to_string(), starts.end.to_string()), (from.into(), to.into()), "{window}");
        }
    }

    #[test]
    fn more_windows_than_an_answer_holds_are_refused_before_the_book_is_asked() {
        assert!(ask("meter=m&window=minute&from=2023-01&to=2023-03").is_ok());
        assert!(ask("meter=m&window=day&from=2000-01&to=2199-12").is_ok());
        let problem =
            serde_json::to_string(&ask("meter=m&window=minute&from=2023-01&to=2024-01").unwrap_err()).unwrap();
        assert!(problem.contains("525600 windows") && problem.contains("wider window"), "{problem}");
        assert!(ask("meter=m&from=2023-01&to=2023-01").is_err());
    }
}
