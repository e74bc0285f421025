//! Real traffic through the gateway: usage per minute and hour equals the reference.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Rig;

/// Rows of one request.
const ROWS: usize = 5_000;

/// Where the shared traces are, if they are there.
fn data() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let directory = std::env::var_os("ODOMETER_DATA").map_or_else(beside, PathBuf::from);
    let found = directory.join("azure-llm").is_dir().then(|| directory.join("azure-llm"));
    if found.is_none() {
        println!("skipped: there are no traces at {}; set ODOMETER_DATA", directory.display());
    }
    found
}

/// One row as three records.
fn lines(tenant: &str, number: usize, row: &str, lines: &mut String) {
    let [time, prompt, generated]: [&str; 3] = row.trim_end().split(',').collect::<Vec<_>>().try_into().unwrap();
    let time = format!("{}Z", time.replace(' ', "T"));
    for (meter, quantity) in [("llm.prompt_tokens", prompt), ("llm.generated_tokens", generated), ("api_call", "1")] {
        writeln!(
            lines,
            r#"{{"id":"{number}","tenant":"{tenant}","meter":"{meter}","quantity":{quantity},"time":"{time}"}}"#
        )
        .unwrap();
    }
}

/// (window start, quantity, records) of every row of an answer.
async fn windows(rig: &Rig, tenant: &str, meter: &str, window: &str) -> Vec<(String, String, u64)> {
    let span = "from=2023-11-16&to=2023-11-17";
    let answer = rig.good(&format!("/v1/usage?tenant={tenant}&meter={meter}&window={window}&{span}")).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let row = |row: &Value| (text(&row["window_start"]), text(&row["quantity"]), row["records"].as_u64().unwrap());
    answer["rows"].as_array().unwrap().iter().map(row).collect()
}

/// What the reference says, in the answer's form.
fn expected(buckets: &Value, measure: &str, suffix: &str) -> Vec<(String, String, u64)> {
    let bucket = |(start, bucket): (&String, &Value)| {
        let start = format!("{}{suffix}", start.replace(' ', "T"));
        (start, bucket[measure].to_string(), bucket["rows"].as_u64().unwrap())
    };
    let mut all: Vec<_> = buckets.as_object().unwrap().iter().map(bucket).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_per_minute_and_hour_equals_the_reference() {
    let Some(data) = data() else { return };
    let reference: Value =
        serde_json::from_str(&std::fs::read_to_string(data.join("reference.json")).unwrap()).unwrap();
    let rig = Rig::start();
    for tenant in ["code", "conv"] {
        let file = data.join(reference["files"][tenant]["file"].as_str().unwrap());
        let text = std::fs::read_to_string(file).unwrap();
        let rows: Vec<&str> = text.lines().skip(1).collect();
        for (chunk, rows) in rows.chunks(ROWS).enumerate() {
            let mut body = String::new();
            rows.iter().enumerate().for_each(|(i, row)| lines(tenant, chunk * ROWS + i, row, &mut body));
            assert_eq!(rig.send(body).await["refused"], 0);
        }
    }
    rig.settle().await;
    for tenant in ["code", "conv"] {
        let reference = &reference["files"][tenant];
        for (meter, measure) in [("llm.prompt_tokens", "prompt"), ("llm.generated_tokens", "gen"), ("api_call", "rows")]
        {
            let minutes = windows(&rig, tenant, meter, "minute").await;
            assert_eq!(minutes, expected(&reference["per_minute"], measure, ":00Z"), "{tenant} {meter}");
            let hours = windows(&rig, tenant, meter, "hour").await;
            assert_eq!(hours, expected(&reference["per_hour"], measure, ":00:00Z"), "{tenant} {meter}");
            let days = windows(&rig, tenant, meter, "day").await;
            let months = windows(&rig, tenant, meter, "month").await;
            assert_eq!((days.len(), months.len()), (1, 1));
            assert_eq!((&days[0].1, days[0].2), (&months[0].1, months[0].2));
            let live = rig.good(&format!("/v1/tenants/{tenant}/usage?meter={meter}&period=2023-11")).await;
            assert_eq!(live["usage"][0]["quantity"], months[0].1.as_str());
            let totals = rig.good(&format!("/v1/totals?tenant={tenant}&meter={meter}&period=2023-11")).await;
            assert_eq!(
                (&totals[0]["quantity"], &totals[0]["records"]),
                (&months[0].1.clone().into(), &months[0].2.into())
            );
        }
    }
    let all = rig.good("/v1/usage?meter=llm.prompt_tokens&window=month&from=2023-11&to=2023-12").await;
    assert_eq!(all["rows"][0]["quantity"], (18_059_974 + 22_361_870).to_string());
}
