//! The proof's walk over the raw book: what it does with every row, undecodable entry
//! and rollup.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use odometer_schemas::accumulator::unique_hash;
use odometer_schemas::digest::{Fingerprint, Hasher, TextHash};
use odometer_schemas::log::Position;
use odometer_schemas::partition::partition_of;
use odometer_schemas::row::{RawRow, parse_dimensions};
use odometer_schemas::verdict::{Verdict, VerdictCounts};

use super::difference::{Difference, Differences};
use super::envelope::{Copies, EnvelopeCheck};
use super::keys::{KeyPass, KeySearch};
use super::rollups::RollupCheck;
use super::totals::TotalsCheck;
use super::{Lag, Phase, Progress, VerifyScope, lags};
use crate::raw::{RawCursor, RawVisitor, RejectedEnvelope, RollupRow, Scanned};
use crate::totals::{Installation, PartitionCursor};

/// Rows between two reports of progress.
const PROGRESS_ROWS: u64 = 10_000;
/// Dimension texts whose hashes are remembered: rows share few of them, and what is
/// made to be different must not fill the memory.
const DIMENSIONS_REMEMBERED_MAX: usize = 10_000;

/// What every pass needs to know.
pub(super) struct Setting<'a> {
    pub(super) installation: &'a Installation,
    pub(super) scope: &'a VerifyScope,
    pub(super) totals_cursors: &'a [PartitionCursor],
    pub(super) hasher: Hasher,
}

impl Setting<'_> {
    fn totals_cursor(&self, partition: u32) -> u64 {
        let found = self.totals_cursors.binary_search_by_key(&partition, |cursor| cursor.partition);
        found.map_or(0, |place| self.totals_cursors[place].next_offset)
    }

    /// Whether the totals book has counted this row, and the scope means it.
    fn is_counted(&self, row: &RawRow<'_>) -> bool {
        row.verdict == Verdict::Accepted
            && row.position.offset < self.totals_cursor(row.position.partition)
            && self.is_meant(row)
    }

    fn is_meant(&self, row: &RawRow<'_>) -> bool {
        self.scope.tenant.as_deref().is_none_or(|tenant| tenant == row.tenant)
    }
}

/// The first walk: everything but the search for repeated keys in other parts.
pub(super) struct FullWalk<'a, 'p> {
    pub(super) setting: &'a Setting<'a>,
    pub(super) progress: Reporter<'p>,
    pub(super) differences: Differences,
    pub(super) totals: TotalsCheck,
    pub(super) rollups: RollupCheck,
    pub(super) keys: KeyPass,
    pub(super) counts: BTreeMap<u32, VerdictCounts>,
    pub(super) envelopes: EnvelopeCheck,
    pub(super) dimensions: DimensionHashes,
    pub(super) behind: Vec<Lag>,
    pub(super) raw_cursors: Vec<RawCursor>,
    pub(super) rejected: u64,
    pub(super) copies: Copies,
    pub(super) scratch: Vec<u8>,
}

/// What one dimensions text means.
#[derive(Clone, Copy, Debug)]
struct DimensionsOf {
    hash: TextHash,
    /// What a `unique_count` meter would count, were there no subject.
    unique: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct DimensionHashes(HashMap<String, Option<DimensionsOf>>);

impl DimensionHashes {
    fn of(&mut self, text: &str, hasher: &Hasher) -> Option<DimensionsOf> {
        if let Some(known) = self.0.get(text) {
            return *known;
        }
        if self.0.len() >= DIMENSIONS_REMEMBERED_MAX {
            self.0.clear();
        }
        let pairs = parse_dimensions(text).ok();
        let meaning = pairs.map(|pairs| {
            let pairs = || pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            DimensionsOf { hash: hasher.dimensions(pairs()), unique: unique_hash(hasher, pairs(), None) }
        });
        self.0.insert(text.to_owned(), meaning);
        meaning
    }
}

/// Counts rows and tells the caller now and then.
pub(super) struct Reporter<'p> {
    pub(super) report: &'p mut dyn FnMut(Progress),
    pub(super) state: Progress,
}

impl Reporter<'_> {
    pub(super) fn row(&mut self) {
        self.state.rows_checked += 1;
        if self.state.rows_checked.is_multiple_of(PROGRESS_ROWS) {
            (self.report)(self.state);
        }
    }

    pub(super) fn enter(&mut self, phase: Phase) {
        self.state.phase = phase;
        (self.report)(self.state);
    }
}

impl FullWalk<'_, '_> {
    fn raw_cursor(&self, partition: u32) -> u64 {
        let found = self.raw_cursors.binary_search_by_key(&partition, |cursor| cursor.partition);
        found.map_or(0, |place| self.raw_cursors[place].next_offset)
    }

    /// Whether something stands where the raw book has written nothing yet.
    fn is_beyond(&mut self, what: &'static str, position: Position) -> bool {
        let cursor = self.raw_cursor(position.partition);
        let beyond = position.offset >= cursor;
        if beyond {
            self.differences.push(|| Difference::BeyondCursor { what, position, cursor });
        }
        beyond
    }

