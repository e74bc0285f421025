//! Answers quota questions on a node: where this node owns the tenant's partition it
//! decides and tells the log; where another does it asks that one; where nobody
//! knows the counters, each limit's policy decides.
//!
//! Reading path: [`Desk::decide`] → [`scribe`] (into the log) → [`owners`] and [`forward`]
//! (another node) → [`given`] (nobody) → [`expiry`] (what ends by itself) → [`terms`]
//! (what tenants are entitled to).

mod at_once;
mod expiry;
mod forward;
mod given;
mod owners;
mod requests;
mod scribe;
mod terms;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use odometer_aggregator::LiveQuota;
use odometer_aggregator::quota::Outcome;
use odometer_ingest::log::{AppendError, Appended, LogAppender};
use odometer_schemas::definitions::Definitions;
use odometer_schemas::quota::{Answer, Decision, Plan, QuotaError, TenantTerms};
use odometer_schemas::time::TimeMs;

use self::expiry::Expiry;
use self::forward::{Owner, Reply, Word};
use self::given::Given;
use self::owners::{Astray, Owners};
use self::requests::{ask, is_durable, is_strict, reservation_of, tenant_of};
use self::scribe::{Scribe, Until, Written};
use crate::api::books::Books;
use crate::node::Node;
use crate::node::cells::Cells;
use crate::node::progress::{Progress, Standing, now};
use crate::quota::service::{Ask, BoxFuture, QuotaRequest, QuotaService, Tenant};
use crate::quota::tallies::Work;

/// The doors for other nodes' questions; no doors for people.
pub(crate) fn router(desk: Arc<Desk>) -> axum::Router {
    use axum::body::Bytes;
    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::routing::post;
    let forwarded = async |State(desk): State<Arc<Desk>>, body: Bytes| {
        let (epoch, request) = forward::decode::<(u64, QuotaRequest)>(&body).ok_or(StatusCode::BAD_REQUEST)?;
        Ok::<_, StatusCode>(forward::encode(&desk.decide_for_another(epoch, request).await))
    };
    let terms = async |State(desk): State<Arc<Desk>>, tenant: String| {
        desk.told_here(&tenant).map(|told| forward::encode(&told)).ok_or(StatusCode::SERVICE_UNAVAILABLE)
    };
    let router = axum::Router::new().route(forward::ROUTE, post(forwarded)).route(forward::TERMS_ROUTE, post(terms));
    router.with_state(desk)
}

/// Locks that keep decisions about one reservation in order: far more than cores, so
/// that different reservations seldom share one.
const TURNS: usize = 256;

/// Longest wait of an operation for the log, and of a strict one until this node has read
/// it back.
const STRICT_MAX: Duration = Duration::from_secs(5);

/// A node's quota desk.
pub(crate) struct Desk {
    cells: Cells,
    progress: Arc<Progress>,
    log: Arc<dyn LogAppender>,
    scribe: Scribe,
    owners: Owners,
    /// What tenants were given whose owner does not answer.
    given: Given,
    /// Decides while nobody knows the counters: the same plans and terms, a tenth of
    /// their limits, nothing of what was used.
    stand_in: LiveQuota,
    plans: Vec<Plan>,
    /// Held from a decision about a reservation until it is on its way to the log; by
    /// the reservation's id.
    turns: [Mutex<()>; TURNS],
    /// Questions of other nodes that were decided here.
    decided_for_nodes: AtomicU64,
    expiry: Expiry,
}

/// Where a question is answered.
enum Seat {
    Here { quota: LiveQuota, epoch: u64 },
    Elsewhere(Owner),
    Nowhere,
}

impl Desk {
    /// Opens the desk of a node; call it within a runtime.
    pub(crate) fn open(
        node: &Node,
        books: Arc<Books>,
        (definitions, plans): (&Definitions, Vec<Plan>),
    ) -> anyhow::Result<Self> {
        let (log, progress) = (node.appender(), Arc::clone(&node.progress));
        Ok(Self {
            cells: node.cells.clone(),
            progress: Arc::clone(&node.progress),
            scribe: Scribe::start(&log, move |why| progress.fail(why)),
            owners: Owners::new(Arc::clone(&books), node.footing.owner().into())?,
            given: Given::start(books),
            stand_in: LiveQuota::stand_in(definitions),
            plans,
            turns: [const { Mutex::new(()) }; TURNS],
            decided_for_nodes: AtomicU64::new(0),
            expiry: Expiry::start(node.cells.clone(), log.partitions())?,
            log,
        })
    }

    /// Writes what was decided, and closes.
    pub(crate) async fn close(self) {
        self.scribe.finish().await;
    }

