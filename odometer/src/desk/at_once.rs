//! Checks by the batch: what this node can decide from one counter each, partition by
//! partition, all at one moment. What it cannot is left undecided.

use odometer_schemas::quota::Decision;

use super::Desk;
use crate::node::progress::now;
use crate::quota::service::Ask;

/// What of a batch concerns one partition.
#[derive(Clone, Default)]
struct Share<'a> {
    indexes: Vec<usize>,
    asks: Vec<(&'a str, &'a str, i64)>,
}

impl Desk {
    pub(super) fn decide_at_once(&self, asks: &[Option<Ask<'_>>]) -> Vec<Option<Decision>> {
        let (now, mut decided) = (now(), vec![None; asks.len()]);
        for (partition, share) in (0..).zip(self.shares(asks)).filter(|(_, share)| !share.asks.is_empty()) {
            let Some((quota, _)) = self.here(partition) else { continue };
            for (index, decision) in share.indexes.into_iter().zip(quota.may_use_each(&share.asks, now)) {
                decided[index] = decision;
            }
        }
        decided
    }

    /// By partition.
    fn shares<'a>(&self, asks: &[Option<Ask<'a>>]) -> Vec<Share<'a>> {
        let mut shares = vec![Share::default(); self.progress.partitions.len()];
        for (index, ask) in asks.iter().enumerate() {
            let Some(Ask { tenant, meter, amount }) = *ask else { continue };
            let share = &mut shares[self.cells.partition_of(tenant) as usize];
            share.indexes.push(index);
            share.asks.push((tenant, meter, i64::try_from(amount).unwrap_or(i64::MAX)));
        }
        shares
    }
}
