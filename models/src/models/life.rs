//! Lives of reservations, lived at the same time: deciders, the writer that reads them
//! back from the log, and time, in interleavings at random.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst};

use odometer_schemas::definitions::Definitions;
use odometer_schemas::meter::Aggregation;
use odometer_schemas::quota::{
    Commit, Decision, Extend, Item, Limit, Plan, PlanOrigin, QuotaError, QuotaOperation, REMEMBERED_MS, Release, Reserve,
    TenantTerms, Who,
};
use odometer_schemas::time::TimeMs;

use super::book::QuotaBook;
use super::decide::Outcome;
use super::live::LiveQuota;
use super::name::Name;
use super::sync::{Mutex, PoisonError, thread};
use super::super::cells::{Cell, LiveCells};
use super::super::rules::Anchors;

/// 2026-01-15T00:00:00Z.
const NOW: TimeMs = TimeMs(1_768_435_200_000);
const TTL_MS: i64 = 60_000;
/// Every reservation that nobody extended is over.
const OVER: TimeMs = TimeMs(NOW.0 + TTL_MS + 1_000);
/// Everything is over, settling included.
const LONG_OVER: TimeMs = TimeMs(NOW.0 + 10 * TTL_MS);
const TENANT: &str = "acme";
const OTHER_TENANT: &str = "umbrella";
const METER: &str = "api_call";
const OTHER: &str = "llm.prompt_tokens";
const LIMIT: i64 = 10;

type Decided = Result<Outcome<'static>, QuotaError>;

/// The live side that all share, and the log between deciders and writer.
struct Site {
    live: LiveQuota,
    cell: Arc<Cell>,
    log: Mutex<Vec<QuotaOperation<'static>>>,
    /// Deciders that may still write to the log.
    deciding: AtomicUsize,
    highest: AtomicI64,
}

/// The writer's own.
struct Writer {
    book: QuotaBook,
    settled: i64,
    read: usize,
}

fn site(deciders: usize) -> (Arc<Site>, Writer) {
    let cells = LiveCells::default();
    let live = LiveQuota::new(cells.clone());
    live.set_meters(Some(&Definitions::built_in()));
    let mut book = QuotaBook::new(live.clone(), cells.clone());
    let limits = [METER, OTHER].map(|meter| Limit { grace_percent: Some(0), ..Limit::usage(meter, Some(LIMIT)) });
    book.plan(Plan { name: "free".into(), limits: limits.into(), is_default: true }, PlanOrigin::Config);
    let cell = cells.cell(&TENANT.into(), METER, Aggregation::Sum, Anchors::default().period_of(NOW));
    let (deciding, highest) = (AtomicUsize::new(deciders), AtomicI64::new(0));
    let site = Site { live, cell, log: Mutex::new(Vec::new()), deciding, highest };
    (Arc::new(site), Writer { book, settled: 0, read: 0 })
}

impl Site {
    /// Writes what was decided to the log; the decision.
    fn told(&self, decided: &Decided) -> Option<Decision> {
        self.look();
        let outcome = decided.as_ref().ok()?;
        let operation = outcome.operation.clone();
        self.log.lock().unwrap_or_else(PoisonError::into_inner).extend(operation);
        Some(outcome.decision)
    }

    /// Takes note of what the word holds.
    fn look(&self) {
        self.highest.fetch_max(self.cell.word().held(), SeqCst);
    }

    fn done(&self) {
        self.deciding.fetch_sub(1, SeqCst);
    }

    fn reserve(&self, id: &str, items: &[(&str, u64)]) -> Decided {
        let who = Who { tenant: TENANT.into(), ..Who::default() };
        let request = Reserve { id: id.into(), who, ttl_ms: TTL_MS, items: named(items), ..Reserve::default() };
        self.live.reserve(&request, 1, NOW).map(Outcome::into_owned)
    }

