//! What is told of an alert: a CloudEvent. Its id is that of the crossing, so whoever
//! gets it twice knows it.

use odometer_schemas::quota::AlertRow;
use odometer_schemas::time::TimeMs;
use serde::Serialize;

/// The media type of an event's body.
pub(crate) const CONTENT_TYPE: &str = "application/cloudevents+json; charset=utf-8";
/// The type of every event here.
const TYPE: &str = "odometer.quota.crossed";

/// The id of an alert, unique among all alerts of one log.
pub(crate) fn alert_id(partition: u32, sequence: u64) -> String {
    format!("{partition}-{sequence}")
}

/// The partition and sequence that an id names.
pub(crate) fn parse_alert_id(text: &str) -> Option<(u32, u64)> {
    let (partition, sequence) = text.split_once('-')?;
    // What the books can hold.
    let sequence = sequence.parse().ok().filter(|sequence| i64::try_from(*sequence).is_ok())?;
    Some((partition.parse().ok()?, sequence))
}

/// One event, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its place among its partition's alerts.
    pub(crate) sequence: u64,
    /// Unique in its source.
    pub(crate) id: String,
    pub(crate) tenant: String,
    /// JSON.
    pub(crate) body: Vec<u8>,
}

/// An alert as the API and events show it.
#[derive(Debug, Serialize)]
pub(crate) struct AlertAnswer {
    /// Unique among all alerts of the installation.
    id: String,
    tenant: String,
    meter: String,
    scope: &'static str,
    /// The subject or key; none for the tenant's own limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// RFC 3339.
    period_start: String,
    /// RFC 3339, exclusive.
    period_end: String,
    /// The part of the limit that was crossed.
    percent: u16,
    policy: String,
    /// Base units.
    limit: i64,
    /// Base units.
    used: i64,
    /// When the record was appended that crossed it, RFC 3339.
    at: String,
}

impl AlertAnswer {
    pub(crate) fn new(partition: u32, row: &AlertRow) -> Self {
        Self {
            id: alert_id(partition, row.sequence),
            tenant: row.tenant.clone(),
            meter: row.meter.clone(),
            scope: row.scope.name(),
            name: Some(row.name.clone()).filter(|name| !name.is_empty()),
            period_start: TimeMs(row.period_start_ms).to_string(),
            period_end: TimeMs(row.period_end_ms).to_string(),
            percent: row.percent,
            policy: row.policy.clone(),
            limit: row.limit,
            used: row.used,
            at: TimeMs(row.at_ms).to_string(),
        }
    }
}

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    r#type: &'static str,
    time: &'a str,
    subject: &'a str,
    datacontenttype: &'static str,
    data: &'a AlertAnswer,
}

impl Event {
    /// The event of an alert of the log that `source` names.
    pub(crate) fn new(source: &str, partition: u32, row: &AlertRow) -> Self {
        let data = AlertAnswer::new(partition, row);
        let event = CloudEvent {
            specversion: "1.0",
            id: &data.id,
            source,
            r#type: TYPE,
            time: &data.at,
            subject: &data.tenant,
            datacontenttype: "application/json",
            data: &data,
        };
        let body = serde_json::to_vec(&event).expect("texts and numbers are JSON");
        Self { sequence: row.sequence, id: data.id.clone(), tenant: data.tenant.clone(), body }
    }
}

#[cfg(test)]
mod tests {
    use odometer_schemas::quota::Scope;

    use super::*;

    #[test]
    fn an_event_says_what_was_crossed() {
        let row = AlertRow {
            sequence: AlertRow::sequence(7, 1),
            at_ms: 1_767_225_600_000,
            tenant: "acme".into(),
            meter: "api_call".into(),
            scope: Scope::Key,
            name: "k1".into(),
            period_start_ms: 1_767_225_600_000,
            period_end_ms: 1_769_904_000_000,
            percent: 80,
            policy: "pro/api_call/key".into(),
            limit: 100,
            used: 81,
        };
        let event = Event::new("odometer/log", 3, &row);
        assert_eq!(parse_alert_id(&event.id), Some((3, row.sequence)));
        assert_eq!((event.id.as_str(), event.tenant.as_str()), ("3-458753", "acme"));
        let body: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "specversion": "1.0", "id": "3-458753", "source": "odometer/log", "type": "odometer.quota.crossed",
                "time": "2026-01-01T00:00:00Z", "subject": "acme", "datacontenttype": "application/json",
                "data": {
                    "id": "3-458753", "tenant": "acme", "meter": "api_call", "scope": "key", "name": "k1",
                    "period_start": "2026-01-01T00:00:00Z", "period_end": "2026-02-01T00:00:00Z", "percent": 80,
                    "policy": "pro/api_call/key", "limit": 100, "used": 81, "at": "2026-01-01T00:00:00Z"
                }
            })
        );
    }
}
