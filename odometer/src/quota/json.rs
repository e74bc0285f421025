//! Answers in, JSON out, written without a serialiser: making the answer took longer than
//! deciding it. Amounts are texts, like all quantities in answers.

use odometer_schemas::quota::{Answer, LimitState};
use odometer_schemas::time::TimeMs;

use super::meters::Meters;
use super::text::append_moment;

/// What a denial says besides the answer: members of RFC 9457 and one of ours. None has
/// a character that JSON escapes.
pub(super) struct Denial {
    pub(super) r#type: &'static str,
    /// Also the detail.
    pub(super) title: &'static str,
    pub(super) fix: &'static str,
}

/// Appends an answer as an object.
pub(super) fn append(answer: &Answer, meters: &Meters, json: &mut String) {
    json.push('{');
    append_members(answer, meters, json);
    json.push('}');
}

/// Appends a denial: a problem's members, then those of every answer.
pub(super) fn append_denial(denial: &Denial, answer: &Answer, meters: &Meters, json: &mut String) {
    let Denial { r#type, title, fix } = denial;
    json.extend(["{\"type\":\"", r#type, "\",\"title\":\"", title, "\",\"status\":429,\"detail\":\"", title]);
    json.extend(["\",\"fix\":\"", fix, "\",\"violated-policies\":"]);
    // As the draft of the RateLimit fields names it.
    append_texts(&answer.violated, json);
    json.push(',');
    append_members(answer, meters, json);
    json.push('}');
}

fn append_members(answer: &Answer, meters: &Meters, json: &mut String) {
    json.extend(["\"decision\":\"", answer.decision.name(), "\""]);
    if let Some(id) = &answer.reservation_id {
        json.push_str(",\"reservation_id\":");
        append_text(id, json);
    }
    if let Some(expires_at) = answer.expires_at {
        json.push_str(",\"expires_at\":");
        append_time(expires_at, json);
    }
    json.push_str(",\"limits\":[");
    for (index, limit) in answer.limits.iter().enumerate() {
        json.push_str(if index > 0 { "," } else { "" });
        append_limit(limit, meters, json);
    }
    json.push_str("],\"violated\":");
    append_texts(&answer.violated, json);
    json.push_str(",\"as_of\":");
    append_time(answer.as_of, json);
    json.extend([",\"lag_ms\":", itoa::Buffer::new().format(answer.lag_ms)]);
    json.push_str(if answer.degraded { ",\"degraded\":true" } else { ",\"degraded\":false" });
    json.push_str(if answer.late { ",\"late\":true" } else { "" });
}

fn append_limit(state: &LimitState, meters: &Meters, json: &mut String) {
    json.push_str("{\"policy\":");
    append_text(&state.policy, json);
    json.extend([",\"scope\":\"", state.scope.name(), "\",\"meter\":"]);
    append_text(&state.meter, json);
    json.push_str(",\"unit\":");
    append_text(meters.base_unit(&state.meter), json);
    let amounts = [
        (",\"limit\":", state.limit),
        (",\"hard_limit\":", state.hard_limit),
        (",\"used\":", Some(state.used)),
        (",\"reserved\":", Some(state.reserved)),
        (",\"remaining\":", state.remaining),
    ];
    for (name, amount) in amounts {
        match amount {
            Some(amount) => json.extend([name, "\"", itoa::Buffer::new().format(amount), "\""]),
            None => json.extend([name, "null"]),
        }
    }
    json.push_str(",\"resets_at\":");
    match state.resets_at {
        Some(resets_at) => append_time(resets_at, json),
        None => json.push_str("null"),
    }
    json.push('}');
}

fn append_texts(texts: &[String], json: &mut String) {
    json.push('[');
    for (index, text) in texts.iter().enumerate() {
        json.push_str(if index > 0 { "," } else { "" });
        append_text(text, json);
    }
    json.push(']');
}

fn append_time(time: TimeMs, json: &mut String) {
    json.push('"');
    append_moment(time, json);
    json.push('"');
}

fn append_text(text: &str, json: &mut String) {
    let is_plain = |byte| !matches!(byte, 0..=31 | b'"' | b'\\');
    if text.bytes().all(is_plain) {
        json.extend(["\"", text, "\""]);
    } else {
        json.push_str(&serde_json::Value::from(text).to_string());
    }
}

#[cfg(test)]
mod tests {
    use odometer_schemas::meter::Meter;
    use odometer_schemas::quota::{Decision, Scope};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn value(answer: &Answer) -> Value {
        let mut json = String::new();
        append(answer, &Meters::new(&Meter::built_in()), &mut json);
        serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"))
    }

    fn answer(limits: Vec<LimitState>) -> Answer {
        let (as_of, violated) = (TimeMs(1_500), vec![]);
        let (reservation_id, expires_at) = (None, None);
        Answer {
            decision: Decision::Grace,
            reservation_id,
            expires_at,
            limits,
            violated,
            as_of,
            lag_ms: -7,
            degraded: false,
            late: false,
        }
    }

    #[test]
    fn what_is_not_there_is_null_or_left_out() {
        let shortest = json!({
            "decision": "grace", "limits": [], "violated": [], "as_of": "1970-01-01T00:00:01.5Z", "lag_ms": -7,
            "degraded": false,
        });
        assert_eq!(value(&answer(vec![])), shortest);
        let limit = LimitState {
            policy: "p".into(),
            scope: Scope::Key,
            meter: "agents".into(),
            limit: None,
            hard_limit: None,
            used: i64::MIN,
            reserved: i64::MAX,
            remaining: None,
            resets_at: None,
        };
        let shown = json!({
            "policy": "p", "scope": "key", "meter": "agents", "unit": "slot", "limit": null, "hard_limit": null,
            "used": "-9223372036854775808", "reserved": "9223372036854775807", "remaining": null, "resets_at": null,
        });
        assert_eq!(value(&answer(vec![limit.clone(), limit]))["limits"], json!([shown, shown]));
    }

    proptest! {
        #[test]
        fn every_text_is_read_as_it_was(texts in prop::collection::vec(any::<String>(), 0..3)) {
            let mut all = answer(vec![]);
            (all.reservation_id, all.violated) = (texts.first().cloned(), texts.clone());
            (all.late, all.degraded) = (true, true);
            let value = value(&all);
            prop_assert_eq!(&value["violated"], &json!(texts));
            prop_assert_eq!(value["reservation_id"].as_str(), texts.first().map(String::as_str));
            prop_assert_eq!((&value["late"], &value["degraded"]), (&json!(true), &json!(true)));
        }
    }
}
