//! Traffic in, exact books out; and again, which must change nothing.

use crate::support::{Process, Totals, Trace, azure, json, quantities, real_data, servegen, synthetic, totals, verify};

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
    let (data_dir, trace) = (tempfile::tempdir().unwrap(), servegen(&data));
    let process = Process::start(data_dir.path());
    trace.replay(&process.url);
    process.stop();
    let found = totals(data_dir.path());
    assert_eq!(quantities(&found), quantities(&trace.expected));
    assert_eq!(found.values().map(|(quantity, _)| quantity).sum::<i128>(), 3_824_907_861);
    let (code, report) = verify(data_dir.path());
    assert_eq!(code, 0, "{report}");
}
