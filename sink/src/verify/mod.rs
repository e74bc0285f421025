//! The proof: totals, counts and cursors of one moment in the totals book, and the
//! whole raw book, in; a report out that names every difference. It changes nothing,
//! and takes no word for it: checksums, digests, keys, counts, totals and rollups are
//! recomputed from the rows.
//!
//! | report | meaning | exit |
//! | --- | --- | --- |
//! | [`Report::Proven`] without differences | the books agree to the last unit | 0 |
//! | [`Report::Proven`] with differences | they do not | 1 |
//! | [`Report::Unproven`] | the raw book has not reached the totals' cursors | 2 |

mod difference;
mod envelope;
mod keys;
mod rollups;
mod rows;
mod totals;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use odometer_schemas::time::Interval;
use odometer_schemas::verdict::VerdictCounts;

use crate::error::BookError;
use crate::raw::{RawBook, RawCursor};
use crate::totals::{PartitionCursor, PeriodFilter, TotalsBook, TotalsFilter};

use difference::Differences;
pub use difference::{DIFFERENCES_KEPT_MAX, Difference};
use keys::{KeyPass, KeySearch};
use rows::{FullWalk, KeyTask, KeyWalk, Reporter, Setting};

/// What to prove. Counts per partition and whole envelopes are checked only when
/// everything is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyScope {
    /// Only this tenant's usage.
    pub tenant: Option<String>,
    /// Only periods that share a millisecond with it.
    pub period: Option<Interval>,
}

impl VerifyScope {
    fn is_everything(&self) -> bool {
        self.tenant.is_none() && self.period.is_none()
    }
}

/// A partition whose raw rows are not all there yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// The partition.
    pub partition: u32,
    /// Where the raw book is.
    pub raw_offset: u64,
    /// Where the totals book was.
    pub totals_offset: u64,
}

impl std::fmt::Display for Lag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { partition, raw_offset, totals_offset } = self;
        write!(f, "partition {partition}: raw rows reach offset {raw_offset}, totals reach offset {totals_offset}")
    }
}

/// What the proof is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for the raw book.
    Waiting,
    /// Walking over all rows.
    Rows,
    /// Walking over them again for keys that were accepted twice.
    Keys,
}

/// How far the proof is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Rows seen, over all walks.
    pub rows_checked: u64,
    /// Rows to see, as far as is known.
    pub rows_expected: u64,
}

/// How the proof talks to its caller.
pub struct Attendant<'a> {
    /// Told now and then.
    pub progress: &'a mut dyn FnMut(Progress),
    /// Asked while the raw book lags: waits a moment and answers `true` to look again,
    /// or `false` to give up.
    pub wait: &'a mut dyn FnMut(&[Lag]) -> bool,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The raw book did not reach the totals' cursors while the caller waited.
    Unproven(Vec<Lag>),
    /// Everything was compared.
    Proven(Findings),
}

/// The result of a whole comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The first [`DIFFERENCES_KEPT_MAX`].
    pub differences: Vec<Difference>,
    /// How many there are.
    pub difference_count: u64,
    /// Totals compared.
    pub totals: u64,
    /// Raw rows seen.
    pub rows: u64,
    /// Undecodable log entries seen.
    pub rejected_envelopes: u64,
    /// Rollup rows seen.
    pub rollups: u64,
    /// Identical copies of one position, which an engine may keep for a while.
    pub copies: u64,
}

impl Report {
    /// 0: the books agree. 1: they do not. 2: unproven.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Proven(findings) if findings.difference_count == 0 => 0,
            Self::Proven(_) => 1,
            Self::Unproven(_) => 2,
        }
    }
}

/// Compares the books.
///
/// # Errors
/// When a book fails, or the totals book does not read back.
pub fn verify(
    totals: &mut dyn TotalsBook,
    raw: &mut dyn RawBook,
    scope: &VerifyScope,
    attendant: &mut Attendant<'_>,
) -> Result<Report, BookError> {
    let filter =
        TotalsFilter { tenant: scope.tenant.clone(), meter: None, period: scope.period.map(PeriodFilter::Overlaps) };
    let snapshot = totals.snapshot(&filter)?;
    let setting = Setting {
        hasher: snapshot.installation.hasher(),
        installation: &snapshot.installation,
        scope,
        totals_cursors: &snapshot.cursors,
    };
    let received = snapshot.cursors.iter().map(|cursor| cursor.counts.received);
    let rows_expected = received.fold(0, u64::saturating_add);
    let progress = Progress { phase: Phase::Waiting, rows_checked: 0, rows_expected };
    (attendant.progress)(progress);
    let behind = catch_up(raw, &snapshot.cursors, attendant)?;
    if !behind.is_empty() {
        return Ok(Report::Unproven(behind));
    }
    let mut differences = Differences::default();
    let check = totals::TotalsCheck::new(snapshot.totals, scope.period, &mut differences);
    let mut walk = full_walk(&setting, check, differences, (&mut *attendant.progress, progress));
    walk.progress.enter(Phase::Rows);
    raw.scan(&mut walk)?;
    if !walk.behind.is_empty() {
        return Ok(Report::Unproven(walk.behind));
    }
    let Compared { mut findings, mut differences, parts, repeated, mut progress } = compare(walk);
    findings.rows = progress.rows_checked;
    progress.rows_expected = progress.rows_checked.saturating_mul(parts);
    let mut keys = Keys { setting: &setting, raw, report: attendant.progress, progress };
    keys.check(parts, repeated, &mut differences)?;
    findings.differences = differences.kept;
    findings.difference_count = differences.count;
    Ok(Report::Proven(findings))
}

