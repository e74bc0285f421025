//! The live counters of the partitions that this node counts, one set each: a
//! partition that goes takes its counters with it, whole and at once.

use std::sync::{Arc, PoisonError, RwLock};

use odometer_aggregator::{LiveCells, LiveUsage};
use odometer_schemas::partition::partition_of;

/// Live counters by partition. Clones show the same.
#[derive(Clone, Debug)]
pub struct Cells {
    partitions: Arc<[RwLock<Option<LiveCells>>]>,
}

impl Cells {
    pub(crate) fn new(partitions: u32) -> Self {
        Self { partitions: (0..partitions).map(|_| RwLock::default()).collect() }
    }

    /// The live counters of `tenant` by meter and period; none when another node
    /// counts it.
    #[must_use]
    pub fn of_tenant(&self, tenant: &str) -> Vec<LiveUsage> {
        let partitions = u32::try_from(self.partitions.len()).unwrap_or(u32::MAX);
        self.of(partition_of(tenant, partitions)).map(|cells| cells.of_tenant(tenant)).unwrap_or_default()
    }

    /// Tenants with live counters.
    #[must_use]
    pub fn tenants(&self) -> usize {
        (0..).take(self.partitions.len()).filter_map(|partition| self.of(partition)).map(|cells| cells.tenants()).sum()
    }

    pub(crate) fn show(&self, partition: u32, cells: LiveCells) {
        *self.slot(partition).write().unwrap_or_else(PoisonError::into_inner) = Some(cells);
    }

    pub(crate) fn withdraw(&self, partition: u32) {
        *self.slot(partition).write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn of(&self, partition: u32) -> Option<LiveCells> {
        self.slot(partition).read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn slot(&self, partition: u32) -> &RwLock<Option<LiveCells>> {
        &self.partitions[partition as usize]
    }
}