    fn extend(&self, id: &str, add: &[(&str, u64)], op: u64) -> Decided {
        let (tenant, ttl_ms) = (TENANT.to_owned(), 2 * TTL_MS);
        let request = Extend { tenant, id: id.into(), ttl_ms, add: named(add), ..Extend::default() };
        self.live.extend(&request, op << 32, NOW).map(Outcome::into_owned)
    }

    fn commit(&self, id: &str, amount: u64, op: u64) -> Decided {
        let (tenant, items) = (TENANT.to_owned(), named(&[(METER, amount)]));
        let request = Commit { tenant, id: id.into(), items, is_final: true, ..Commit::default() };
        self.live.commit(&request, op << 32, NOW).map(Outcome::into_owned)
    }

    fn release(&self, id: &str, op: u64) -> Decided {
        let request = Release { tenant: TENANT.into(), id: id.into(), ..Release::default() };
        self.live.release(&request, op << 32, NOW).map(Outcome::into_owned)
    }

    /// What the live side's reservations hold on the cell, by their ledgers.
    fn held(&self, ids: &[&str]) -> i64 {
        let of = |id: &&str| {
            let Some(hold) = self.live.shared.holds.find(&Name::of(TENANT, id)) else { return 0 };
            let state = self.live.shared.open(&hold);
            let lines = state.ledger.lines.iter().filter(|line| line.meter == *METER);
            if state.is_over { 0 } else { lines.map(|line| state.ledger.held(line)).sum() }
        };
        ids.iter().map(of).sum()
    }
}

fn named(items: &[(&str, u64)]) -> Vec<Item> {
    items.iter().map(|(meter, amount)| Item { meter: (*meter).to_owned(), amount: *amount }).collect()
}

impl Writer {
    /// Reads what is new in the log; `each` sees every operation when it has been read.
    fn read(&mut self, site: &Site, mut each: impl FnMut(&mut Self, &QuotaOperation<'_>)) {
        let new = site.log.lock().unwrap_or_else(PoisonError::into_inner)[self.read..].to_vec();
        for operation in new {
            self.read += 1;
            self.book.operate(1, std::slice::from_ref(&operation));
            each(self, &operation);
        }
    }

    /// Reads until nobody decides any more.
    fn follow(&mut self, site: &Site, mut each: impl FnMut(&mut Self, &QuotaOperation<'_>)) {
        loop {
            let was_deciding = site.deciding.load(SeqCst) > 0;
            self.read(site, &mut each);
            if !was_deciding {
                return;
            }
            thread::yield_now();
        }
    }

    /// An accepted record that carries a reservation.
    fn draw(&mut self, site: &Site, id: &str, quantity: i64) {
        let change = self.book.draw((TENANT, id), METER, quantity, &site.cell);
        self.settled += quantity;
        site.cell.publish(i128::from(self.settled), change);
        site.look();
        let held = site.cell.word().held();
        assert!(held >= self.settled, "{held} held, {} settled", self.settled);
    }

    /// In the end the word is what is settled and held, the log's side holds the same,
    /// and nothing once all is over.
    fn ends(&mut self, site: &Site, ids: &[&str]) {
        assert_eq!(site.cell.word().held(), self.settled + site.held(ids), "settled {} and held", self.settled);
        let cells = LiveCells::default();
        let again = LiveQuota::new(cells.clone());
        again.set_meters(Some(&Definitions::built_in()));
        QuotaBook::new(again.clone(), cells.clone()).restore(&self.book.take_dirty(|| {})).expect("what was stored can be read");
        let cell = cells.cell(&TENANT.into(), METER, Aggregation::Sum, Anchors::default().period_of(NOW));
        for live in [&site.live, &again] {
            while live.expire(OVER, 10) {}
        }
        assert_eq!(cell.word().held(), site.cell.word().held() - self.settled, "as a new owner sees it");
        for live in [&site.live, &again] {
            while live.expire(LONG_OVER, 10) {}
        }
        assert_eq!((cell.word().held(), site.cell.word().held()), (0, self.settled), "after all is over");
    }
}

fn spawn<T: Send + 'static>(site: &Arc<Site>, run: impl FnOnce(&Site) -> T + Send + 'static) -> thread::JoinHandle<T> {
    let site = Arc::clone(site);
    thread::spawn(move || run(&site))
}

fn join<T>(thread: thread::JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|_| panic!("a task of the model ended in a panic"))
}