/// Waits until the raw book has reached the totals' cursors; what still lags.
fn catch_up(
    raw: &mut dyn RawBook,
    totals_cursors: &[PartitionCursor],
    attendant: &mut Attendant<'_>,
) -> Result<Vec<Lag>, BookError> {
    loop {
        let behind = lags(totals_cursors, &raw.cursors()?);
        if behind.is_empty() || !(attendant.wait)(&behind) {
            return Ok(behind);
        }
    }
}

fn lags(totals_cursors: &[PartitionCursor], raw_cursors: &[RawCursor]) -> Vec<Lag> {
    let raw: BTreeMap<u32, u64> = raw_cursors.iter().map(|cursor| (cursor.partition, cursor.next_offset)).collect();
    let lag = |cursor: &PartitionCursor| Lag {
        partition: cursor.partition,
        raw_offset: raw.get(&cursor.partition).copied().unwrap_or(0),
        totals_offset: cursor.next_offset,
    };
    totals_cursors.iter().map(lag).filter(|lag| lag.raw_offset < lag.totals_offset).collect()
}

fn full_walk<'a, 'p>(
    setting: &'a Setting<'a>,
    totals: totals::TotalsCheck,
    differences: Differences,
    (report, state): (&'p mut dyn FnMut(Progress), Progress),
) -> FullWalk<'a, 'p> {
    FullWalk {
        setting,
        progress: Reporter { report, state },
        differences,
        totals,
        rollups: rollups::RollupCheck::new(setting.scope.period),
        keys: KeyPass::first(),
        counts: BTreeMap::new(),
        envelopes: envelope::EnvelopeCheck::default(),
        dimensions: rows::DimensionHashes::default(),
        behind: Vec::new(),
        raw_cursors: Vec::new(),
        rejected: 0,
        copies: envelope::Copies::default(),
        scratch: Vec::new(),
    }
}

/// What the first walk found.
struct Compared {
    findings: Findings,
    differences: Differences,
    parts: u64,
    repeated: Vec<u128>,
    progress: Progress,
}

fn compare(walk: FullWalk<'_, '_>) -> Compared {
    let FullWalk { setting, mut differences, mut envelopes, totals, rollups, keys, counts, .. } = walk;
    envelopes.finish(&mut differences);
    let findings = Findings {
        totals: totals.len() as u64,
        rejected_envelopes: walk.rejected,
        rollups: rollups.checked(),
        copies: walk.copies.found,
        ..Findings::default()
    };
    if setting.scope.is_everything() {
        compare_counts(setting.totals_cursors, &counts, &mut differences);
    }
    totals.finish(&mut differences);
    rollups.finish(&mut differences);
    let parts = keys.parts();
    Compared { findings, differences, parts, repeated: keys.repeated(), progress: walk.progress.state }
}

fn compare_counts(
    totals_cursors: &[PartitionCursor],
    counts: &BTreeMap<u32, VerdictCounts>,
    differences: &mut Differences,
) {
    for PartitionCursor { partition, counts: total, .. } in totals_cursors {
        let raw = counts.get(partition).copied().unwrap_or_default();
        let received = ("received", total.received, raw.received);
        let by_verdict = total.by_name().into_iter().zip(raw.by_name()).map(|((name, t), (_, r))| (name, t, r));
        for (verdict, total, raw) in std::iter::once(received).chain(by_verdict) {
            if total != raw {
                differences.push(|| Difference::Count { partition: *partition, verdict, total, raw });
            }
        }
    }
}

/// The search for keys that were accepted twice.
struct Keys<'a, 'p> {
    setting: &'a Setting<'a>,
    raw: &'p mut dyn RawBook,
    report: &'p mut dyn FnMut(Progress),
    progress: Progress,
}

impl Keys<'_, '_> {
    /// Looks at the parts that the first walk did not, then names what is repeated.
    fn check(&mut self, parts: u64, mut repeated: Vec<u128>, differences: &mut Differences) -> Result<(), BookError> {
        for part in 1..parts {
            if let KeyTask::Repeated(pass) = self.walk(KeyTask::Repeated(KeyPass::later(part, parts)))? {
                repeated.extend(pass.repeated());
            }
        }
        if let Some(search) = KeySearch::new(repeated)
            && let KeyTask::Positions(search) = self.walk(KeyTask::Positions(search))?
        {
            search.finish(differences);
        }
        Ok(())
    }

    fn walk(&mut self, task: KeyTask) -> Result<KeyTask, BookError> {
        let progress = Reporter { report: &mut *self.report, state: self.progress };
        let copies = envelope::Copies::default();
        let mut walk = KeyWalk { setting: self.setting, progress, task, copies };
        walk.progress.enter(Phase::Keys);
        self.raw.scan(&mut walk)?;
        self.progress = walk.progress.state;
        Ok(walk.task)
    }
}
