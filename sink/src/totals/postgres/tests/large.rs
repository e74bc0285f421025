//! The largest values and the largest commits.

use std::time::Instant;

use odometer_schemas::commit::{ExceptionsRow, SourceMark};
use odometer_schemas::verdict::{Verdict, pack};

use super::*;

#[test]
fn every_128_bit_value_is_a_number_to_sql() {
    let database = PgDatabase::migrated();
    let mut book = claimed(&database);
    let values = [i128::MIN, i128::MIN + 1, -1, 0, 1, i128::from(i64::MAX) + 1, 1 << 96, i128::MAX];
    let row = |(at, value): (usize, i128)| TotalRow { digest: !0 - at as u128, ..total(&format!("t{at}"), "m", value) };
    let totals: Vec<_> = values.into_iter().enumerate().map(row).collect();
    book.commit(&[owned(1, PartitionCommit { totals: totals.clone(), ..commit(0, 0, 1) })]).unwrap();
    assert_eq!(book.totals(&TotalsFilter::default()).unwrap(), totals);
    let ordered = database.text("SELECT string_agg(tenant, ' ' ORDER BY quantity) FROM period_totals");
    assert_eq!(ordered, "t0 t1 t2 t3 t4 t5 t6 t7");
    // The two ends, -1 and what lies beside the low end cancel out.
    let sum = database.text("SELECT sum(quantity)::text FROM period_totals WHERE tenant IN ('t0', 't7', 't4')");
    assert_eq!(sum, "0");
}

#[test]
fn numbers_beyond_what_the_book_holds_are_refused_by_value() {
    let database = PgDatabase::migrated();
    let mut book = claimed(&database);
    let beyond = i64::MAX.unsigned_abs() + 1;
    let wrong = [
        PartitionCommit { next_offset: beyond, ..commit(0, 0, 1) },
        PartitionCommit { totals: vec![TotalRow { records: beyond, ..total("a", "m", 1) }], ..commit(0, 0, 1) },
    ];
    for commit in wrong {
        let error = book.commit(&[owned(1, commit)]).unwrap_err();
        assert!(error.to_string().contains("9223372036854775808 is more than"), "{error}");
        assert!(!error.is_retryable());
    }
    let no_text = PartitionCommit { totals: vec![total("a\0b", "m", 1)], ..commit(0, 0, 1) };
    assert!(!book.commit(&[owned(1, no_text)]).unwrap_err().is_retryable());
    assert_eq!(book.snapshot(&TotalsFilter::default()).unwrap().totals, []);
    assert_eq!(book.cursors().unwrap()[0].next_offset, 0);
}

#[test]
fn a_total_of_another_partition_is_named() {
    let database = PgDatabase::migrated();
    let mut book = written(&database);
    book.claim(&Claim { partition: 3, ..Claim::default() }).unwrap();
    let totals = vec![total("0", "m", 5), total("a", "m", 5), total("b", "m", 5)];
    let error = book.commit(&[owned(1, PartitionCommit { totals, ..commit(3, 0, 1) })]).unwrap_err();
    assert!(matches!(error, CommitError::Invalid { partition: 3, .. }));
    assert!(error.to_string().contains("(a, m, 1000) belongs to another partition: 0"), "{error}");
    assert_eq!(book.totals(&TotalsFilter::default()).unwrap(), [total("a", "m", 1)]);
}

#[test]
fn new_and_known_totals_may_come_in_any_mixture() {
    let database = PgDatabase::migrated();
    let mut book = written(&database);
    book.claim(&Claim { partition: 3, ..Claim::default() }).unwrap();
    let totals = |numbers: &mut dyn Iterator<Item = i128>| -> Vec<TotalRow> {
        numbers.map(|n| total(&format!("A{n:05}"), "m", n)).collect()
    };
    // New ones, known ones, and both in turn, each for longer than a statement is.
    let (known, all) = (totals(&mut (9000..18_000)), totals(&mut (0..36_000).filter(|n| *n < 27_000 || n % 2 == 0)));
    let later = totals(&mut (27_000..36_000).filter(|n| n % 4 == 0));
    book.commit(&[owned(1, PartitionCommit { totals: [known, later].concat(), ..commit(3, 0, 1) })]).unwrap();
    book.commit(&[owned(1, PartitionCommit { totals: all.clone(), ..commit(3, 1, 2) })]).unwrap();
    let found = book.totals(&TotalsFilter::default()).unwrap();
    assert!(found == [all, vec![total("a", "m", 1)]].concat());

    // One that another partition holds, where all others are new.
    let mut foreign = totals(&mut (40_000..60_000));
    foreign.push(total("a", "m", 5));
    let error = book.commit(&[owned(1, PartitionCommit { totals: foreign, ..commit(3, 2, 3) })]).unwrap_err();
    assert!(error.to_string().contains("(a, m, 1000) belongs to another partition: 0"), "{error}");
    assert!(book.totals(&TotalsFilter::default()).unwrap() == found);
}

/// A commit of `totals` totals, and a tenth as many watermarks and exceptions.
fn busy(partition: u32, from_offset: u64, totals: u64) -> OwnedCommit {
    let next_offset = from_offset + totals;
    let row = |n: u64| total(&format!("tenant-{partition}-{n}"), "llm.prompt_tokens", i128::from(n + from_offset));
    let mark = |n: u64| SourceMark { source: n.into(), epoch: 1, low_water: next_offset, above: vec![n + 1, 1] };
    let exception =
        |n: u64| ExceptionsRow { offset: from_offset + n, verdicts: pack(&[Verdict::Late, Verdict::Accepted]) };
    let commit = PartitionCommit {
        totals: (0..totals).map(row).collect(),
        marks: (0..totals / 10).map(mark).collect(),
        exceptions: (0..totals / 10).map(exception).collect(),
        ..commit(partition, from_offset, next_offset)
    };
    owned(1, commit)
}

#[test]
fn a_commit_of_100_000_totals_is_kept_whole() {
    const TOTALS: u64 = 100_000;
    let database = PgDatabase::migrated();
    let mut book = claimed(&database);
    for partition in 1..4 {
        book.claim(&Claim { partition, ..Claim::default() }).unwrap();
    }
    let rate = |started: Instant| (TOTALS as f64 / started.elapsed().as_secs_f64()).round();
    let mut last = Vec::new();
    for round in 0..4 {
        last = (0..4).map(|partition| busy(partition, round * TOTALS / 4, TOTALS / 4)).collect();
        let started = Instant::now();
        book.commit(&last).unwrap();
        println!("commit {round} of {TOTALS} totals: {} totals/s", rate(started));
    }
    let started = Instant::now();
    let mut found = book.totals(&TotalsFilter::default()).unwrap();
    println!("reading {TOTALS} totals: {} totals/s", rate(started));
    let mut expected: Vec<_> = last.iter().flat_map(|owned| owned.commit.totals.clone()).collect();
    expected.sort_by(|a, b| a.tenant.cmp(&b.tenant));
    found.sort_by(|a, b| a.tenant.cmp(&b.tenant));
    assert!(found == expected, "every total reads back as its last value");
    let state = book.claim(&Claim { partition: 2, from_epoch: 1, ..Claim::default() }).unwrap();
    let mut totals = last[2].commit.totals.clone();
    totals.sort_by(|a, b| a.tenant.cmp(&b.tenant));
    assert!(state.totals == totals && state.marks == last[2].commit.marks);
    assert_eq!(book.exceptions(2, 0..u64::MAX).unwrap().len() as u64, TOTALS / 10);
}
