//! What every totals book must do, whatever keeps it. Each body gets a storage of its
//! own and may open it as often as it likes.

use odometer_schemas::commit::{DefinitionsAt, ExceptionsRow, PartitionCommit, PartitionState, SourceMark, TotalRow};
use odometer_schemas::definitions::Definitions;
use odometer_schemas::meter::Aggregation;
use odometer_schemas::quota::{AlertRow, QuotaRow, QuotaRowKind, Scope};
use odometer_schemas::time::{Interval, TimeMs};
use odometer_schemas::verdict::{Verdict, VerdictCounts, pack};

use super::{
    AlertFilter, AlertsOf, Claim, CommitError, Installation, OwnedCommit, PartitionCursor, PeriodFilter, Told,
    TotalsBook, TotalsFilter,
};
use crate::error::BookError;

/// One empty storage. Opening it again finds what was left there.
pub trait Storage {
    /// Another handle on the same storage.
    fn open(&mut self) -> Box<dyn TotalsBook>;
}

/// A test body.
pub type Body = fn(&mut dyn Storage);

/// All bodies by name. Run each on a fresh storage.
pub const BODIES: [(&str, Body); 15] = [
    ("an installation is recorded once", installation_is_recorded_once),
    ("a claim raises the epoch and gives everything back", claim_gives_everything_back),
    ("a claim outside of the installation is refused", claim_outside_is_refused),
    ("a claim needs the epoch that the book is at", claim_needs_the_epoch),
    ("totals, marks and rules are replaced", values_are_absolute),
    ("what tenants were given is found by tenant", given_is_found),
    ("a commit sent twice is applied once", a_repeated_commit_is_applied_once),
    ("an older owner is fenced", an_older_owner_is_fenced),
    ("a commit from another offset is fenced", another_offset_is_fenced),
    ("several commits are applied together or not at all", all_or_nothing),
    ("a contradictory commit never reaches the book", contradictions_are_refused),
    ("the largest values survive", extremes_survive),
    ("totals are filtered", totals_are_filtered),
    ("exceptions and definitions are found by offset", found_by_offset),
    ("alerts are added once and told in order", alerts_are_told),
];

/// Runs every body on a storage that `fresh` makes.
pub fn run<S: Storage>(mut fresh: impl FnMut() -> S) {
    for (name, body) in BODIES {
        println!("totals book: {name}");
        body(&mut fresh());
    }
}

/// The installation of all bodies.
#[must_use]
pub fn installation() -> Installation {
    Installation { log_id: "log-1".to_owned(), partitions: 4, hash_seed: u64::MAX - 1 }
}

/// A total with small numbers.
#[must_use]
pub fn total(tenant: &str, meter: &str, quantity: i128) -> TotalRow {
    TotalRow {
        tenant: tenant.into(),
        meter: meter.into(),
        period_start_ms: 1000,
        period_end_ms: 2000,
        aggregation: Aggregation::Sum,
        quantity,
        sum: quantity,
        records: 1,
        digest: 7,
        state: Vec::new(),
    }
}

/// A commit of one accepted record per offset since the log's beginning.
#[must_use]
pub fn commit(partition: u32, from_offset: u64, next_offset: u64) -> PartitionCommit {
    PartitionCommit {
        partition,
        from_offset,
        next_offset,
        log_time_ms: i64::try_from(next_offset).expect("a small offset"),
        counts: VerdictCounts { received: next_offset, accepted: next_offset, ..VerdictCounts::default() },
        ..PartitionCommit::default()
    }
}

fn quota(kind: QuotaRowKind, tenant: &str, name: &str, state: &[u8]) -> QuotaRow {
    QuotaRow { kind, tenant: tenant.to_owned(), name: name.to_owned(), state: state.to_owned() }
}