    fn checked_row(&mut self, row: &RawRow<'_>, stored: u64) {
        let hasher = &self.setting.hasher;
        let computed = row.checksum(hasher, &mut self.scratch);
        if self.copies.is_copy(row.position, computed) {
            return;
        }
        if self.setting.scope.is_everything() {
            self.envelopes.row(row, computed, &mut self.differences);
        }
        if !self.setting.is_meant(row) {
            return;
        }
        if computed != stored {
            let (position, tenant) = (row.position, row.tenant);
            self.differences.push(|| Difference::Checksum { position, tenant: tenant.to_owned(), stored, computed });
        }
        if self.is_beyond("row", row.position) {
            return;
        }
        if row.verdict == Verdict::Accepted {
            self.rollups.add_row(row);
        }
        if row.position.offset < self.setting.totals_cursor(row.position.partition) {
            self.counts.entry(row.position.partition).or_default().count(row.verdict);
        }
        if self.setting.is_counted(row) {
            self.counted_row(row);
        }
    }

    fn counted_row(&mut self, row: &RawRow<'_>) {
        let belongs_to = partition_of(row.tenant, self.setting.installation.partitions);
        let (position, tenant) = (row.position, row.tenant);
        if belongs_to != position.partition {
            self.differences.push(|| Difference::WrongPartition { position, tenant: tenant.to_owned(), belongs_to });
        }
        let hasher = &self.setting.hasher;
        let fingerprint = row.fingerprint(hasher);
        let dimensions = self.dimensions.of(row.dimensions, hasher);
        for (column, is_wrong) in [("id", fingerprint.is_none()), ("dimensions", dimensions.is_none())] {
            if is_wrong {
                self.differences.push(|| Difference::Unhashable { position, tenant: tenant.to_owned(), column });
            }
        }
        let hash = fingerprint.zip(dimensions).map(|(key, pairs)| row.record_hash(hasher, key, pairs.hash));
        let unique = dimensions.and_then(|pairs| pairs.unique);
        let unique = unique.or_else(|| unique_hash(hasher, std::iter::empty(), row.subject)).unwrap_or(0);
        self.totals.add(row, hash, unique, &mut self.differences);
        if let Some(fingerprint) = fingerprint {
            self.keys.add(fingerprint);
        }
    }

    fn unreadable(&mut self, table: &'static str, key: &str, problem: &str) {
        let (key, problem) = (key.to_owned(), problem.to_owned());
        self.differences.push(|| Difference::Unreadable { table, key, problem });
    }
}

impl RawVisitor for FullWalk<'_, '_> {
    fn cursors(&mut self, cursors: &[RawCursor]) -> ControlFlow<()> {
        self.raw_cursors = cursors.to_vec();
        self.behind = lags(self.setting.totals_cursors, cursors);
        if self.behind.is_empty() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn row(&mut self, row: Scanned<'_, RawRow<'_>>, stored_hash: u64) {
        self.progress.row();
        match row {
            Scanned::Row(row) => self.checked_row(row, stored_hash),
            Scanned::Unreadable { table, key, problem } => self.unreadable(table, key, problem),
        }
    }

    fn rejected(&mut self, envelope: Scanned<'_, RejectedEnvelope>) {
        match envelope {
            Scanned::Row(envelope) => {
                self.rejected += 1;
                let RejectedEnvelope { partition, offset, verdict, .. } = *envelope;
                let position = Position { partition, offset, index: 0 };
                if !self.is_beyond("rejected envelope", position) && offset < self.setting.totals_cursor(partition) {
                    self.counts.entry(partition).or_default().count(verdict);
                }
            }
            Scanned::Unreadable { table, key, problem } => self.unreadable(table, key, problem),
        }
    }

    fn rollup(&mut self, rollup: Scanned<'_, RollupRow<'_>>) {
        match rollup {
            Scanned::Row(row) if self.setting.scope.tenant.as_deref().is_none_or(|tenant| tenant == row.tenant) => {
                self.rollups.add_rollup(row, &mut self.differences);
            }
            Scanned::Row(_) => {}
            Scanned::Unreadable { table, key, problem } => self.unreadable(table, key, problem),
        }
    }
}

/// A later walk: only the keys.
pub(super) struct KeyWalk<'a, 'p> {
    pub(super) setting: &'a Setting<'a>,
    pub(super) progress: Reporter<'p>,
    pub(super) task: KeyTask,
    pub(super) copies: Copies,
}

/// What a later walk looks for.
pub(super) enum KeyTask {
    /// Repeated keys in another part of the fingerprints.
    Repeated(KeyPass),
    /// The rows of keys that are known to be repeated.
    Positions(KeySearch),
}

impl KeyWalk<'_, '_> {
    fn key(&mut self, row: &RawRow<'_>, fingerprint: Fingerprint) {
        match &mut self.task {
            KeyTask::Repeated(pass) => pass.add(fingerprint),
            KeyTask::Positions(search) => search.add(row, fingerprint),
        }
    }
}

impl RawVisitor for KeyWalk<'_, '_> {
    fn cursors(&mut self, _: &[RawCursor]) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn row(&mut self, row: Scanned<'_, RawRow<'_>>, stored_hash: u64) {
        self.progress.row();
        if let Scanned::Row(row) = row
            && !self.copies.is_copy(row.position, stored_hash)
            && self.setting.is_counted(row)
            && let Some(fingerprint) = row.fingerprint(&self.setting.hasher)
        {
            self.key(row, fingerprint);
        }
    }

    fn rejected(&mut self, _: Scanned<'_, RejectedEnvelope>) {}

    fn rollup(&mut self, _: Scanned<'_, RollupRow<'_>>) {}
}
