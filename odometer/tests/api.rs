//! The binary as its users see it: started, asked over HTTP, told to stop.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// Looks at one thing until it is there. Far above what it takes on a busy machine.
const LOOKS_MAX: u32 = 1200;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A running process, killed when a test fails.
struct Process {
    child: Child,
    url: String,
    client: reqwest::Client,
    _directory: TempDir,
}

impl Process {
    fn start(flags: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_odometer"))
            .args(["dev", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(directory.path())
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.find_map(|line| line.unwrap().strip_prefix("ready: ").map(str::to_owned));
        // Whatever else it says is read, so that a full pipe does not hold it up.
        std::thread::spawn(move || lines.for_each(drop));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { child, url: ready.expect("the process ended before it was ready"), client, _directory: directory }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn good(&self, path: &str) -> Value {
        let (status, text) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The samples of `/metrics`, by series.
    async fn metrics(&self) -> BTreeMap<String, f64> {
        let (_, text) = self.get("/metrics").await;
        let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        samples.map(|line| line.rsplit_once(' ').unwrap()).map(|(s, v)| (s.to_owned(), v.parse().unwrap())).collect()
    }

    /// The sum over all series of `name` that carry `label`.
    async fn metric(&self, name: &str, label: &str) -> f64 {
        let samples = self.metrics().await;
        samples.iter().filter(|(s, _)| s.starts_with(name) && s.contains(label)).map(|(_, value)| value).sum()
    }

    /// Waits until `/metrics` says that records have passed with this verdict.
    async fn until_verdict(&self, verdict: &str, records: f64) {
        let label = format!("verdict=\"{verdict}\"");
        for _ in 0..LOOKS_MAX {
            if self.metric("odometer_records_total", &label).await >= records {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        panic!("never {records} records {verdict}");
    }

    /// Terminates it; what it said at the end.
    fn stop(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{said}");
        said
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails when it has ended, as it should have.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_goes_in_and_comes_out_everywhere() {
    let process = Process::start(&[]);
    let record = |id: u32, quantity: u32| {
        format!(
            r#"{{"id":"{id}","tenant":"acme","meter":"api_call","quantity":{quantity},"time":"2023-11-16T18:17:03Z"}}"#
        )
    };
    let body = [record(1, 1), record(2, 2), record(1, 1), record(2, 7)].join("\n");
    let post = process.client.post(format!("{}/v1/events", process.url)).header("content-type", "application/x-ndjson");
    assert_eq!(post.body(body).send().await.unwrap().status(), 202);
    for (verdict, records) in [("accepted", 2.0), ("duplicate", 1.0), ("conflict", 1.0)] {
        process.until_verdict(verdict, records).await;
    }
    assert_eq!(process.good("/v1/tenants/acme/usage").await["usage"][0]["quantity"], "3");
    let usage = "/v1/usage?tenant=acme&meter=api_call&window=month&from=2023-11&to=2023-12";
    let mut looks = 0..LOOKS_MAX;
    while process.good(usage).await["rows"][0]["quantity"] != "3" {
        assert!(looks.next().is_some(), "the rollups never had it");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    assert_eq!(process.good("/v1/totals").await[0]["quantity"], "3");
    let records = process.good("/v1/records?tenant=acme").await;
    assert_eq!(records["records"].as_array().unwrap().len(), 4);
    assert_eq!(process.get("/readyz").await.0, 200);
    assert_eq!(process.get("/nope").await.0, 404);
    // Nothing is under way any more: the law holds per partition, and nothing lags.
    let metrics = process.metrics().await;
    let of = |name: &str, partition: u32| -> f64 {
        let label = format!("partition=\"{partition}\"");
        metrics.iter().filter(|(s, _)| s.starts_with(name) && s.contains(&label)).map(|(_, value)| value).sum()
    };
    for partition in 0..4 {
        let (received, judged) =
            (of("odometer_records_received_total{", partition), of("odometer_records_total{", partition));
        assert!((received - judged).abs() < 0.5, "partition {partition}: {received} received, {judged} judged");
        assert!(of("odometer_lag_envelopes{", partition) < 0.5, "partition {partition} lags");
    }
    assert!(process.metric("odometer_records_received_total", "").await >= 4.0);
    let said = process.stop();
    assert!(said.contains("drained: 4 records received; 2 accepted, 1 duplicate, 1 conflict"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_is_lively_and_stops_when_told() {
    let process = Process::start(&["--demo"]);
    for verdict in ["accepted", "conflict", "rejected"] {
        process.until_verdict(verdict, 1.0).await;
    }
    for (tenant, meter) in [
        ("acme", "agent_minute"),
        ("umbrella", "llm.prompt_tokens"),
        ("umbrella", "llm.generated_tokens"),
        ("stark", "api_call"),
        ("wayne", "websocket_minute"),
    ] {
        let mut looks = 0..LOOKS_MAX;
        while process.good(&format!("/v1/tenants/{tenant}/usage?meter={meter}")).await["usage"] == serde_json::json!([])
        {
            assert!(looks.next().is_some(), "{tenant} has no {meter}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    assert!(process.metric("odometer_gateway_events_refused_total", "unknown_meter").await >= 1.0);
    let said = process.stop();
    assert!(said.contains("drained: ") && !said.contains("panicked"), "{said}");
}