    /// A question that another node sent here, which takes this one for the owner in `epoch`:
    /// decided or refused, never sent on.
    async fn decide_for_another(&self, epoch: u64, request: QuotaRequest) -> Reply {
        let partition = self.cells.partition_of(tenant_of(&request));
        // An owner of an earlier epoch was followed.
        if let Some((quota, own_epoch)) = self.here(partition).filter(|(_, own_epoch)| *own_epoch >= epoch) {
            let decided = self.decide_here(partition, (&quota, own_epoch), &request).await;
            let is_owner = self.epoch_here(partition) == Some(own_epoch);
            // What was to be written may never be read back here once another node owns; that
            // one answers, under the same id.
            if is_owner || !matches!(decided, Err(QuotaError::Unavailable { .. })) {
                self.decided_for_nodes.fetch_add(1, Ordering::Relaxed);
                return Reply::Owner(Word::from(decided));
            }
        }
        Reply::NotOwner { successor: self.owners.of(partition).await }
    }

    fn here(&self, partition: u32) -> Option<(LiveQuota, u64)> {
        let epoch = self.epoch_here(partition)?;
        self.cells.quota(partition).map(|quota| (quota, epoch))
    }

    /// The epoch in which this node decides about a partition, if it may.
    fn epoch_here(&self, partition: u32) -> Option<u64> {
        let progress = self.progress.of(partition);
        let may = progress.standing() == Standing::Authoritative && self.progress.may_decide();
        may.then(|| progress.epoch.load(Ordering::Acquire))
    }

    async fn seat(&self, partition: u32) -> Seat {
        if let Some((quota, epoch)) = self.here(partition) {
            return Seat::Here { quota, epoch };
        }
        self.owners.of(partition).await.map_or(Seat::Nowhere, Seat::Elsewhere)
    }

    async fn decide_anywhere(&self, request: QuotaRequest) -> Result<Answer, QuotaError> {
        let partition = self.cells.partition_of(tenant_of(&request));
        match self.seat(partition).await {
            Seat::Here { quota, epoch } => self.decide_here(partition, (&quota, epoch), &request).await,
            Seat::Elsewhere(owner) => match self.owners.ask(partition, &owner, &request).await {
                Ok(word) => word.into_result(),
                Err(Astray(why)) => self.decide_after(partition, &request, &why).await,
            },
            Seat::Nowhere => self.decide_blind(&request, "nobody owns the tenant's partition at the moment").await,
        }
    }

    /// Decides what no owner answered: without the counters, unless this node has become the
    /// owner meanwhile.
    async fn decide_after(&self, partition: u32, request: &QuotaRequest, why: &str) -> Result<Answer, QuotaError> {
        match self.here(partition) {
            Some((quota, epoch)) => self.decide_here(partition, (&quota, epoch), request).await,
            None => self.decide_blind(request, why).await,
        }
    }

    /// Decides without the counters.
    async fn decide_blind(&self, request: &QuotaRequest, why: &str) -> Result<Answer, QuotaError> {
        let tenant = tenant_of(request);
        let terms = self.given.terms(self.cells.partition_of(tenant), tenant).await.unwrap_or_default();
        let now = now();
        self.stand_in.expire(now, 64);
        self.stand_in.stand_in_for(&self.known_plans());
        self.stand_in.stand_in_terms(tenant, &terms)?;
        let outcome = match ask(&self.stand_in, request, now) {
            // It was made where the counters are known.
            Err(QuotaError::Unknown { .. }) => return Err(QuotaError::Unavailable { why: why.to_owned() }),
            outcome => outcome?,
        };
        let answer = answer(outcome, request, (now, 0));
        Ok(Answer { degraded: true, ..answer })
    }

    async fn decide_here(
        &self,
        partition: u32,
        (quota, epoch): (&LiveQuota, u64),
        request: &QuotaRequest,
    ) -> Result<Answer, QuotaError> {
        let now = now();
        let lag_ms = self.progress.of(partition).lag_ms(now);
        if !is_durable(request) {
            return ask(quota, request, now).map(|outcome| answer(outcome, request, (now, lag_ms)));
        }
        let (outcome, written) = self.decide_and_write((partition, epoch), quota, request, now)?;
        if let Some(written) = written {
            let written = self.in_the_log(partition, request, written);
            let waited = tokio::time::timeout(STRICT_MAX, written).await;
            waited.unwrap_or_else(|_| Err(unavailable("the log did not confirm in time")))?;
            self.check_owner(partition, (quota, epoch), request)?;
        }
        Ok(answer(outcome, request, (now, lag_ms)))
    }

