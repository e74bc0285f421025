//! Plans and terms: put into the log of the partitions that need them, and read from
//! whoever knows them best: the owner, else the totals book.

use std::sync::Arc;

use odometer_schemas::control::Control;
use odometer_schemas::envelope::{Origin, encode_control};
use odometer_schemas::quota::{Plan, PlanOrigin, QuotaError, TenantTerms};
use odometer_schemas::time::TimeMs;

use super::forward::Told;
use super::{Desk, Seat};
use crate::quota::service::Tenant;

impl Desk {
    pub(super) async fn write_plan(&self, plan: Plan) -> Result<(), QuotaError> {
        // Which plan is the default is configured, not put.
        let is_default = self.plans_anywhere().await.iter().any(|known| known.name == plan.name && known.is_default);
        let control = Control::Plan { plan: Plan { is_default, ..plan }, origin: PlanOrigin::Api };
        for partition in 0..self.log.partitions() {
            self.tell(partition, &control).await?;
        }
        Ok(())
    }

    pub(super) async fn write_terms(
        &self,
        tenant: String,
        terms: TenantTerms,
        anchor: Option<Option<TimeMs>>,
    ) -> Result<(), QuotaError> {
        if let Some(plan) = &terms.plan
            && !self.plans_anywhere().await.iter().any(|known| known.name == *plan)
        {
            let problem = format!("names `{plan}`, which is no plan; put it first, or choose one of GET /v1/plans");
            return Err(QuotaError::Invalid { field: "plan", problem });
        }
        let partition = self.cells.partition_of(&tenant);
        if let Some(anchor) = anchor {
            let anchor_ms = anchor.map(|anchor| anchor.0);
            self.tell(partition, &Control::Anchor { tenant: tenant.clone(), anchor_ms }).await?;
        }
        self.tell(partition, &Control::Terms { tenant, terms }).await
    }

    /// Appends a control record and waits until the log has it.
    async fn tell(&self, partition: u32, control: &Control<'_>) -> Result<(), QuotaError> {
        let written = self.log.append(partition, encode_control(control, Origin::default())).wait().await;
        written.map(drop).map_err(|error| QuotaError::Unavailable { why: format!("the log: {error}") })
    }

    /// What this node knows of a tenant that it owns.
    pub(super) fn told_here(&self, tenant: &str) -> Option<Told> {
        let (quota, _) = self.here(self.cells.partition_of(tenant))?;
        let terms = quota.terms(tenant).map(Arc::unwrap_or_clone).unwrap_or_default();
        Some(Told { plans: quota.plans(), terms, anchor_ms: quota.anchor(tenant).map(|anchor| anchor.0) })
    }

    /// What the owner of a tenant's partition says, wherever it is.
    async fn told(&self, tenant: &str) -> Option<Told> {
        match self.seat(self.cells.partition_of(tenant)).await {
            Seat::Here { .. } => self.told_here(tenant),
            Seat::Elsewhere(owner) => self.owners.told(&owner, tenant).await.ok(),
            Seat::Nowhere => None,
        }
    }

    /// What the owner says of a tenant; the totals book, while there is none, knows no anchor.
    pub(super) async fn known_of(&self, tenant: &str) -> Tenant {
        if let Some(Told { terms, anchor_ms, .. }) = self.told(tenant).await {
            return Tenant { terms, anchor: Some(anchor_ms.map(TimeMs)) };
        }
        let given = self.given.terms(self.cells.partition_of(tenant), tenant).await;
        Tenant { terms: given.map(Arc::unwrap_or_clone).unwrap_or_default(), anchor: None }
    }

    pub(super) async fn plans_anywhere(&self) -> Vec<Plan> {
        if let Some(plans) = self.plans_here() {
            return plans;
        }
        // Any owner knows all plans, so any tenant's will do.
        if let Some(told) = self.told("").await {
            return told.plans;
        }
        self.given.refresh_plans().await;
        self.known_plans()
    }

    /// The plans in force, as far as this node knows at once.
    pub(super) fn known_plans(&self) -> Vec<Plan> {
        let of_book = || Some(self.given.plans()).filter(|plans| !plans.is_empty());
        self.plans_here().or_else(of_book).unwrap_or_else(|| self.plans.clone())
    }

    fn plans_here(&self) -> Option<Vec<Plan>> {
        (0..self.log.partitions()).find_map(|partition| self.cells.quota(partition)).map(|quota| quota.plans())
    }
}