/// A crossing of half of a limit.
#[must_use]
pub fn alert(offset: u64, number: u64, tenant: &str) -> AlertRow {
    AlertRow {
        sequence: AlertRow::sequence(offset, number),
        at_ms: 5,
        tenant: tenant.to_owned(),
        meter: "m".to_owned(),
        scope: Scope::Subject,
        name: format!("user-{offset}-{number}"),
        period_start_ms: -1,
        period_end_ms: i64::MAX,
        percent: 50,
        policy: "free/m/subject".to_owned(),
        limit: i64::MAX,
        used: i64::MIN,
    }
}

fn ready(storage: &mut dyn Storage) -> Box<dyn TotalsBook> {
    let mut book = storage.open();
    book.identity(&installation()).expect("an empty book takes an installation");
    book
}

fn claim(book: &mut dyn TotalsBook, partition: u32) -> PartitionState {
    claim_as(book, partition, "")
}

fn claim_as(book: &mut dyn TotalsBook, partition: u32, owner: &str) -> PartitionState {
    let cursors = book.cursors().expect("cursors can be read");
    let found = cursors.iter().find(|cursor| cursor.partition == partition);
    let from_epoch = found.map_or(0, |cursor| cursor.epoch);
    let claim = Claim { partition, from_epoch, owner: owner.to_owned() };
    book.claim(&claim).expect("a partition can be claimed from its epoch")
}

fn apply(book: &mut dyn TotalsBook, epoch: u64, commit: &PartitionCommit) -> Result<(), CommitError> {
    book.commit(&[OwnedCommit { epoch, commit: commit.clone() }])
}

fn all_totals(book: &mut dyn TotalsBook) -> Vec<TotalRow> {
    book.totals(&TotalsFilter::default()).expect("totals can be read")
}

fn installation_is_recorded_once(storage: &mut dyn Storage) {
    let mut book = storage.open();
    assert!(matches!(book.snapshot(&TotalsFilter::default()), Err(BookError::NoInstallation)));
    assert!(matches!(book.claim(&Claim::default()), Err(BookError::NoInstallation)));
    book.identity(&installation()).expect("an empty book takes an installation");
    drop(book);
    let mut book = storage.open();
    book.identity(&installation()).expect("the same installation is known");
    let others = [
        Installation { log_id: "log-2".to_owned(), ..installation() },
        Installation { partitions: 5, ..installation() },
        Installation { hash_seed: 9, ..installation() },
    ];
    for (other, values) in others.into_iter().zip([["log-1", "log-2"], ["4", "5"], ["18446744073709551614", "9"]]) {
        let error = book.identity(&other).expect_err("another installation is refused").to_string();
        assert!(values.iter().all(|value| error.contains(value)), "{error}");
    }
    assert_eq!(book.snapshot(&TotalsFilter::default()).expect("a snapshot").installation, installation());
}

