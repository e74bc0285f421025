//! What every totals book decides in the same way, wherever it keeps its rows: whether
//! a claim is possible, whether a commit contradicts itself, and what the partition's
//! row says to it. It never touches a book.

use odometer_schemas::commit::{PartitionCommit, TotalRow};
use odometer_schemas::quota::{AlertRow, QuotaRow, QuotaRowKind, Scope};

use super::{Claim, CommitError, Installation, OwnedCommit};
use crate::error::BookError;

/// The epoch that a claim makes, once it is sure that the claim is possible.
pub(super) fn claimed_epoch(installation: &Installation, claim: &Claim) -> Result<u64, BookError> {
    let Claim { partition, from_epoch, .. } = *claim;
    if partition >= installation.partitions {
        return Err(BookError::out_of_range(format!(
            "partition {partition} cannot be claimed: the installation has {}",
            installation.partitions
        )));
    }
    // Every book keeps epochs in signed 64 bits.
    match from_epoch.checked_add(1).filter(|epoch| i64::try_from(*epoch).is_ok()) {
        Some(epoch) => Ok(epoch),
        None => Err(BookError::out_of_range(format!(
            "partition {partition} cannot be claimed: there is no epoch after {from_epoch}"
        ))),
    }
}

/// Whether what the recorded installation is differs from what was expected.
pub(super) fn same_installation(recorded: &Installation, expected: &Installation) -> Result<(), BookError> {
    let fields = [
        ("log", recorded.log_id.clone(), expected.log_id.clone()),
        ("partition count", recorded.partitions.to_string(), expected.partitions.to_string()),
        ("hash seed", recorded.hash_seed.to_string(), expected.hash_seed.to_string()),
    ];
    match fields.into_iter().find(|(_, recorded, expected)| recorded != expected) {
        Some((field, recorded, expected)) => Err(BookError::Identity { field, recorded, expected }),
        None => Ok(()),
    }
}

/// The commits of one transaction in ascending order of partitions, once none of them
/// contradicts itself or another.
pub(super) fn checked(commits: &[OwnedCommit]) -> Result<Vec<&OwnedCommit>, CommitError> {
    let mut checked: Vec<&OwnedCommit> = commits.iter().collect();
    // Rows are locked in this order by every owner, so that no two wait for each other.
    checked.sort_by_key(|owned| owned.commit.partition);
    for owned in &checked {
        check(&owned.commit)?;
    }
    match checked.windows(2).find(|pair| pair[0].commit.partition == pair[1].commit.partition) {
        Some(pair) => Err(invalid(&pair[1].commit, "the partition is committed twice in one transaction".to_owned())),
        None => Ok(checked),
    }
}

fn check(commit: &PartitionCommit) -> Result<(), CommitError> {
    if !commit.counts.is_conserved() {
        return Err(invalid(commit, format!("records were lost or invented: {:?}", commit.counts)));
    }
    if commit.next_offset < commit.from_offset {
        return Err(invalid(commit, format!("it starts at offset {} and ends before it", commit.from_offset)));
    }
    let range = commit.from_offset..commit.next_offset;
    let mut offsets = commit
        .exceptions
        .iter()
        .map(|e| e.offset)
        .chain(commit.definitions.iter().map(|d| d.offset))
        .chain(commit.alerts.iter().map(AlertRow::offset));
    match offsets.find(|offset| !range.contains(offset)) {
        Some(offset) => Err(invalid(commit, format!("it brings offset {offset}, outside of {range:?}"))),
        None => Ok(()),
    }
}

/// The error of a commit that may not reach the book.
pub(super) fn invalid(commit: &PartitionCommit, problem: String) -> CommitError {
    CommitError::Invalid { partition: commit.partition, next_offset: commit.next_offset, problem }
}

/// Where a partition's row stands: its epoch and its next offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) epoch: u64,
    pub(super) next_offset: u64,
}

/// Whether the commit is to be applied (`true`) or was applied before (`false`), by
/// the table at the head of [`super`]. `found` is nothing for a partition that was
/// never claimed, and must stay as it is until the transaction ends.
pub(super) fn is_to_apply(owned: &OwnedCommit, found: Option<Standing>) -> Result<bool, CommitError> {
    let OwnedCommit { epoch, commit } = owned;
    let at = |next_offset| Some(Standing { epoch: *epoch, next_offset });
    if found == at(commit.from_offset) {
        return Ok(true);
    }
    if found == at(commit.next_offset) {
        return Ok(false);
    }
    let Standing { epoch: found_epoch, next_offset: found_offset } = found.unwrap_or_default();
    Err(CommitError::Fenced {
        partition: commit.partition,
        epoch: *epoch,
        from_offset: commit.from_offset,
        found_epoch,
        found_offset,
    })
}

/// What a total is found by.
pub(super) fn total_key(row: &TotalRow) -> (&str, &str, i64) {
    (&row.tenant, &row.meter, row.period_start_ms)
}

/// Rows of one kind that several commits bring, each with its commit, in ascending
/// order of keys: neighbours share pages, and every owner touches them in one order.
/// Two rows of one key are refused, because only one absolute value can be true.
pub(super) fn in_order<'a, R, K: Ord>(
    commits: &[&'a PartitionCommit],
    rows: impl Fn(&'a PartitionCommit) -> &'a [R],
    key: impl Fn(u32, &'a R) -> K,
) -> Result<Vec<(&'a PartitionCommit, &'a R)>, CommitError> {
    let key_of = |(commit, row): &(&'a PartitionCommit, &'a R)| key(commit.partition, *row);
    let mut ordered: Vec<_> =
        commits.iter().flat_map(|commit| rows(commit).iter().map(move |row| (*commit, row))).collect();
    // Stable, because that finds the runs: each commit's rows mostly are in order.
    ordered.sort_by_key(key_of);
    match ordered.windows(2).find(|pair| key_of(&pair[0]) == key_of(&pair[1])) {
        Some(pair) => Err(invalid(pair[1].0, "two of its rows have one key".to_owned())),
        None => Ok(ordered),
    }
}

/// A scope by its name.
pub(super) fn scope_of(name: &str) -> Option<Scope> {
    [Scope::Tenant, Scope::Subject, Scope::Key].into_iter().find(|scope| scope.name() == name)
}

/// Alerts of one partition.
pub(super) fn without_partition(alerts: Vec<(u32, AlertRow)>) -> Vec<AlertRow> {
    alerts.into_iter().map(|(_, alert)| alert).collect()
}

/// Rows that say what tenants are entitled to.
pub(super) const GIVEN: [QuotaRowKind; 2] = [QuotaRowKind::Plan, QuotaRowKind::Terms];

/// The key of a row of quota state, over all partitions.
pub(super) fn quota_key(partition: u32, row: &QuotaRow) -> (u32, QuotaRowKind, &str, &str) {
    (partition, row.kind, &row.tenant, &row.name)
}
