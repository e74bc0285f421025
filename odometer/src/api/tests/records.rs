//! `/v1/records`, `/v1/rejected` and `/v1/totals`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::{Rig, line};

/// Five records of one tenant with different verdicts, and one of another.
async fn judged() -> Rig {
    let rig = Rig::start();
    let fields = json!({"source": "s", "subject": "u", "dimensions": {"model": "é\"x"}, "reservation": "r"});
    rig.send(line(1, "acme", &fields) + &line(2, "acme", &json!({"quantity": 5}))).await;
    rig.send(line(1, "acme", &fields) + &line(2, "acme", &json!({"quantity": 6})) + &line(1, "other", &json!({})))
        .await;
    rig.send(line(3, "acme", &json!({"time": "2190-01-01T00:00:00Z", "meter": "llm.prompt_tokens"}))).await;
    rig.settle().await;
    rig
}

fn of<'a>(answer: &'a Value, name: &str) -> Vec<&'a Value> {
    answer["records"].as_array().unwrap().iter().map(|record| &record[name]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_come_with_verdicts_in_log_order() {
    let rig = judged().await;
    let all = rig.good("/v1/records?tenant=acme").await;
    assert_eq!(of(&all, "verdict"), ["accepted", "accepted", "duplicate", "conflict", "rejected"]);
    assert_eq!(of(&all, "id"), ["1", "2", "1", "2", "3"]);
    assert_eq!(all["next"], json!(null));
    assert_eq!(all["records"][4]["reason"], "time_in_future");
    let mut first = all["records"][0].clone();
    let members = first.as_object_mut().unwrap();
    let position = members.remove("position").unwrap();
    assert_eq!(position.as_str().unwrap().split('/').count(), 3);
    assert!(members.remove("append_time").unwrap().as_str().unwrap().ends_with('Z'));
    let expected = json!({
        "tenant": "acme", "source": "s", "id": "1", "id_emitted": false, "meter": "api_call", "subject": "u",
        "quantity": "1", "time": "2023-11-16T18:17:03.979Z", "time_given": true, "dimensions": {"model": "é\"x"},
        "reservation": "r", "verdict": "accepted",
    });
    assert_eq!(first, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_filtered_and_paged_without_gap_or_overlap() {
    let rig = judged().await;
    for (query, expected) in [
        ("id=2", 2),
        ("id=2&verdict=conflict", 1),
        ("source=s", 2),
        ("source=http", 3),
        ("meter=llm.prompt_tokens", 1),
        ("verdict=late", 0),
        ("from=2023-11-16&to=2023-11-17", 4),
        ("from=2100-01", 1),
        ("id=nope", 0),
        ("limit=5", 5),
    ] {
        let answer = rig.good(&format!("/v1/records?tenant=acme&{query}")).await;
        assert_eq!(answer["records"].as_array().unwrap().len(), expected, "{query}");
        assert_eq!(answer["next"], json!(null), "{query}");
    }
    let all = rig.good("/v1/records?tenant=acme").await;
    for limit in 1..=4 {
        let (mut after, mut paged) = (String::new(), Vec::new());
        loop {
            let page = rig.good(&format!("/v1/records?tenant=acme&limit={limit}{after}")).await;
            assert!(page["records"].as_array().unwrap().len() <= limit);
            paged.extend(page["records"].as_array().unwrap().clone());
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(json!(paged), all["records"], "pages of {limit}");
    }
    assert_eq!(rig.good("/v1/records?tenant=nobody").await, json!({"records": [], "next": null}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_decoded_is_kept_whole() {
    let rig = Rig::start();
    let (garbage, longer) = (b"hello \xff\x00".to_vec(), vec![7; 40_000]);
    let offsets = [rig.append(1, garbage.clone()).await, rig.append(1, longer.clone()).await];
    rig.append(3, b"ODOX".to_vec()).await;
    rig.settle().await;
    let all = rig.good("/v1/rejected").await;
    let entries = all["entries"].as_array().unwrap();
    assert_eq!((entries.len(), &all["next"]), (3, &json!(null)));
    for (entry, (offset, bytes)) in entries.iter().zip([(offsets[0], garbage), (offsets[1], longer)]) {
        assert_eq!((&entry["partition"], &entry["offset"]), (&json!(1), &json!(offset)));
        assert_eq!((&entry["verdict"], &entry["reason"]), (&json!("rejected"), &json!("not_an_envelope")));
        assert_eq!(BASE64_STANDARD.decode(entry["bytes_base64"].as_str().unwrap()).unwrap(), bytes);
    }
    let one = rig.good("/v1/rejected?partition=3").await;
    assert_eq!(one["entries"], json!([entries[2]]));
    let first = rig.good("/v1/rejected?limit=1").await;
    assert_eq!(first["next"], format!("1/{}", offsets[0]));
    let rest = rig.good(&format!("/v1/rejected?limit=2&after={}", first["next"].as_str().unwrap())).await;
    assert_eq!((&rest["entries"], &rest["next"]), (&json!(entries[1..]), &json!(null)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn totals_are_filtered() {
    let rig = judged().await;
    let totals = rig.good("/v1/totals?tenant=acme&period=2023-11").await;
    assert_eq!((&totals[0]["quantity"], &totals[0]["records"]), (&json!("6"), &json!(2)));
    assert_eq!(totals[0]["digest"].as_str().unwrap().len(), 32);
    assert_eq!(rig.good("/v1/totals").await.as_array().unwrap().len(), 2);
    assert_eq!(rig.good("/v1/totals?meter=peak").await, json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_questions_name_the_parameter() {
    let rig = Rig::start();
    let cases = [
        ("/v1/records", "tenant"),
        ("/v1/records?tenant=a&verdict=accept", "verdict"),
        ("/v1/records?tenant=a&limit=0", "limit"),
        ("/v1/records?tenant=a&limit=1001", "limit"),
        ("/v1/records?tenant=a&limit=many", "limit"),
        ("/v1/records?tenant=a&after=1/2", "after"),
        ("/v1/records?tenant=a&after=x/y/z", "after"),
        ("/v1/records?tenant=a&from=1700158623", "from"),
        ("/v1/records?tenant=a&offset=7", "offset"),
        ("/v1/rejected?partition=4", "partition"),
        ("/v1/rejected?partition=-1", "partition"),
        ("/v1/rejected?limit=101", "limit"),
        ("/v1/rejected?after=1/2/3", "after"),
        ("/v1/rejected?tenant=a", "tenant"),
        ("/v1/totals?period=2023", "period"),
        ("/v1/totals?period=2023-13", "period"),
        ("/v1/totals?month=2023-11", "month"),
    ];
    for (uri, field) in cases {
        assert_eq!(rig.problem(uri, 422).await["field"], field, "{uri}");
    }
}
