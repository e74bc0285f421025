//! SIGKILL at any moment costs no acknowledged envelope.
//!
//! The test runs itself as a child that appends, durably and unflushed, and prints what was
//! acknowledged, kills it, and looks into the log; several times over the same log.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use odometer_ingest::log::LogReader;
use odometer_ingest::log::embedded::{EmbeddedLog, EmbeddedOptions, EmbeddedReader};
use rand::RngExt;

const PATH_VARIABLE: &str = "ODOMETER_KILL_TEST_LOG";
const START_VARIABLE: &str = "ODOMETER_KILL_TEST_START";
const PARTITIONS: u32 = 3;
const ROUNDS: u64 = 8;
/// Numbers that one child may use; no child lives long enough for them.
const ROUND_NUMBERS: u64 = 1 << 32;
/// Most acknowledgements that a child is left alive for.
const LIFE_ACKS_MAX: usize = 400;

fn envelope(n: u64) -> Vec<u8> {
    let length = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50;
    n.to_le_bytes().into_iter().chain((0..length).map(|i| (n ^ i).to_le_bytes()[0])).collect()
}

fn open(path: &Path) -> EmbeddedLog {
    let options = EmbeddedOptions { partitions: PARTITIONS, ..EmbeddedOptions::default() };
    EmbeddedLog::open(path, options).expect("the log opens")
}

/// Not a test of its own: what the child does until it is killed.
#[test]
fn child() {
    let (Ok(path), Ok(start)) = (std::env::var(PATH_VARIABLE), std::env::var(START_VARIABLE)) else { return };
    let log = open(&PathBuf::from(path));
    let appender = log.appender();
    let start: u64 = start.parse().unwrap();
    for burst in 0_u64.. {
        let pending: Vec<_> = (0..1 + burst % 9)
            .map(|i| start + burst * 9 + i)
            .map(|n| {
                let partition = u32::try_from(n % u64::from(PARTITIONS)).unwrap();
                // Most bursts wait for no flush.
                let pending = match burst % 4 {
                    0 => appender.append(partition, envelope(n)),
                    _ => appender.append_unflushed(partition, envelope(n)),
                };
                (n, pending)
            })
            .collect();
        for (n, pending) in pending {
            let offset = pending.wait_blocking().unwrap().offset;
            // One write for the whole line, so that a kill leaves it whole or out.
            std::io::stdout().write_all(format!("\nstored {n} {offset}\n").as_bytes()).unwrap();
        }
    }
}

/// Runs a child until it has had `acks` acknowledgements and a little longer, and
/// returns all that it had, by number.
fn run_and_kill(path: &Path, start: u64, acks: usize) -> Vec<(u64, u64)> {
    let mut child = Command::new(std::env::current_exe().expect("this test has a path"))
        .args(["--exact", "child", "--nocapture"])
        .env(PATH_VARIABLE, path)
        .env(START_VARIABLE, start.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut stored = Vec::new();
    for line in lines {
        let line = line.expect("lines are text");
        if let Some((n, offset)) = line.strip_prefix("stored ").and_then(|rest| rest.split_once(' ')) {
            stored.push((n.parse().expect("a number"), offset.parse().expect("an offset")));
        }
        if stored.len() == acks {
            std::thread::sleep(Duration::from_micros(rand::rng().random_range(0..4000)));
            child.kill().expect("the child can be killed");
        }
    }
    child.wait().expect("the child ended");
    assert!(stored.len() >= acks, "the child ended on its own after {} acknowledgements", stored.len());
    stored
}

/// Everything in the log, by number; each number once, each envelope whole.
fn numbers(reader: &mut EmbeddedReader) -> BTreeMap<u64, u64> {
    let mut found = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let entries = reader.read(partition, 0, usize::MAX).expect("the log can be read");
        for (entry, offset) in entries.into_iter().zip(0..) {
            assert_eq!(entry.offset, offset, "no offset is missing");
            let n = u64::from_le_bytes(*entry.bytes.first_chunk().expect("eight bytes at least"));
            assert!(entry.bytes == envelope(n), "envelope {n} is whole");
            assert_eq!(n % u64::from(PARTITIONS), u64::from(partition));
            assert_eq!(found.insert(n, entry.offset), None, "envelope {n} is there once");
        }
    }
    found
}

#[test]
fn what_was_acknowledged_survives_sigkill() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let acks = rand::rng().random_range(1..LIFE_ACKS_MAX);
        acknowledged.extend(run_and_kill(&path, round * ROUND_NUMBERS, acks));
        // First as the kill left it, then after the next owner has recovered it.
        let left = numbers(&mut EmbeddedReader::open_read_only(&path).unwrap());
        let recovered = numbers(&mut open(&path).reader().unwrap());
        assert_eq!(left, recovered);
        for (n, offset) in &acknowledged {
            assert_eq!(recovered.get(n), Some(offset), "envelope {n} was acknowledged");
        }
    }
}
