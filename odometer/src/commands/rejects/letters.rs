//! The dead letters of a cluster's bridge, for people and for programs to read.

use anyhow::{Context, anyhow};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use odometer_ingest::bridge::rejects::{Place, Reject, Rejects};
use odometer_ingest::log::LogError;
use serde_json::{Map, Value, json};

use super::{List, Listed};
use crate::config::Config;
use crate::node::bridging::bridge_options;

/// Opens the dead letters.
pub(super) fn open(config: &Config) -> anyhow::Result<Rejects> {
    let options = bridge_options(&config.cluster).dead_letters();
    Rejects::open(&options).map_err(|error| failed(error, config))
}

/// An error that says which topic it was.
pub(super) fn failed(error: LogError, config: &Config) -> anyhow::Error {
    let place =
        format!("dead letters in {} at {}", config.cluster.bridge.dead_letter_topic, config.cluster.kafka.brokers);
    anyhow::Error::new(error).context(place)
}

pub(super) fn list(config: &Config, limit: usize) -> anyhow::Result<List> {
    let (mut listed, mut has_more) = (Vec::new(), false);
    let listing = open(config)?.list(|reject| {
        has_more = listed.len() == limit;
        if !has_more {
            listed.push(Listed { row: row_of(&reject), json: Value::Object(summary_of(&reject)) });
        }
        !has_more
    });
    listing.map_err(|error| failed(error, config))?;
    Ok(List { header: ["PLACE", "REFUSED AT", "EVENTS", "FROM", "REASON"], listed, has_more })
}

pub(super) fn show(config: &Config, place: &str) -> anyhow::Result<Value> {
    let place = parse(place)?;
    let found = open(config)?.show(place).map_err(|error| failed(error, config))?;
    Ok(whole(&found.with_context(|| missing(place))?))
}

pub(super) fn parse(place: &str) -> anyhow::Result<Place> {
    place.parse().map_err(|problem: String| anyhow!(problem))
}

pub(super) fn missing(place: Place) -> String {
    format!("there is no dead letter at {place}, or no longer; `odometer rejects list` shows those that there are")
}

fn row_of(reject: &Reject) -> [String; super::COLUMNS] {
    let refused_at = reject.refused_at.map(|at| at.to_string()).unwrap_or_default();
    let reason = if reject.reason.is_empty() { "not given".to_owned() } else { reject.reason.clone() };
    [reject.place.to_string(), refused_at, reject.refused_count.to_string(), origin_of(reject), reason]
}

fn origin_of(reject: &Reject) -> String {
    reject.origin.as_ref().map(|origin| format!("{}/{}", origin.topic, origin.place)).unwrap_or_default()
}

fn summary_of(reject: &Reject) -> Map<String, Value> {
    let time = |at: Option<odometer_schemas::time::TimeMs>| at.map(|at| at.to_string());
    let members = [
        ("place", json!(reject.place.to_string())),
        ("refused_at", json!(time(reject.refused_at))),
        ("first_refused_at", json!(time(reject.first_refused_at))),
        ("reason", json!(reject.reason)),
        ("refused_count", json!(reject.refused_count)),
        ("refused", json!(reject.refused)),
        ("origin", json!(reject.origin.as_ref().map(|_| origin_of(reject)))),
        ("origin_time", json!(time(reject.origin_time))),
        ("body_bytes", json!(reject.body.as_ref().map(Vec::len))),
    ];
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The letter with everything that the message had. What is no text is in base64.
fn whole(reject: &Reject) -> Value {
    let mut members = summary_of(reject);
    let headers = reject.headers.iter().map(|(name, value)| {
        let value = value.as_ref().map(|value| String::from_utf8_lossy(value));
        json!({ "name": String::from_utf8_lossy(name), "value": value })
    });
    members.insert("headers".into(), headers.collect());
    for (name, bytes) in [("key", &reject.key), ("body", &reject.body)] {
        let Some(bytes) = bytes else {
            members.insert(name.into(), Value::Null);
            continue;
        };
        match std::str::from_utf8(bytes) {
            Ok(text) => members.insert(name.into(), json!(text)),
            Err(_) => members.insert(format!("{name}_base64"), json!(BASE64_STANDARD.encode(bytes))),
        };
    }
    Value::Object(members)
}
