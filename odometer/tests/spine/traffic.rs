//! Traffic in, exact books out; and again, which must change nothing.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{Process, Totals, Trace, azure, example_map, json, real_data, synthetic, totals, verify};

/// Replays everything twice; the totals must be the expected ones both times.
fn exact_and_idempotent(traces: &[Trace]) {
    let data_dir = tempfile::tempdir().unwrap();
    let expected: Totals = traces.iter().flat_map(|trace| trace.expected.clone()).collect();
    let process = Process::start(data_dir.path());
    traces.iter().for_each(|trace| trace.replay(&process.url));
    assert_eq!(verify(data_dir.path()).0, 0, "beside a running process");
    process.stop();
    let first = json(&["totals", "--json", "--data-dir", data_dir.path().to_str().unwrap()]);
    assert_eq!(totals(data_dir.path()), expected);

    let process = Process::start(data_dir.path());
    traces.iter().for_each(|trace| trace.replay(&process.url));
    process.stop();
    let (code, report) = verify(data_dir.path());
    assert_eq!(code, 0, "{report}");
    let second = json(&["totals", "--json", "--data-dir", data_dir.path().to_str().unwrap()]);
    assert_eq!(first, second, "a replay changed a total");
}

#[test]
fn synthetic_traffic_is_counted_exactly_once() {
    let directory = tempfile::tempdir().unwrap();
    exact_and_idempotent(&[synthetic(directory.path(), 4000)]);
}

#[test]
fn azure_traffic_is_counted_exactly_once() {
    let Some(data) = real_data() else { return };
    exact_and_idempotent(&azure(&data));
}

#[test]
fn servegen_traffic_is_counted_exactly_once() {
    let Some(data) = real_data() else { return };
    let reference: Value =
        serde_json::from_slice(&std::fs::read(data.join("servegen/reference.json")).unwrap()).unwrap();
    let data_dir = tempfile::tempdir().unwrap();
    let trace = Trace {
        file: data.join("servegen/servegen_requests_10min.csv.zst"),
        map: example_map("servegen.toml"),
        expected: Totals::new(),
        records: 251_524,
    };
    let process = Process::start(data_dir.path());
    trace.replay(&process.url);
    process.stop();
    let found: BTreeMap<String, i128> = totals(data_dir.path()).into_iter().map(|((t, _), (q, _))| (t, q)).collect();
    assert_eq!(found.values().sum::<i128>(), 3_824_907_861);
    assert_eq!(found.len(), 421);
    for (pool, facts) in reference["pools"].as_object().unwrap() {
        for (client, requests) in facts["per_client"].as_object().unwrap() {
            let counted = found.get(&format!("{pool}/{client}")).copied().unwrap_or(0);
            assert_eq!(counted, i128::from(requests.as_i64().unwrap()), "{pool}/{client}");
        }
    }
    let (code, report) = verify(data_dir.path());
    assert_eq!(code, 0, "{report}");
}
