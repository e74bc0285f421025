//! Questions as JSON bodies out, answers of a node back in. Amounts leave as decimal
//! text in their meter's unit and come back in base units: exact both ways.

use std::collections::BTreeMap;

use odometer_schemas::quota::{Answer, Decision, Durability, Item, LimitState, Scope};
use odometer_schemas::time::TimeMs;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Question;

/// The path below `/v1/quota/reservations`, and the body.
pub(super) fn written(question: &Question, scales: &BTreeMap<String, u8>) -> (String, String) {
    let items = |items: &[Item]| items.iter().map(|item| written_item(item, scales)).collect::<Vec<_>>();
    let (path, body) = match question {
        Question::Reserve(reserve) => {
            let mut body = json!({
                "id": reserve.id, "tenant": reserve.who.tenant, "ttl_ms": reserve.ttl_ms,
                "items": items(&reserve.items), "mode": mode(reserve.durability),
            });
            for (name, value) in [("subject", &reserve.who.subject), ("key", &reserve.who.key)] {
                if let Some(value) = value {
                    body[name] = json!(value);
                }
            }
            (String::new(), body)
        }
        Question::Extend(extend) => {
            let body = json!({
                "tenant": extend.tenant, "op_id": extend.op_id, "ttl_ms": extend.ttl_ms,
                "add": items(&extend.add), "mode": mode(extend.durability),
            });
            (format!("/{}/extend", path_segment(&extend.id)), body)
        }
        Question::Commit(commit) => {
            let body = json!({
                "tenant": commit.tenant, "op_id": commit.op_id, "items": items(&commit.items),
                "final": commit.is_final, "mode": mode(commit.durability),
            });
            (format!("/{}/commit", path_segment(&commit.id)), body)
        }
        Question::Release(release) => {
            let body = json!({
                "tenant": release.tenant, "op_id": release.op_id, "mode": mode(release.durability),
            });
            (format!("/{}/release", path_segment(&release.id)), body)
        }
    };
    (path, body.to_string())
}

fn written_item(item: &Item, scales: &BTreeMap<String, u8>) -> Value {
    let scale = scales.get(&item.meter).copied().unwrap_or(0);
    json!({"meter": item.meter, "amount": decimal(item.amount, scale)})
}

/// Base units in the meter's unit.
fn decimal(amount: u64, scale: u8) -> String {
    let scale = usize::from(scale);
    let digits = format!("{amount:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
}

fn mode(durability: Durability) -> &'static str {
    match durability {
        Durability::Strict => "strict",
        Durability::Fast => "fast",
    }
}

/// Every byte that is not unreserved (RFC 3986) percent-encoded.
fn path_segment(text: &str) -> String {
    let encoded = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encoded).collect()
}

/// The members of an answer that are read; a newer node may say more.
#[derive(Deserialize)]
struct AnswerBody {
    decision: String,
    reservation_id: Option<String>,
    expires_at: Option<String>,
    limits: Vec<LimitBody>,
    violated: Vec<String>,
    as_of: String,
    lag_ms: i64,
    degraded: bool,
    #[serde(default)]
    late: bool,
}

#[derive(Deserialize)]
struct LimitBody {
    policy: String,
    scope: Scope,
    meter: String,
    limit: Option<String>,
    hard_limit: Option<String>,
    used: String,
    reserved: String,
    remaining: Option<String>,
    resets_at: Option<String>,
}

/// The answer in a body.
///
/// # Errors
/// What of it cannot be read.
pub(super) fn read(body: &[u8]) -> Result<Answer, String> {
    let body: AnswerBody =
        serde_json::from_slice(body).map_err(|error| format!("an answer that cannot be read: {error}"))?;
    let decisions = [Decision::Allow, Decision::Grace, Decision::Deny];
    let decision = decisions.into_iter().find(|decision| decision.name() == body.decision);
    Ok(Answer {
        decision: decision.ok_or_else(|| format!("`decision` is `{}`", body.decision))?,
        reservation_id: body.reservation_id,
        expires_at: body.expires_at.as_deref().map(|text| time("expires_at", text)).transpose()?,
        limits: body.limits.into_iter().map(limit).collect::<Result<_, _>>()?,
        violated: body.violated,
        as_of: time("as_of", &body.as_of)?,
        lag_ms: body.lag_ms,
        degraded: body.degraded,
        late: body.late,
    })
}

fn limit(body: LimitBody) -> Result<LimitState, String> {
    let maybe = |field, text: Option<String>| text.as_deref().map(|text| number(field, text)).transpose();
    Ok(LimitState {
        limit: maybe("limit", body.limit)?,
        hard_limit: maybe("hard_limit", body.hard_limit)?,
        used: number("used", &body.used)?,
        reserved: number("reserved", &body.reserved)?,
        remaining: maybe("remaining", body.remaining)?,
        resets_at: body.resets_at.as_deref().map(|text| time("resets_at", text)).transpose()?,
        policy: body.policy,
        scope: body.scope,
        meter: body.meter,
    })
}

fn number(field: &str, text: &str) -> Result<i64, String> {
    text.parse().map_err(|error| format!("`{field}` is `{text}`: {error}"))
}

fn time(field: &str, text: &str) -> Result<TimeMs, String> {
    TimeMs::parse_rfc3339(text).map_err(|error| format!("`{field}` is `{text}`: {error}"))
}

/// The `type` of a problem.
pub(super) fn problem_type(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Problem {
        r#type: String,
    }
    serde_json::from_slice::<Problem>(body).ok().map(|problem| problem.r#type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_leave_exactly_in_their_meters_unit() {
        for (amount, scale, expected) in [
            (0, 0, "0"),
            (1500, 0, "1500"),
            (1500, 3, "1.500"),
            (7, 3, "0.007"),
            (u64::MAX, 18, "18.446744073709551615"),
        ] {
            assert_eq!(decimal(amount, scale), expected);
        }
    }

    #[test]
    fn an_answer_is_read_whole_or_not_at_all() {
        let body = r#"{"decision":"grace","reservation_id":"r","expires_at":"2026-11-21T00:00:00Z","limits":[
            {"policy":"p/agent_minute/tenant","scope":"tenant","meter":"agent_minute","unit":"ms","limit":"100",
             "hard_limit":"110","used":"90","reserved":"15","remaining":"0","resets_at":"2026-12-01T00:00:00Z"}],
            "violated":[],"as_of":"2026-11-20T00:00:00Z","lag_ms":3,"degraded":false,"news":1}"#;
        let answer = read(body.as_bytes()).unwrap();
        assert_eq!((answer.decision, answer.limits[0].hard_limit), (Decision::Grace, Some(110)));
        for (good, bad) in [("grace", "maybe"), ("\"90\"", "\"9e1\""), ("2026-12-01T", "2026-13-01T"), ("\"15\"", "15")]
        {
            assert!(read(body.replace(good, bad).as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_stay_one_segment_of_the_path() {
        assert_eq!(path_segment("run-1/ä?"), "run-1%2F%C3%A4%3F");
    }
}