/// Two whole lives beside each other, drawn upon and running out meanwhile.
pub fn lives_beside_each_other() {
    let (site, mut writer) = site(2);
    let first = spawn(&site, |site| {
        site.told(&site.reserve("a", &[(METER, 4), (OTHER, 1)]));
        site.told(&site.extend("a", &[(METER, 2)], 1));
        let committed = site.commit("a", 5, 2);
        site.told(&committed);
        site.done();
        committed.is_ok_and(|outcome| outcome.late)
    });
    let second = spawn(&site, |site| {
        site.told(&site.reserve("b", &[(METER, 5)]));
        site.told(&site.release("b", 1));
        site.told(&site.reserve("c", &[(OTHER, 10), (METER, 6)]));
        site.done();
    });
    let time = spawn(&site, |site| while site.live.expire(OVER, 1) {});
    writer.follow(&site, |writer, operation| {
        if operation.id == "a" {
            writer.draw(&site, "a", 1);
        }
    });
    let is_late = join(first);
    join(second);
    join(time);
    let highest = site.highest.load(SeqCst);
    assert!(is_late || highest <= LIMIT, "{highest} beyond {LIMIT}");
    writer.ends(&site, &["a", "b", "c"]);
}

/// The same request twice at once, one of them already in the log.
pub fn one_request_twice() {
    let (site, mut writer) = site(2);
    let ask = |site: &Site| {
        let told = site.told(&site.reserve("a", &[(METER, 6)]));
        site.done();
        told
    };
    let others = [spawn(&site, ask), spawn(&site, ask)];
    writer.follow(&site, |_, _| ());
    assert_eq!(others.map(join), [Some(Decision::Allow); 2]);
    assert_eq!(site.cell.word().held(), 6);
    writer.ends(&site, &["a"]);
}

/// A request is repeated here while the writer reads that its first owner said yes.
pub fn repeated_while_read() {
    let (elsewhere, _writer) = site(0);
    elsewhere.told(&elsewhere.reserve("a", &[(METER, 5)]));
    let (site, mut writer) = site(1);
    site.log.lock().unwrap_or_else(PoisonError::into_inner)
        .append(&mut elsewhere.log.lock().unwrap_or_else(PoisonError::into_inner));
    let again = spawn(&site, |site| {
        let told = site.told(&site.reserve("a", &[(METER, 5)]));
        site.done();
        told
    });
    writer.follow(&site, |_, _| ());
    assert_eq!(join(again), Some(Decision::Allow));
    assert_eq!(site.cell.word().held(), 5, "held once");
    assert!(site.live.is_booked(TENANT, "a"));
    writer.ends(&site, &["a"]);
}

/// What records draw becomes settled in the same step: there is never room between.
pub fn drawing_opens_no_room() {
    let (site, mut writer) = site(0);
    site.told(&site.reserve("a", &[(METER, 8)]));
    writer.read(&site, |_, _| ());
    let asking = spawn(&site, |site| {
        ["b", "c", "d"].map(|id| site.told(&site.reserve(id, &[(METER, 3)])) == Some(Decision::Deny))
    });
    let extending = spawn(&site, |site| [1, 2].map(|op| site.told(&site.extend("a", &[], op))));
    for _ in 0..3 {
        writer.draw(&site, "a", 2);
    }
    assert_eq!(join(asking), [true; 3], "no room for 3 at any moment");
    assert_eq!(join(extending), [Some(Decision::Allow); 2]);
    writer.read(&site, |_, _| ());
    writer.ends(&site, &["a", "b", "c", "d"]);
}