fn claim_gives_everything_back(storage: &mut dyn Storage) {
    let mut book = ready(storage);
    let fresh = claim(&mut *book, 2);
    assert_eq!(fresh, PartitionState { epoch: 1, ..PartitionState::default() });
    let mark = |source, above: &[u64]| SourceMark { source, epoch: u32::MAX, low_water: u64::MAX, above: above.into() };
    let mut counts = VerdictCounts::default();
    [Verdict::Accepted, Verdict::Duplicate, Verdict::Conflict, Verdict::Late, Verdict::Late]
        .into_iter()
        .for_each(|verdict| counts.count(verdict));
    let sent = PartitionCommit {
        counts,
        log_time_ms: 77,
        totals: vec![total("a", "m", 1), total("b", "m", 2)],
        marks: vec![mark(0, &[]), mark(u128::MAX, &[1, u64::MAX])],
        rules: Some(vec![1, 2, 3]),
        quota: vec![
            quota(QuotaRowKind::Plan, "", "free", &[1]),
            quota(QuotaRowKind::Reservations, "a", "b\u{1}c", &[0]),
        ],
        alerts: vec![alert(0, 0, "a"), alert(9, 1, "b")],
        ..commit(2, 0, 10)
    };
    apply(&mut *book, 1, &sent).expect("the owner commits");
    claim(&mut *book, 3);
    apply(&mut *book, 1, &PartitionCommit { totals: vec![total("c", "m", 3)], ..commit(3, 0, 1) }).expect("commits");
    drop(book);
    let mut book = storage.open();
    let state = claim_as(&mut *book, 2, "http://second:8080");
    let expected = PartitionState {
        epoch: 2,
        next_offset: 10,
        log_time_ms: 77,
        counts,
        totals: sent.totals,
        marks: sent.marks,
        rules: sent.rules,
        quota: sent.quota,
        alerts: sent.alerts,
    };
    assert_eq!(state, expected);
    let cursors = book.cursors().expect("cursors can be read");
    assert_eq!(cursors.iter().map(|c| (c.partition, c.next_offset)).collect::<Vec<_>>(), [(2, 10), (3, 1)]);
    assert_eq!((cursors[0].counts, cursors[0].log_time_ms), (counts, 77));
    assert_eq!((cursors[0].epoch, cursors[0].owner.as_str()), (2, "http://second:8080"));
    assert_eq!((cursors[1].epoch, cursors[1].owner.as_str()), (1, ""));
}

fn claim_outside_is_refused(storage: &mut dyn Storage) {
    let mut book = ready(storage);
    for (partition, from_epoch) in [(4, 0), (u32::MAX, 0), (0, i64::MAX.unsigned_abs()), (0, u64::MAX)] {
        let answer = book.claim(&Claim { partition, from_epoch, ..Claim::default() });
        assert!(matches!(answer, Err(BookError::OutOfRange { .. })), "{partition}, {from_epoch}: {answer:?}");
    }
    assert_eq!(book.cursors().expect("cursors can be read"), []);
}

fn claim_needs_the_epoch(storage: &mut dyn Storage) {
    let mut first = ready(storage);
    let mut second = storage.open();
    let moved = |answer: Result<PartitionState, BookError>, wanted_epoch, found_epoch| {
        let error = answer.expect_err("a claim from another epoch is refused");
        assert!(
            matches!(error, BookError::EpochMoved { partition: 1, wanted, found }
                if (wanted, found) == (wanted_epoch, found_epoch)),
            "{error}"
        );
        assert!(!error.is_retryable());
    };
    let from = |from_epoch| Claim { partition: 1, from_epoch, owner: format!("http://after-{from_epoch}") };
    moved(first.claim(&from(1)), 1, 0);
    assert_eq!(first.cursors().expect("cursors can be read"), []);
    assert_eq!(first.claim(&from(0)).expect("nobody claimed it before").epoch, 1);
    moved(second.claim(&from(0)), 0, 1);
    assert_eq!(second.claim(&from(1)).expect("the epoch was read").epoch, 2);
    moved(first.claim(&from(1)), 1, 2);
    let cursor = PartitionCursor { partition: 1, epoch: 2, owner: "http://after-1".to_owned(), ..Default::default() };
    assert_eq!(first.cursors().expect("cursors can be read"), [cursor]);
    assert!(matches!(apply(&mut *first, 1, &commit(1, 0, 5)), Err(CommitError::Fenced { found_epoch: 2, .. })));
}

