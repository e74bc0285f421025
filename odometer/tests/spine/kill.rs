//! SIGKILL in the middle of replays: whatever was acknowledged is counted, whatever
//! is sent again is counted once.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{ODOMETER, Process, Trace, azure, real_data, synthetic, totals, verify};

/// Kills in all; each group of them hits one data directory.
const KILLS: u64 = 20;
const KILLS_PER_DIRECTORY: u64 = 4;
/// A kill falls within so many milliseconds of the replay's start: from before its
/// first request to after its last.
const KILL_WITHIN_MS: u64 = 600;

/// Starts a replay and kills the process under it.
fn interrupted(data_dir: &Path, traces: &[Trace], after: Duration) {
    let process = Process::start(data_dir);
    let mut replays: Vec<_> = traces
        .iter()
        .map(|trace| {
            let args = trace.replay_args(&process.url);
            Command::new(ODOMETER).args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    std::thread::sleep(after);
    process.kill();
    for replay in &mut replays {
        replay.kill().unwrap();
        replay.wait().unwrap();
    }
}

fn survive(traces: &[Trace], seed: u64) {
    println!("seed {seed}");
    let mut random = seed;
    for round in 0..KILLS / KILLS_PER_DIRECTORY {
        let data_dir = tempfile::tempdir().unwrap();
        for _ in 0..KILLS_PER_DIRECTORY {
            // A linear congruential step (Knuth's MMIX); any spread will do.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let after = Duration::from_millis((random >> 33) % KILL_WITHIN_MS);
            interrupted(data_dir.path(), traces, after);
        }
        let process = Process::start(data_dir.path());
        traces.iter().for_each(|trace| trace.replay(&process.url));
        process.stop();
        let expected = traces.iter().flat_map(|trace| trace.expected.clone()).collect();
        assert_eq!(totals(data_dir.path()), expected, "round {round}, seed {seed}");
        let (code, report) = verify(data_dir.path());
        assert_eq!(code, 0, "round {round}, seed {seed}: {report}");
    }
}

/// The seed of one run; a failing one is pasted here, or given, to run it again.
fn seed() -> u64 {
    let given = std::env::var("ODOMETER_KILL_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| std::process::id().into())
}

#[test]
fn twenty_kills_lose_and_double_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let traces = match real_data() {
        Some(data) => azure(&data),
        None => vec![synthetic(directory.path(), 20_000)],
    };
    survive(&traces, seed());
}

/// A process that was killed before its raw book caught up cannot be proven, and says
/// so; started again it can.
#[test]
fn a_killed_process_is_unproven_or_proven_but_never_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let trace = synthetic(directory.path(), 3000);
    let data_dir = tempfile::tempdir().unwrap();
    let process = Process::start(data_dir.path());
    trace.replay(&process.url);
    process.kill();
    let output = crate::support::run(&["verify", "--wait", "0", "--data-dir", data_dir.path().to_str().unwrap()]);
    assert!(matches!(output.status.code(), Some(0 | 2)), "{output:?}");
    Process::start(data_dir.path()).stop();
    assert_eq!(verify(data_dir.path()).0, 0);
    assert_eq!(totals(data_dir.path()), trace.expected);
}
