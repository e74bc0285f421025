//! What tenants were given, as the totals book says, for decisions of a node that does
//! not know their counters: tenants asked about go in, their terms come out. One
//! question to the book is on its way at a time, for everyone who waits. Keeps what it
//! has read for a while; never waits long for a book that does not answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use odometer_aggregator::quota::Given as Rows;
use odometer_schemas::quota::{Plan, QuotaRow, TenantTerms};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::api::books::Books;

/// How long what the book said is believed: a change of terms is in force everywhere
/// within a second.
const BELIEVED: Duration = Duration::from_millis(500);
/// Longest wait for the book. Whoever asks waits for a decision.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// How long a book that failed, or did not answer, is not asked again.
const FAILED_PAUSE: Duration = Duration::from_millis(500);
/// Tenants of one question: a millisecond's work for the book.
const TENANTS_AT_ONCE: usize = 512;
/// Tenants that wait for their question: what some hundred thousand decisions a second
/// gather while one is answered. Beyond it they are decided by what is known.
const WAITING_MAX: usize = 8_192;
/// Tenants of one generation; two are kept. At some hundred bytes each, and a few
/// kilobytes for those with many limits of their own, some tens of megabytes.
const GENERATION: usize = 32_768;

pub(super) struct Given {
    known: Arc<Mutex<Known>>,
    waiting: Sender<Waiting>,
    /// Ends with the desk.
    _reader: JoinSet<()>,
}

/// A tenant that somebody asks about.
struct Waiting {
    partition: u32,
    tenant: String,
    read: oneshot::Sender<()>,
}

#[derive(Default)]
struct Known {
    /// Tenants that were read since the generation before was full.
    young: HashMap<String, Seen>,
    old: HashMap<String, Seen>,
    /// Empty until the book was read.
    plans: Vec<Plan>,
    /// When the book last failed, until it answers again.
    failed: Option<Instant>,
}

#[derive(Clone)]
struct Seen {
    read: Instant,
    /// None: nothing, so that the default plan holds.
    terms: Option<Arc<TenantTerms>>,
}

impl Known {
    fn of(&self, tenant: &str) -> Option<&Seen> {
        self.young.get(tenant).or_else(|| self.old.get(tenant))
    }

    fn put(&mut self, tenant: String, seen: Seen) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(tenant, seen);
    }

    fn may_ask(&self) -> bool {
        self.failed.is_none_or(|failed| failed.elapsed() >= FAILED_PAUSE)
    }
}

impl Given {
    /// Starts the task that asks the book; call it within a runtime.
    pub(super) fn start(books: Arc<Books>) -> Self {
        let known = Arc::<Mutex<Known>>::default();
        let (waiting, inbox) = channel(WAITING_MAX);
        let mut reader = JoinSet::new();
        reader.spawn(read_all(books, Arc::clone(&known), inbox));
        Self { known, waiting, _reader: reader }
    }

    /// What a tenant of `partition` was given; the last that is known, if the book does
    /// not answer, and nothing where nothing is.
    pub(super) async fn terms(&self, partition: u32, tenant: &str) -> Option<Arc<TenantTerms>> {
        {
            let known = lock(&self.known);
            let seen = known.of(tenant);
            if !known.may_ask() || seen.is_some_and(|seen| seen.read.elapsed() < BELIEVED) {
                return seen.and_then(|seen| seen.terms.clone());
            }
        }
        let (read, answered) = oneshot::channel();
        let is_waiting = self.waiting.try_send(Waiting { partition, tenant: tenant.to_owned(), read }).is_ok();
        let is_late = is_waiting && tokio::time::timeout(ANSWER_MAX, answered).await.is_err();
        let mut known = lock(&self.known);
        if is_late {
            // So that not everybody waits for a book that does not answer.
            known.failed = Some(Instant::now());
        }
        known.of(tenant).and_then(|seen| seen.terms.clone())
    }

    /// The plans that the book had when it was last read; none if it never was.
    pub(super) fn plans(&self) -> Vec<Plan> {
        lock(&self.known).plans.clone()
    }

    /// Reads the plans, unless they were read just now.
    pub(super) async fn refresh_plans(&self) {
        // They are read with every tenant, and no tenant has this name.
        self.terms(0, "").await;
    }
}