fn values_are_absolute(storage: &mut dyn Storage) {
    let mut book = ready(storage);
    claim(&mut *book, 0);
    let mark = |low_water| SourceMark { source: 5, epoch: 1, low_water, above: vec![low_water] };
    let first = PartitionCommit {
        totals: vec![total("a", "m", 10), total("b", "m", 10)],
        marks: vec![mark(1)],
        rules: Some(vec![1]),
        quota: vec![quota(QuotaRowKind::Terms, "a", "", &[1]), quota(QuotaRowKind::Terms, "b", "", &[1])],
        ..commit(0, 0, 1)
    };
    let second = PartitionCommit {
        totals: vec![TotalRow { records: 2, digest: 8, state: vec![9], ..total("a", "m", 4) }],
        marks: vec![mark(2)],
        quota: vec![quota(QuotaRowKind::Terms, "a", "", &[]), quota(QuotaRowKind::Terms, "b", "", &[2])],
        ..commit(0, 1, 2)
    };
    apply(&mut *book, 1, &first).expect("the owner commits");
    apply(&mut *book, 1, &second).expect("the owner commits");
    let state = claim(&mut *book, 0);
    assert_eq!(state.totals, [second.totals[0].clone(), first.totals[1].clone()]);
    assert_eq!(state.marks, second.marks);
    assert_eq!(state.quota, second.quota[1..], "an empty state is no row any more");
    assert_eq!(state.rules, first.rules, "rules that did not change stay");
    assert_eq!(state.counts, second.counts);
}

fn given_is_found(storage: &mut dyn Storage) {
    let mut book = ready(storage);
    let terms = |tenant| quota(QuotaRowKind::Terms, tenant, "", &[2]);
    let plan = quota(QuotaRowKind::Plan, "", "free", &[1]);
    let others = [quota(QuotaRowKind::Epoch, "", "", &[1]), quota(QuotaRowKind::Reservations, "a", "r", &[3])];
    for partition in [0, 1] {
        claim(&mut *book, partition);
        let rows = [plan.clone(), terms("a"), terms("b")].into_iter().chain(others.clone());
        let sent = PartitionCommit { quota: rows.collect(), ..commit(partition, 0, 1) };
        apply(&mut *book, 1, &sent).expect("the owner commits");
    }
    let mut found = |wanted: &[(u32, &str)]| {
        let wanted: Vec<_> = wanted.iter().map(|(partition, tenant)| (*partition, (*tenant).to_owned())).collect();
        let mut rows = book.given(&wanted).expect("it can be read");
        rows.sort_unstable();
        rows
    };
    assert_eq!(found(&[(1, ""), (1, "a"), (1, "c"), (3, "b")]), [plan.clone(), terms("a")]);
    assert_eq!(found(&[(0, "b"), (1, "a")]), [terms("a"), terms("b")]);
    assert_eq!(found(&[]), []);
}

fn a_repeated_commit_is_applied_once(storage: &mut dyn Storage) {
    let mut book = ready(storage);
    claim(&mut *book, 0);
    claim(&mut *book, 1);
    let owned = |commit| OwnedCommit { epoch: 1, commit };
    let first = [
        owned(PartitionCommit { totals: vec![total("a", "m", 1)], ..commit(0, 0, 5) }),
        owned(PartitionCommit { totals: vec![total("b", "m", 1)], ..commit(1, 0, 6) }),
    ];
    book.commit(&first).expect("the owner commits");
    drop(book);
    let mut book = storage.open();
    book.commit(&first).expect("a repeated commit is known");
    assert_eq!(all_totals(&mut *book).len(), 2);
    apply(&mut *book, 1, &commit(0, 5, 9)).expect("the owner goes on");
    let repeated = book.commit(&first);
    assert!(matches!(repeated, Err(CommitError::Fenced { partition: 0, found_offset: 9, .. })), "{repeated:?}");
}

fn an_older_owner_is_fenced(storage: &mut dyn Storage) {
    let mut old = ready(storage);
    claim(&mut *old, 0);
    apply(&mut *old, 1, &commit(0, 0, 5)).expect("the owner commits");
    let mut new = storage.open();
    let state = claim(&mut *new, 0);
    assert_eq!((state.epoch, state.next_offset), (2, 5));
    let late = PartitionCommit { totals: vec![total("a", "m", 1)], ..commit(0, 5, 6) };
    for commit in [&late, &commit(0, 0, 5)] {
        let error = apply(&mut *old, 1, commit).expect_err("an older owner is fenced");
        assert!(matches!(error, CommitError::Fenced { epoch: 1, found_epoch: 2, found_offset: 5, .. }), "{error}");
        assert!(!error.is_retryable());
    }
    assert_eq!(all_totals(&mut *new), []);
    apply(&mut *new, 2, &late).expect("the new owner commits");
}