/// An extension and the end of what it extends: either it is extended and held, or it
/// has ended and nothing is.
pub fn extended_when_it_ends() {
    let (site, mut writer) = site(1);
    site.told(&site.reserve("a", &[(METER, 4)]));
    let time = spawn(&site, |site| site.live.expire(OVER, 2));
    let extending = spawn(&site, |site| {
        let told = site.extend("a", &[(METER, 3)], 1);
        site.told(&told);
        site.done();
        told
    });
    writer.follow(&site, |_, _| ());
    join(time);
    match join(extending) {
        Ok(outcome) => assert_eq!((outcome.decision, site.cell.word().held()), (Decision::Allow, 7), "extended"),
        Err(_) => assert_eq!(site.cell.word().held(), 0, "it has ended"),
    }
    writer.ends(&site, &["a"]);
}

/// A commit and a release: a commit that was taken was taken before the end.
pub fn committed_and_released() {
    let (site, mut writer) = site(2);
    site.told(&site.reserve("a", &[(METER, 4)]));
    let releasing = spawn(&site, |site| {
        site.told(&site.release("a", 1));
        site.done();
    });
    let told = site.commit("a", 6, 2);
    site.told(&told);
    site.done();
    if let Ok(outcome) = &told {
        assert!(outcome.expires_at.is_some(), "taken, and it settles");
    }
    join(releasing);
    writer.read(&site, |_, _| ());
    assert_eq!(site.cell.word().held(), 0, "released");
    writer.ends(&site, &["a"]);
}

/// A commit that comes when its reservation is laid down to sleep: it is taken once,
/// whoever comes first.
pub fn committed_when_laid_down() {
    let (site, mut writer) = site(1);
    site.told(&site.reserve("a", &[(METER, 4)]));
    writer.read(&site, |_, _| ());
    let time = spawn(&site, |site| while site.live.expire(OVER, 1) {});
    let committing = spawn(&site, |site| {
        let told = site.commit("a", 6, 1);
        site.told(&told);
        site.done();
        told
    });
    writer.follow(&site, |_, _| ());
    join(time);
    assert!(join(committing).is_ok(), "late or not");
    assert_eq!(site.cell.word().held(), 6, "taken once");
    while site.live.expire(OVER, 1) {}
    writer.draw(&site, "a", 6);
    assert_eq!(site.cell.word().held(), 6, "drawn");
    writer.ends(&site, &["a"]);
}

/// A reservation that the log was given up on, just when the log has it after all: what
/// the log knows is known here.
pub fn forgotten_when_read() {
    let (site, mut writer) = site(0);
    site.told(&site.reserve("a", &[(METER, 4)]));
    site.live.expire(OVER, 2);
    let time = spawn(&site, |site| site.live.expire(LONG_OVER, 2));
    writer.read(&site, |_, _| ());
    join(time);
    assert!(site.live.is_booked(TENANT, "a"), "the log has it");
    let told = site.commit("a", 3, 1);
    assert!(told.is_ok(), "{told:?}");
    site.told(&told);
    writer.read(&site, |_, _| ());
    writer.draw(&site, "a", 3);
    writer.ends(&site, &["a"]);
}

/// A reservation that is committed just when it is forgotten, a day after its end: nothing
/// stays held.
pub fn committed_when_forgotten() {
    let (site, mut writer) = site(0);
    site.told(&site.reserve("a", &[(METER, 4)]));
    writer.read(&site, |_, _| ());
    while site.live.expire(OVER, 2) {}
    let committing = spawn(&site, |site| site.commit("a", 3, 1));
    writer.book.advance(OVER.0 + 2 * REMEMBERED_MS);
    site.told(&join(committing));
    writer.read(&site, |_, _| ());
    assert_eq!(site.live.reservations(), 0);
    assert_eq!(site.cell.word().held(), 0, "nobody frees it any more");
}