async fn read_all(books: Arc<Books>, known: Arc<Mutex<Known>>, mut inbox: Receiver<Waiting>) {
    let mut gathered = Vec::new();
    while inbox.recv_many(&mut gathered, TENANTS_AT_ONCE).await > 0 {
        let asked: Vec<Waiting> = std::mem::take(&mut gathered);
        if lock(&known).may_ask() {
            read(&books, &known, &asked).await;
        }
        for waiting in asked {
            // Some do not wait any more.
            let _ = waiting.read.send(());
        }
    }
}

async fn read(books: &Arc<Books>, known: &Mutex<Known>, asked: &[Waiting]) {
    let now = Instant::now();
    let mut wanted: Vec<_> = asked.iter().map(|waiting| (waiting.partition, waiting.tenant.clone())).collect();
    // Every partition has all plans.
    wanted.push((asked[0].partition, String::new()));
    wanted.sort_unstable();
    wanted.dedup();
    let rows = {
        let wanted = wanted.clone();
        books.totals(move |book| book.given(&wanted)).await
    };
    let given = rows.ok().and_then(|rows| readable(&rows));
    let mut known = lock(known);
    match given {
        Some(Rows { plans, mut terms }) => {
            known.failed = None;
            known.plans = plans;
            for (_, tenant) in wanted {
                let terms = terms.remove(&tenant).map(Arc::new);
                known.put(tenant, Seen { read: now, terms });
            }
        }
        // The book has said why.
        None => known.failed = Some(Instant::now()),
    }
}

fn readable(rows: &[QuotaRow]) -> Option<Rows> {
    let of_rows = Rows::of_rows(rows);
    of_rows.inspect_err(|row| tracing::error!("{row} of the totals book cannot be read")).ok()
}

/// What is behind it is whole after every step.
fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use odometer_schemas::commit::PartitionCommit;
    use odometer_schemas::quota::{Limit, PlanOrigin, QuotaRowKind};
    use odometer_sink::totals::{Claim, Installation, OwnedCommit, SqliteTotals, TotalsBook};

    use super::*;
    use crate::node::files::Files;
    use crate::node::footing::BookPlace;

    fn row<T: bincode::Encode>(kind: QuotaRowKind, tenant: &str, name: &str, state: &T) -> QuotaRow {
        let state = bincode::encode_to_vec(state, bincode::config::standard()).unwrap();
        QuotaRow { kind, tenant: tenant.into(), name: name.into(), state }
    }

    fn fill(book: &mut dyn TotalsBook, terms: &TenantTerms) {
        book.identity(&Installation { log_id: "log".into(), partitions: 4, hash_seed: 1 }).unwrap();
        let epoch = book.claim(&Claim { partition: 2, ..Claim::default() }).unwrap().epoch;
        let plan = Plan { name: "team".into(), limits: vec![], is_default: false };
        let plan = row(QuotaRowKind::Plan, "", "team", &(plan, PlanOrigin::Api));
        let quota = vec![plan, row(QuotaRowKind::Terms, "acme", "", terms)];
        let commit = PartitionCommit { partition: 2, next_offset: 1, quota, ..PartitionCommit::default() };
        book.commit(&[OwnedCommit { epoch, commit }]).unwrap();
    }

    #[tokio::test]
    async fn terms_come_from_the_book_and_stay_known_without_it() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path());
        let given = Given::start(Arc::new(Books::new(BookPlace::Files(files.clone()))));
        assert_eq!(given.terms(2, "acme").await, None, "there is no book");
        assert!(!lock(&given.known).may_ask());

        let terms = TenantTerms { plan: Some("team".into()), overrides: vec![Limit::usage("api_call", Some(7))] };
        fill(&mut SqliteTotals::open(&files.totals()).unwrap(), &terms);
        lock(&given.known).failed = None;
        assert_eq!(given.terms(2, "acme").await.as_deref(), Some(&terms));
        assert_eq!(given.terms(2, "other").await, None);
        assert_eq!(given.plans().iter().map(|plan| plan.name.as_str()).collect::<Vec<_>>(), ["team"]);

        lock(&given.known).failed = Some(Instant::now());
        lock(&given.known).young.get_mut("acme").unwrap().read -= BELIEVED;
        assert_eq!(given.terms(2, "acme").await.as_deref(), Some(&terms), "the last that is known");
    }

    #[test]
    fn tenants_are_forgotten_by_the_generation() {
        let mut known = Known::default();
        for tenant in 0..GENERATION * 2 + 1 {
            known.put(format!("{tenant}"), Seen { read: Instant::now(), terms: None });
        }
        assert!(known.of("0").is_none() && known.of(&format!("{GENERATION}")).is_some());
        assert!(known.young.len() + known.old.len() <= 2 * GENERATION);
    }
}