fn another_offset_is_fenced(storage: &mut dyn Storage) {
    let mut book = ready(storage);
    let never_claimed = apply(&mut *book, 1, &commit(0, 0, 1));
    assert!(matches!(never_claimed, Err(CommitError::Fenced { found_epoch: 0, .. })), "{never_claimed:?}");
    claim(&mut *book, 0);
    apply(&mut *book, 1, &commit(0, 0, 5)).expect("the owner commits");
    for (from, next) in [(0, 4), (4, 6), (6, 7)] {
        let answer = apply(&mut *book, 1, &commit(0, from, next));
        assert!(matches!(answer, Err(CommitError::Fenced { found_offset: 5, .. })), "{from}..{next}: {answer:?}");
    }
}

fn all_or_nothing(storage: &mut dyn Storage) {
    let mut book = ready(storage);
    claim(&mut *book, 0);
    claim(&mut *book, 1);
    let full = |partition, tenant| PartitionCommit {
        totals: vec![total(tenant, "m", 1)],
        marks: vec![SourceMark { source: 1, epoch: 1, low_water: 1, above: vec![] }],
        exceptions: vec![ExceptionsRow { offset: 0, verdicts: pack(&[Verdict::Late]) }],
        definitions: vec![DefinitionsAt { offset: 0, definitions: Definitions::built_in() }],
        rules: Some(vec![1]),
        ..commit(partition, 0, 1)
    };
    let pair = [OwnedCommit { epoch: 1, commit: full(0, "a") }, OwnedCommit { epoch: 9, commit: full(1, "b") }];
    let answer = book.commit(&pair);
    assert!(matches!(answer, Err(CommitError::Fenced { partition: 1, .. })), "{answer:?}");
    assert_eq!(claim(&mut *book, 0), PartitionState { epoch: 2, ..PartitionState::default() });
    assert_eq!(book.exceptions(0, 0..10).expect("exceptions can be read"), []);
    assert_eq!(book.definitions_at(0, 10).expect("definitions can be read"), None);
    // A total has one partition: two would overwrite each other's absolute values.
    apply(&mut *book, 2, &full(0, "a")).expect("the owner commits");
    let answer = apply(&mut *book, 1, &full(1, "a"));
    assert!(matches!(answer, Err(CommitError::Invalid { partition: 1, .. })), "{answer:?}");
    assert_eq!(claim(&mut *book, 1), PartitionState { epoch: 2, ..PartitionState::default() });
}

fn contradictions_are_refused(storage: &mut dyn Storage) {
    let mut book = ready(storage);
    claim(&mut *book, 0);
    let mut lost = commit(0, 0, 5);
    lost.counts.accepted -= 1;
    let exception = ExceptionsRow { offset: 5, verdicts: pack(&[Verdict::Late]) };
    let definitions = DefinitionsAt { offset: 9, definitions: Definitions::built_in() };
    let wrong = [
        (lost, "lost or invented"),
        (commit(0, 5, 4), "ends before"),
        (PartitionCommit { exceptions: vec![exception], ..commit(0, 0, 5) }, "offset 5"),
        (PartitionCommit { definitions: vec![definitions], ..commit(0, 0, 5) }, "offset 9"),
        (PartitionCommit { totals: vec![total("a", "m", 1), total("a", "m", 2)], ..commit(0, 0, 5) }, "one key"),
    ];
    for (commit, problem) in wrong {
        let error = apply(&mut *book, 1, &commit).expect_err("a contradiction is refused");
        assert!(matches!(error, CommitError::Invalid { .. }) && error.to_string().contains(problem), "{error}");
        assert!(!error.is_retryable());
    }
    let twice = [(0, 5), (5, 9)].map(|(from, next)| OwnedCommit { epoch: 1, commit: commit(0, from, next) });
    assert!(matches!(book.commit(&twice), Err(CommitError::Invalid { partition: 0, next_offset: 9, .. })));
    book.commit(&[]).expect("nothing is nothing to refuse");
    assert_eq!(claim(&mut *book, 0).next_offset, 0);
}

