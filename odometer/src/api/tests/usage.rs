//! `/v1/usage` beyond real traffic: windows, groups, aggregations, and every refusal.

use serde_json::json;

use super::{Rig, line};

async fn filled() -> Rig {
    let rig = Rig::start();
    let mut body = String::new();
    for (id, (time, model)) in [
        ("2023-10-31T23:59:59.999Z", Some("a")),
        ("2023-11-01T00:00:00Z", Some("a")),
        ("2023-11-01T00:00:59.999Z", Some("b")),
        ("2023-11-01T00:01:00Z", None),
        ("2023-12-01T00:00:00Z", Some("b")),
    ]
    .into_iter()
    .enumerate()
    {
        let dimensions = model.map_or(json!({}), |model| json!({"model": model, "dropped": "x"}));
        body += &line(id as u64, "acme", &json!({"time": time, "quantity": 10 + id, "dimensions": dimensions}));
        body += &line(id as u64, "pool/7", &json!({"time": time, "quantity": 100, "dimensions": dimensions}));
    }
    for (id, (quantity, region)) in [(5, "eu"), (9, "us"), (7, "eu")].into_iter().enumerate() {
        let fields = json!({"meter": "peak", "quantity": quantity, "dimensions": {"region": region}});
        body += &line(id as u64, "acme", &fields);
        body += &line(id as u64, "acme", &json!({"meter": "users", "subject": region}));
    }
    assert_eq!(rig.send(body).await["refused"], 0);
    rig.settle().await;
    rig
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_are_whole_half_open_and_in_utc() {
    let rig = filled().await;
    let rows = async |query: &str| rig.good(&format!("/v1/usage?tenant=acme&meter=api_call&{query}")).await;
    let months = rows("window=month&from=2023-10&to=2023-12").await;
    assert_eq!((&months["from"], &months["to"]), (&json!("2023-10-01T00:00:00Z"), &json!("2023-12-01T00:00:00Z")));
    let expected = json!([
        {"window_start": "2023-10-01T00:00:00Z", "window_end": "2023-11-01T00:00:00Z", "quantity": "10", "records": 1},
        {"window_start": "2023-11-01T00:00:00Z", "window_end": "2023-12-01T00:00:00Z", "quantity": "36", "records": 3},
    ]);
    assert_eq!(months["rows"], expected);
    assert_eq!([&months["unit"], &months["base_unit"], &months["aggregation"]], ["call", "call", "sum"]);
    // A window is never cut: asking from the middle of a minute shows all of it.
    let minute = rows("window=minute&from=2023-11-01T00:00:30Z&to=2023-11-01T00:00:31Z").await;
    assert_eq!(minute["rows"].as_array().unwrap().len(), 1);
    assert_eq!((&minute["rows"][0]["quantity"], &minute["from"]), (&json!("23"), &json!("2023-11-01T00:00:00Z")));
    let zoned = rows("window=minute&from=2023-11-01T02:00:00%2B01:00&to=2023-11-02").await;
    assert_eq!(zoned["rows"], json!([]));
    // Without times, the answer is about now.
    assert_eq!(rows("window=day").await["rows"], json!([]));
    let everybody = rig.good("/v1/usage?meter=api_call&window=month&from=2023-11&to=2023-12").await;
    assert_eq!((&everybody["rows"][0]["quantity"], everybody.get("tenant")), (&json!("336"), None));
    let other = rig.good("/v1/usage?tenant=pool%2F7&meter=api_call&window=day&from=2023-12&to=2024-01").await;
    assert_eq!((&other["tenant"], &other["rows"][0]["quantity"]), (&json!("pool/7"), &json!("100")));
    assert_eq!(rig.good("/v1/usage?tenant=nobody&meter=api_call").await["rows"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_split_a_window_and_aggregations_are_not_summed() {
    let rig = filled().await;
    let answer =
        rig.good("/v1/usage?tenant=acme&meter=api_call&group_by=model&window=month&from=2023-11&to=2023-12").await;
    assert_eq!(answer["group_by"], "model");
    let groups: Vec<_> = answer["rows"].as_array().unwrap().iter().map(|r| (&r["group"], &r["quantity"])).collect();
    assert_eq!(groups, [(&json!(null), &json!("13")), (&json!("a"), &json!("11")), (&json!("b"), &json!("12"))]);
    let peak = async |query: &str| rig.good(&format!("/v1/usage?meter=peak&from=2023-11&to=2023-12{query}")).await;
    let all = peak("").await;
    assert_eq!([&all["rows"][0]["quantity"], &all["aggregation"]], ["9", "max"]);
    assert_eq!(all["rows"][0]["records"], 3);
    let by_region = peak("&group_by=region").await;
    assert_eq!([&by_region["rows"][0]["quantity"], &by_region["rows"][0]["group"]], ["7", "eu"]);
    let users = rig.good("/v1/usage?meter=users&window=day&from=2023-11&to=2023-12").await;
    assert_eq!(users["rows"][0]["quantity"], "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_says_through_when_it_is_complete() {
    let rig = filled().await;
    let sent_at = crate::node::progress::now();
    let complete = async || {
        let answer = rig.good("/v1/usage?tenant=acme&meter=api_call").await;
        odometer_schemas::time::TimeMs::parse_rfc3339(answer["complete_through"].as_str().unwrap()).unwrap()
    };
    while complete().await < sent_at {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(complete().await <= crate::node::progress::now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_cannot_be_answered_is_named_with_its_fix() {
    let rig = Rig::start();
    let cases = [
        ("", "meter", "meter=api_call"),
        ("meter=", "meter", "leave the parameter out"),
        ("meter=api_cal", "meter", "agent_minute, api_call, llm.generated_tokens"),
        ("meter=api_call&window=week", "window", "minute, hour, day or month"),
        ("meter=api_call&group_by=region", "group_by", "it keeps model"),
        ("meter=users&group_by=model", "group_by", "it keeps none"),
        ("meter=api_call&from=yesterday", "from", "2023-11-16"),
        ("meter=api_call&to=2023-11-16T18:17:03", "to", "2023-11-16"),
        ("meter=api_call&from=2023-11-16T18:17:03+01:00", "from", "%2B"),
        ("meter=api_call&from=2023-12&to=2023-11", "from", "exclusive"),
        ("meter=api_call&metre=1", "metre", "tenant, meter, from, to, window or group_by"),
        ("meter=api_call&meter=api_call", "meter", "once"),
        ("meter=api_call&window=minute&from=2020&to=2021", "from", "2023-11"),
        ("meter=api_call&window=minute&from=2020-01&to=2021-01", "window", "wider window"),
    ];
    for (query, field, fix) in cases {
        let problem = rig.problem(&format!("/v1/usage?{query}"), 422).await;
        assert_eq!(problem["field"], field, "{query}: {problem}");
        assert!(problem["fix"].as_str().unwrap().contains(fix), "{query}: {problem}");
    }
}