    /// Decides and hands over what the log must be told; for a strict question, or while
    /// the log is behind, also where to hear that it was.
    fn decide_and_write<'a>(
        &self,
        (partition, epoch): (u32, u64),
        quota: &LiveQuota,
        request: &'a QuotaRequest,
        now: TimeMs,
    ) -> Result<(Outcome<'a>, Option<Written>), QuotaError> {
        // A place first: what is decided must get into the log.
        let place = self.scribe.place(partition)?;
        let _in_order = self.turn_of(reservation_of(request));
        let mut outcome = ask(quota, request, now)?;
        let until = if is_strict(request) {
            Some(Until::Durable)
        } else {
            self.scribe.is_behind(partition, now).then_some(Until::Written)
        };
        let written = outcome.operation.take().and_then(|operation| match until {
            Some(until) => Some(place.write_and_tell(epoch, &operation, until)),
            None => {
                place.write(epoch, &operation);
                None
            }
        });
        Ok((outcome, written))
    }

    /// Decisions about one reservation reach the log in their order.
    fn turn_of(&self, id: &str) -> MutexGuard<'_, ()> {
        let turn = id.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        self.turns[turn % TURNS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the log has a decision; for a strict question, until this node has read
    /// it back, too.
    async fn in_the_log(&self, partition: u32, request: &QuotaRequest, written: Written) -> Result<(), QuotaError> {
        let written = written.await.unwrap_or(Err(AppendError::Closed));
        let Appended { offset, .. } = written.map_err(|error| unavailable(&format!("the log: {error}")))?;
        if is_strict(request) {
            self.progress.of(partition).counted_beyond(offset).await;
        }
        Ok(())
    }

    /// Whether what waited was decided as the owner that still owns. An owner that was
    /// followed finds its successor's claim in the log before its own decision, and does not
    /// book it: who asked strictly hears of that, too.
    fn check_owner(
        &self,
        partition: u32,
        (quota, epoch): (&LiveQuota, u64),
        request: &QuotaRequest,
    ) -> Result<(), QuotaError> {
        let is_owner = self.epoch_here(partition) == Some(epoch);
        if is_owner && (!is_strict(request) || quota.is_booked(tenant_of(request), reservation_of(request))) {
            return Ok(());
        }
        Err(unavailable("the tenant's partition moved to another node meanwhile"))
    }
}

fn unavailable(why: &str) -> QuotaError {
    QuotaError::Unavailable { why: why.to_owned() }
}

fn answer(outcome: Outcome<'_>, request: &QuotaRequest, (now, lag_ms): (TimeMs, i64)) -> Answer {
    let Outcome { decision, expires_at, limits, violated, late, .. } = outcome;
    // What was denied does not exist.
    let id = Some(reservation_of(request)).filter(|id| !id.is_empty() && decision != Decision::Deny);
    Answer {
        decision,
        reservation_id: id.map(str::to_owned),
        expires_at,
        limits,
        violated,
        as_of: now.plus_ms(-lag_ms),
        lag_ms,
        degraded: false,
        late,
    }
}

impl QuotaService for Desk {
    fn decide_now(&self, request: &QuotaRequest) -> Option<Result<Answer, QuotaError>> {
        if is_strict(request) {
            return None;
        }
        let partition = self.cells.partition_of(tenant_of(request));
        let progress = self.progress.of(partition);
        let epoch = self.epoch_here(partition)?;
        let now = now();
        let lag_ms = progress.lag_ms(now);
        if is_durable(request) && self.scribe.is_behind(partition, now) {
            return None;
        }
        self.cells.with_quota(partition, |quota| {
            let outcome = if is_durable(request) {
                self.decide_and_write((partition, epoch), quota, request, now)?.0
            } else {
                ask(quota, request, now)?
            };
            Ok(answer(outcome, request, (now, lag_ms)))
        })
    }

    fn may_use(&self, asks: &[Option<Ask<'_>>]) -> Vec<Option<Decision>> {
        self.decide_at_once(asks)
    }

    fn decide(&self, request: QuotaRequest) -> BoxFuture<'_, Result<Answer, QuotaError>> {
        Box::pin(self.decide_anywhere(request))
    }

    fn put_plan(&self, plan: Plan) -> BoxFuture<'_, Result<(), QuotaError>> {
        Box::pin(self.write_plan(plan))
    }

    fn put_tenant(
        &self,
        tenant: String,
        terms: TenantTerms,
        anchor: Option<Option<TimeMs>>,
    ) -> BoxFuture<'_, Result<(), QuotaError>> {
        Box::pin(self.write_terms(tenant, terms, anchor))
    }

    fn work(&self) -> Work {
        let quotas = (0..self.log.partitions()).filter_map(|partition| self.cells.quota(partition));
        Work {
            forwarded: self.owners.asked.load(Ordering::Relaxed),
            forwards_failed: self.owners.astray.load(Ordering::Relaxed),
            decided_for_nodes: self.decided_for_nodes.load(Ordering::Relaxed),
            expired: self.expiry.expired(),
            reservations: quotas.map(|quota| quota.reservations() as u64).sum(),
            queued: self.scribe.queued() as u64,
        }
    }

    fn plans(&self) -> BoxFuture<'_, Vec<Plan>> {
        Box::pin(self.plans_anywhere())
    }

    fn tenant(&self, tenant: String) -> BoxFuture<'_, Tenant> {
        Box::pin(async move { self.known_of(&tenant).await })
    }
}