fn extremes_survive(storage: &mut dyn Storage) {
    let mut book = ready(storage);
    claim(&mut *book, 0);
    let extreme = |tenant: &str, value, records: i64| TotalRow {
        period_start_ms: i64::MIN + 1,
        period_end_ms: i64::MAX,
        sum: value,
        records: records.unsigned_abs(),
        digest: u128::MAX,
        state: vec![255; 20_000],
        aggregation: Aggregation::UniqueCount,
        ..total(tenant, "m", value)
    };
    let tenant = "ü'\"\u{10ffff};--";
    let totals = vec![extreme("a", i128::MAX, i64::MAX), extreme(tenant, i128::MIN, 0)];
    apply(&mut *book, 1, &PartitionCommit { totals: totals.clone(), ..commit(0, 0, 1) }).expect("the owner commits");
    drop(book);
    let mut book = storage.open();
    assert_eq!(all_totals(&mut *book), totals);
    let filter = TotalsFilter { tenant: Some(tenant.to_owned()), ..TotalsFilter::default() };
    assert_eq!(book.totals(&filter).expect("totals can be read"), totals[1..]);
}

fn totals_are_filtered(storage: &mut dyn Storage) {
    let mut book = ready(storage);
    claim(&mut *book, 0);
    let period =
        |tenant, meter, start, end| TotalRow { period_start_ms: start, period_end_ms: end, ..total(tenant, meter, 1) };
    let totals = vec![
        period("a", "m", 0, 10),
        period("a", "m", 10, 20),
        period("a", "n", 5, 15),
        period("ab", "m", 0, 10),
        period("b", "m", 20, 30),
    ];
    apply(&mut *book, 1, &PartitionCommit { totals: totals.clone(), ..commit(0, 0, 1) }).expect("the owner commits");
    let interval = |start, end| Interval { start: TimeMs(start), end: TimeMs(end) };
    let filter = |tenant: Option<&str>, meter: Option<&str>, period| TotalsFilter {
        tenant: tenant.map(Into::into),
        meter: meter.map(Into::into),
        period,
    };
    let cases = [
        (filter(None, None, None), vec![0, 1, 2, 3, 4]),
        (filter(Some("a"), None, None), vec![0, 1, 2]),
        (filter(Some("a"), Some("n"), None), vec![2]),
        (filter(None, Some("m"), None), vec![0, 1, 3, 4]),
        (filter(Some("c"), None, None), vec![]),
        (filter(None, None, Some(PeriodFilter::StartsIn(interval(5, 20)))), vec![1, 2]),
        (filter(None, None, Some(PeriodFilter::Overlaps(interval(14, 20)))), vec![1, 2]),
        (filter(None, None, Some(PeriodFilter::Overlaps(interval(15, 21)))), vec![1, 4]),
        (filter(None, None, Some(PeriodFilter::Overlaps(interval(10, 11)))), vec![1, 2]),
    ];
    for (filter, expected) in cases {
        let expected: Vec<TotalRow> = expected.into_iter().map(|index: usize| totals[index].clone()).collect();
        assert_eq!(book.totals(&filter).expect("totals can be read"), expected, "{filter:?}");
        let snapshot = book.snapshot(&filter).expect("a snapshot");
        assert_eq!((snapshot.totals, snapshot.cursors.len()), (expected, 1), "{filter:?}");
    }
}

