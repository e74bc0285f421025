//! The live counters of the partitions that this node counts, and the decisions on
//! them, one set each: a partition that goes takes its own with it, whole and at once.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use odometer_aggregator::{LiveCells, LiveQuota, LiveState, LiveUsage};
use odometer_schemas::partition::partition_of;

/// Live counters by partition. Clones show the same.
#[derive(Clone, Debug)]
pub struct Cells {
    /// Looked at by every decision: swapped, so that none writes to what others read.
    partitions: Arc<[ArcSwapOption<LiveState>]>,
}

impl Cells {
    pub(crate) fn new(partitions: u32) -> Self {
        Self { partitions: (0..partitions).map(|_| ArcSwapOption::empty()).collect() }
    }

    /// The live counters of `tenant` by meter and period; none when another node
    /// counts it.
    #[must_use]
    pub fn of_tenant(&self, tenant: &str) -> Vec<LiveUsage> {
        self.cells(self.partition_of(tenant)).map(|cells| cells.of_tenant(tenant)).unwrap_or_default()
    }

    /// The partition that a tenant's usage is in.
    #[must_use]
    pub fn partition_of(&self, tenant: &str) -> u32 {
        partition_of(tenant, u32::try_from(self.partitions.len()).unwrap_or(u32::MAX))
    }

    /// Where a partition's quota is decided, if this node counts it.
    #[must_use]
    pub fn quota(&self, partition: u32) -> Option<LiveQuota> {
        self.with_quota(partition, LiveQuota::clone)
    }

    /// The same for a look that is brief.
    pub(crate) fn with_quota<T>(&self, partition: u32, look: impl FnOnce(&LiveQuota) -> T) -> Option<T> {
        self.slot(partition).load().as_ref().map(|live| look(&live.quota))
    }

    /// Tenants with live counters.
    #[must_use]
    pub fn tenants(&self) -> usize {
        (0..)
            .take(self.partitions.len())
            .filter_map(|partition| self.cells(partition))
            .map(|cells| cells.tenants())
            .sum()
    }

    pub(crate) fn show(&self, partition: u32, live: LiveState) {
        self.slot(partition).store(Some(Arc::new(live)));
    }

    pub(crate) fn withdraw(&self, partition: u32) {
        self.slot(partition).store(None);
    }

    fn cells(&self, partition: u32) -> Option<LiveCells> {
        self.slot(partition).load().as_ref().map(|live| live.cells.clone())
    }

    fn slot(&self, partition: u32) -> &ArcSwapOption<LiveState> {
        &self.partitions[partition as usize]
    }
}
