//! Verdicts and totals are a pure function of the log: any log, cut anywhere,
//! restored from any snapshot or from none, gives byte-identical commits.

use crate::support::{MemoryBook, OPTIONS, any_log};
use odometer_aggregator::{LiveState, Processor};
use odometer_schemas::commit::{PartitionCommit, PartitionState};
use odometer_schemas::log::LogEntry;
use proptest::prelude::*;

fn fresh() -> Processor {
    Processor::restore(OPTIONS, &PartitionState::default(), None, LiveState::default()).unwrap()
}

fn bytes(commit: &PartitionCommit) -> Vec<u8> {
    bincode::encode_to_vec(commit, bincode::config::standard()).unwrap()
}

/// Commits after every entry whose number is in `cuts`, and at the end.
fn straight(log: &[LogEntry], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut processor = fresh();
    let mut commits = Vec::new();
    for (number, entry) in log.iter().enumerate() {
        processor.handle(entry).unwrap();
        if cuts.contains(&number) || number + 1 == log.len() {
            commits.extend(processor.poll_commit().iter().map(bytes));
        }
    }
    commits
}

/// The same, but the owner is lost after every commit and a new one takes over, from
/// a snapshot that some earlier owner wrote where `keep` says so.
fn interrupted(log: &[LogEntry], cuts: &[usize], keep: &[bool]) -> Vec<Vec<u8>> {
    let mut book = MemoryBook::default();
    let mut commits = Vec::new();
    let mut snapshot: Option<Vec<u8>> = None;
    let mut processor = fresh();
    for (number, entry) in log.iter().enumerate() {
        processor.handle(entry).unwrap();
        if cuts.contains(&number) || number + 1 == log.len() {
            let commit = processor.poll_commit().unwrap();
            book.apply(&commit);
            commits.push(bytes(&commit));
            if keep.get(commits.len()).copied().unwrap_or(false) {
                snapshot = Some(processor.snapshot());
            }
            // What the lost owner had counted beyond its last commit is counted again.
            for lost in log.iter().skip(number + 1).take(2) {
                processor.handle(lost).unwrap();
            }
            let usable = if keep.get(commits.len() + 1).copied().unwrap_or(true) { snapshot.as_deref() } else { None };
            processor = book.recover(log, usable);
        }
    }
    commits
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn commits_do_not_depend_on_cuts_and_crashes(
        log in any_log(),
        cuts in prop::collection::vec(0_usize..60, 0..8),
        keep in prop::collection::vec(any::<bool>(), 0..12),
    ) {
        prop_assert_eq!(interrupted(&log, &cuts, &keep), straight(&log, &cuts));
    }

    /// However commits are cut, the book ends up the same.
    #[test]
    fn the_book_does_not_depend_on_cuts(log in any_log(), cuts in prop::collection::vec(0_usize..60, 0..8)) {
        let book = |cuts: &[usize]| {
            let mut book = MemoryBook::default();
            let mut processor = fresh();
            for (number, entry) in log.iter().enumerate() {
                processor.handle(entry).unwrap();
                if cuts.contains(&number) || number + 1 == log.len() {
                    processor.poll_commit().iter().for_each(|commit| book.apply(commit));
                }
            }
            (book.totals, book.exceptions, book.quota, book.state)
        };
        prop_assert_eq!(book(&cuts), book(&[]));
    }
}