fn found_by_offset(storage: &mut dyn Storage) {
    let mut book = ready(storage);
    claim(&mut *book, 0);
    let row = |offset, verdict| ExceptionsRow { offset, verdicts: pack(&[verdict, Verdict::Accepted]) };
    let exceptions = vec![row(3, Verdict::Late), row(4, Verdict::Conflict), row(9, Verdict::Duplicate)];
    let first = Definitions::built_in();
    let second = Definitions { future_ms_max: 1, ..Definitions::built_in() };
    let at = |offset, definitions: &Definitions| DefinitionsAt { offset, definitions: definitions.clone() };
    let sent = PartitionCommit {
        exceptions: exceptions.clone(),
        definitions: vec![at(2, &first), at(7, &second)],
        ..commit(0, 0, 10)
    };
    apply(&mut *book, 1, &sent).expect("the owner commits");
    let read = |book: &mut dyn TotalsBook, range| book.exceptions(0, range).expect("exceptions can be read");
    assert_eq!(read(&mut *book, 0..u64::MAX), exceptions);
    assert_eq!(read(&mut *book, 4..9), exceptions[1..2]);
    assert_eq!(book.exceptions(1, 0..10).expect("exceptions can be read"), []);
    for (offset, expected) in [(0, None), (2, None), (3, Some(&first)), (7, Some(&first)), (8, Some(&second))] {
        assert_eq!(book.definitions_at(0, offset).expect("definitions can be read").as_ref(), expected, "{offset}");
    }
    assert_eq!(book.definitions_at(1, 9).expect("definitions can be read"), None);
}

fn alerts_are_told(storage: &mut dyn Storage) {
    let mut book = ready(storage);
    claim(&mut *book, 1);
    claim(&mut *book, 3);
    let with = |commit, alerts: &[AlertRow]| PartitionCommit { alerts: alerts.to_vec(), ..commit };
    let first = with(commit(1, 0, 9), &[alert(3, 0, "a"), alert(3, 1, "b"), alert(8, 0, "a")]);
    apply(&mut *book, 1, &first).expect("the owner commits");
    apply(&mut *book, 1, &first).expect("a repeated commit is known");
    apply(&mut *book, 1, &with(commit(3, 0, 9), &[alert(4, 0, "c")])).expect("the owner commits");
    let outside = with(commit(3, 9, 10), &[alert(8, 5, "c")]);
    assert!(matches!(apply(&mut *book, 1, &outside), Err(CommitError::Invalid { .. })));
    let found = |book: &mut dyn TotalsBook, filter: &AlertFilter| {
        let alerts = book.alerts(filter).expect("alerts can be read");
        alerts.into_iter().map(|(partition, alert)| (partition, alert.sequence)).collect::<Vec<_>>()
    };
    let [a, b, later, c] = [(3, 0), (3, 1), (8, 0), (4, 0)].map(|(offset, number)| AlertRow::sequence(offset, number));
    let all = AlertFilter::all;
    assert_eq!(found(&mut *book, &all(AlertsOf::Partition(1))), [(1, a), (1, b), (1, later)]);
    assert_eq!(found(&mut *book, &all(AlertsOf::Partition(3))), [(3, c)]);
    assert_eq!(found(&mut *book, &all(AlertsOf::Tenant("a".to_owned()))), [(1, a), (1, later)]);
    let next = AlertFilter { after: Some(a), most: Some(1), ..all(AlertsOf::Partition(1)) };
    assert_eq!(found(&mut *book, &next), [(1, b)]);

    assert_eq!(book.told("webhook").expect("can be read"), []);
    let told = |partition, sequence| Told { partition, sequence };
    for next in [told(1, b), told(3, c), told(1, a)] {
        book.tell("webhook", next).expect("can be told");
    }
    book.tell("topic", told(1, later)).expect("can be told");
    assert_eq!(book.told("webhook").expect("can be read"), [told(1, b), told(3, c)], "it never goes back");
    assert_eq!(book.told("topic").expect("can be read"), [told(1, later)]);
}
