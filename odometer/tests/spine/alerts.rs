//! Alerts of one process: each crossing once, whatever a SIGKILL interrupts.

use crate::crossings::{Receiver, SECRET, await_crossings, plan, use_calls};
use crate::support::Process;

#[test]
fn each_crossing_is_told_once_to_a_webhook() {
    const TENANTS: usize = 5;
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::start();
    let config = directory.path().join("odometer.toml");
    let text = format!("[alerts]\nwebhook = '{}'\nsecret = '{SECRET}'\n{}", receiver.url, plan());
    std::fs::write(&config, text).unwrap();
    let data = directory.path().join("data");
    let args = ["dev", "--config", config.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
    let process = Process::spawn(&args);
    use_calls(&process.url, TENANTS, 0..60);
    await_crossings(TENANTS, 50, || receiver.events());
    use_calls(&process.url, TENANTS, 60..90);
    process.kill();
    let process = Process::spawn(&args);
    // Some are duplicates now.
    use_calls(&process.url, TENANTS, 50..95);
    await_crossings(TENANTS, 80, || receiver.events());
    use_calls(&process.url, TENANTS, 95..130);
    await_crossings(TENANTS, 110, || receiver.events());
    let alerts = listed(&process, "tenant=tenant-3&limit=3");
    let percents: Vec<_> = alerts["alerts"].as_array().unwrap().iter().map(|alert| alert["percent"].clone()).collect();
    assert_eq!(percents, [50, 80, 100]);
    let rest = listed(&process, &format!("tenant=tenant-3&after={}", alerts["next"].as_str().unwrap()));
    assert_eq!((&rest["alerts"][0]["percent"], &rest["next"]), (&110.into(), &serde_json::Value::Null));
    process.stop();
}

fn listed(process: &Process, query: &str) -> serde_json::Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let url = format!("{}/v1/alerts?{query}", process.url);
    runtime.block_on(async { reqwest::get(url).await.unwrap().json().await.unwrap() })
}
