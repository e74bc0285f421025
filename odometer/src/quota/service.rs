//! The seam between what is asked and who decides it: a check or an operation on a
//! reservation goes in, an answer or the reason why there is none comes out. Knows no
//! protocol.

use std::future::Future;
use std::pin::Pin;

use odometer_schemas::quota::{
    Answer, Check, Commit, Decision, Extend, Plan, QuotaError, Release, Reserve, TenantTerms,
};
use odometer_schemas::time::TimeMs;

use super::tallies::Work;

/// An answer that may be waited for.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One question.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) enum QuotaRequest {
    Check(Check),
    Reserve(Reserve),
    Extend(Extend),
    Commit(Commit),
    Release(Release),
}

/// A check of one item, as short as it can be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) meter: &'a str,
    /// Base units.
    pub(crate) amount: u64,
}

/// What is known of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tenant {
    pub(crate) terms: TenantTerms,
    /// The anchor of its periods as it was set last, `Some(None)` for calendar months; `None`
    /// while nobody can say.
    pub(crate) anchor: Option<Option<TimeMs>>,
}

/// Who decides.
pub(crate) trait QuotaService: Send + Sync + 'static {
    /// Decides now what this process can decide at once: a check, a `fast` reservation
    /// on the owner. `None`: use [`QuotaService::decide`].
    fn decide_now(&self, request: &QuotaRequest) -> Option<Result<Answer, QuotaError>>;

    /// Of checks, what can be decided at once from one counter each, all at one moment
    /// and as [`QuotaService::decide_now`] would; one for each. `None`, also where
    /// nothing is asked: use that.
    fn may_use(&self, asks: &[Option<Ask<'_>>]) -> Vec<Option<Decision>>;

    /// Decides, wherever the tenant's owner is, and as durably as was asked for.
    fn decide(&self, request: QuotaRequest) -> BoxFuture<'_, Result<Answer, QuotaError>>;

    /// Makes or replaces a plan; it is durable in the log when this returns.
    fn put_plan(&self, plan: Plan) -> BoxFuture<'_, Result<(), QuotaError>>;

    /// Sets what a tenant is entitled to; durable in the log when this returns. The
    /// anchor of its periods stays as it is for `None`, and is taken away for
    /// `Some(None)`: periods are then calendar months.
    fn put_tenant(
        &self,
        tenant: String,
        terms: TenantTerms,
        anchor: Option<Option<TimeMs>>,
    ) -> BoxFuture<'_, Result<(), QuotaError>>;

    /// Every plan, ascending by name.
    fn plans(&self) -> BoxFuture<'_, Vec<Plan>>;

    /// What it does besides, now.
    fn work(&self) -> Work;

    /// What a tenant was given; nothing for one that has the default plan.
    fn tenant(&self, tenant: String) -> BoxFuture<'_, Tenant>;
}
