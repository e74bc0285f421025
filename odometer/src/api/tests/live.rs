//! `/v1/tenants/{tenant}/usage`.

use std::time::Duration;

use odometer_schemas::time::{HOUR_MS, MINUTE_MS, WindowKind};
use serde_json::{Value, json};

use super::{Rig, line};

/// Asks until the tenant's counters show `records` records, and what they add up to, which
/// is shown a moment later.
async fn until(rig: &Rig, uri: &str, records: u64) -> Value {
    loop {
        let answer = rig.good(uri).await;
        let usage = answer["usage"].as_array().unwrap();
        if usage.iter().map(|usage| usage["records"].as_u64().unwrap()).sum::<u64>() >= records {
            rig.settle().await;
            return rig.good(uri).await;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_show_every_meter_and_period_exactly() {
    let rig = Rig::start();
    let mut body = String::new();
    for (id, time) in ["2023-10-31T23:59:59Z", "2023-11-16T18:17:03Z", "2023-11-16T18:18:03Z"].into_iter().enumerate() {
        body += &line(id as u64, "pool/7", &json!({"time": time, "quantity": 10}));
        body += &line(id as u64, "pool/7", &json!({"time": time, "meter": "users", "subject": "one user"}));
    }
    // Counted once.
    body += &body.clone();
    rig.send(body).await;
    let answer = until(&rig, "/v1/tenants/pool%2F7/usage", 6).await;
    assert_eq!(answer["tenant"], "pool/7");
    assert_eq!(answer["lag_ms"].as_i64().map(|lag| lag >= 0), Some(true));
    let as_of = odometer_schemas::time::TimeMs::parse_rfc3339(answer["as_of"].as_str().unwrap()).unwrap();
    assert!(as_of <= crate::node::progress::now());
    let usage: Vec<_> = answer["usage"]
        .as_array()
        .unwrap()
        .iter()
        .map(|u| json!([u["meter"], u["period_start"], u["quantity"], u["records"]]))
        .collect();
    let expected = [
        json!(["api_call", "2023-10-01T00:00:00Z", "10", 1]),
        json!(["api_call", "2023-11-01T00:00:00Z", "20", 2]),
        json!(["users", "2023-10-01T00:00:00Z", "1", 1]),
        json!(["users", "2023-11-01T00:00:00Z", "1", 2]),
    ];
    assert_eq!(usage, expected);
    let november = &answer["usage"][1];
    assert_eq!(
        [&november["unit"], &november["aggregation"], &november["period_end"]],
        ["call", "sum", "2023-12-01T00:00:00Z"]
    );
    assert_eq!(november["recent_minutes"], json!([]));
    let one = rig.good("/v1/tenants/pool%2F7/usage?meter=users&period=2023-11").await;
    assert_eq!(one["usage"], json!([answer["usage"][3]]));
    assert_eq!(rig.good("/v1/tenants/pool%2F7/usage?meter=nope").await["usage"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recent_minutes_are_those_that_just_passed() {
    let rig = Rig::start();
    let now = crate::node::progress::now();
    let minute = WindowKind::Minute.start_of(now);
    let before = minute.plus_ms(-MINUTE_MS);
    let records = [(1, now), (2, before), (3, before), (4, now.plus_ms(-HOUR_MS))];
    rig.send(records.iter().map(|(id, time)| line(*id, "acme", &json!({"time": time.to_string()}))).collect()).await;
    let answer = until(&rig, "/v1/tenants/acme/usage", 4).await;
    let minutes: Vec<_> =
        answer["usage"].as_array().unwrap().iter().flat_map(|u| u["recent_minutes"].as_array().unwrap()).collect();
    let expected = [json!({"start": before.to_string(), "sum": "2"}), json!({"start": minute.to_string(), "sum": "1"})];
    assert_eq!(minutes, expected.iter().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_tenant_has_no_usage_and_a_wrong_question_is_named() {
    let rig = Rig::start();
    let nobody = rig.good("/v1/tenants/no%20body%23%C3%A9/usage").await;
    assert_eq!((&nobody["tenant"], &nobody["usage"]), (&json!("no body#é"), &json!([])));
    let problem = rig.problem("/v1/tenants/a/usage?period=November", 422).await;
    assert_eq!(problem["field"], "period");
    assert_eq!(rig.problem("/v1/tenants/a/usage?tenant=a", 422).await["field"], "tenant");
    assert_eq!(rig.problem("/v1/tenants/%FF/usage", 422).await["field"], "tenant");
    assert_eq!(rig.problem("/v1/tenants//usage", 422).await["field"], "tenant");
    rig.problem("/v1/tenants/a/b/usage", 404).await;
}