/// A limit that is reached, and what others are told of it while it changes.
fn asked_meanwhile(change: impl Fn(&mut Writer, Limit, &dyn Fn() -> Option<Decision>)) {
    let (site, mut writer) = site(0);
    let says = |site: &Site| site.live.may_use(TENANT, METER, 1, NOW);
    site.told(&site.reserve("a", &[(METER, 4)]));
    let asking = [0; 2].map(|_| spawn(&site, says));
    let reached = Limit { grace_percent: Some(0), ..Limit::usage(METER, Some(4)) };
    change(&mut writer, reached, &|| says(&site));
    for asking in asking {
        assert!(join(asking).is_some());
    }
    assert_eq!(says(&site), Some(Decision::Deny), "whatever they left");
}

/// Terms that change while others ask: once the change was taken, nobody is answered by
/// what was before.
pub fn terms_while_asked() {
    asked_meanwhile(|writer, reached, says| {
        for (overrides, answer) in [(vec![reached.clone()], Decision::Deny), (vec![], Decision::Allow)] {
            writer.book.terms(TENANT, TenantTerms { overrides, ..TenantTerms::default() });
            assert_eq!(says(), Some(answer), "by the terms");
        }
        writer.book.terms(TENANT, TenantTerms { overrides: vec![reached], ..TenantTerms::default() });
    });
}

/// The same with a plan that changes twice: in between, all that is asked takes the long
/// way.
pub fn plan_while_asked() {
    asked_meanwhile(|writer, reached, says| {
        change_plan(writer, reached);
        assert_eq!(says(), Some(Decision::Deny), "by the new plan");
    });
}

/// The same, but whoever changes the plan leaves no answer by it: others may, by the one
/// before.
pub fn plan_asked_for_before() {
    asked_meanwhile(|writer, reached, _| change_plan(writer, reached));
}

/// Opens the default plan's limit for some moments, and closes it again.
fn change_plan(writer: &mut Writer, reached: Limit) {
    let open = Limit { limit: Some(LIMIT), ..reached.clone() };
    for limit in [open, reached] {
        let plan = Plan { name: "free".into(), limits: vec![limit], is_default: true };
        writer.book.plan(plan, PlanOrigin::Config);
        (0..4).for_each(|_| thread::yield_now());
    }
}

/// Tenants that ask at the same time what nobody asked before: each is told by its own
/// counter, whoever leaves which shortcut first.
pub fn each_by_its_own() {
    let (site, _writer) = site(0);
    site.told(&site.reserve("a", &[(METER, 10)]));
    let ask = |site: &Site| {
        let says = |tenant| (0..2).map(move |_| site.live.may_use(tenant, METER, 1, NOW));
        for told in says(TENANT) {
            assert_eq!(told, Some(Decision::Deny), "nothing is left");
        }
        for told in says(OTHER_TENANT) {
            assert_eq!(told, Some(Decision::Allow), "nothing was used");
        }
    };
    let who = Who { tenant: OTHER_TENANT.into(), ..Who::default() };
    let request = Reserve { id: "b".into(), who, ttl_ms: TTL_MS, items: named(&[(METER, 1)]), ..Reserve::default() };
    assert!(site.live.reserve(&request, 1, NOW).is_ok());
    change_plan_of(&site);
    let others = [0; 2].map(|_| spawn(&site, ask));
    ask(&site);
    others.into_iter().for_each(join);
    ask(&site);
}

/// Makes all shortcuts those of another catalogue, which says the same.
fn change_plan_of(site: &Site) {
    site.live.set_meters(Some(&Definitions::built_in()));
}

/// By name.
pub const ALL: &[(&str, fn())] = &[
    ("lives_beside_each_other", lives_beside_each_other),
    ("one_request_twice", one_request_twice),
    ("repeated_while_read", repeated_while_read),
    ("drawing_opens_no_room", drawing_opens_no_room),
    ("extended_when_it_ends", extended_when_it_ends),
    ("committed_and_released", committed_and_released),
    ("committed_when_laid_down", committed_when_laid_down),
    ("forgotten_when_read", forgotten_when_read),
    ("committed_when_forgotten", committed_when_forgotten),
    ("terms_while_asked", terms_while_asked),
    ("plan_while_asked", plan_while_asked),
    ("plan_asked_for_before", plan_asked_for_before),
    ("each_by_its_own", each_by_its_own),
];
