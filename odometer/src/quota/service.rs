//! The seam between what is asked and who decides it: a check or an operation on a
//! reservation goes in, an answer or the reason why there is none comes out. Knows no
//! protocol.

use std::future::Future;
use std::pin::Pin;

use odometer_schemas::quota::{Answer, Check, Commit, Extend, Plan, QuotaError, Release, Reserve, TenantTerms};
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

/// Who decides.
pub(crate) trait QuotaService: Send + Sync + 'static {
    /// Decides now what this process can decide at once: a check, a `fast` reservation
    /// on the owner. `None`: use [`QuotaService::decide`].
    fn decide_now(&self, request: &QuotaRequest) -> Option<Result<Answer, QuotaError>>;

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

    /// What a tenant was given; `None` for one that has the default plan.
    fn tenant(&self, tenant: String) -> BoxFuture<'_, Option<TenantTerms>>;
}
