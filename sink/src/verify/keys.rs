//! Keys of accepted rows in, keys that were accepted more than once out. Memory is
//! bounded: more keys than fit are looked at in several passes, each over its own part
//! of the fingerprints.

use std::collections::HashMap;

use odometer_schemas::digest::Fingerprint;
use odometer_schemas::log::Position;
use odometer_schemas::row::RawRow;

use super::difference::{DIFFERENCES_KEPT_MAX, Difference, Differences};

/// Fingerprints of one pass: 512 MiB of them.
pub(super) const FINGERPRINTS_PER_PASS_MAX: u64 = 1 << 25;

/// One pass: collects the fingerprints of its part.
#[derive(Debug)]
pub(super) struct KeyPass {
    part: u64,
    parts: u64,
    fingerprints: Vec<u128>,
}

impl KeyPass {
    pub(super) fn new(part: u64, parts: u64) -> Self {
        Self { part, parts, fingerprints: Vec::new() }
    }

    pub(super) fn add(&mut self, fingerprint: Fingerprint) {
        // The high half, as a fraction of its range, times the number of parts.
        let part = ((fingerprint.0 >> 64) * u128::from(self.parts)) >> 64;
        if part == u128::from(self.part) {
            self.fingerprints.push(fingerprint.0);
        }
    }

    /// The fingerprints that came more than once.
    pub(super) fn repeated(mut self) -> Vec<u128> {
        self.fingerprints.sort_unstable();
        let runs = self.fingerprints.chunk_by(|a, b| a == b).filter(|run| run.len() > 1);
        runs.map(|run| run[0]).collect()
    }
}

/// Finds the rows of repeated keys, to name them.
#[derive(Debug)]
pub(super) struct KeySearch {
    /// By fingerprint: the key as text, and where it stands.
    found: HashMap<u128, (String, Vec<Position>)>,
    not_searched: u64,
}

impl KeySearch {
    /// `None` when nothing was repeated.
    pub(super) fn new(mut repeated: Vec<u128>) -> Option<Self> {
        let not_searched = repeated.len().saturating_sub(DIFFERENCES_KEPT_MAX) as u64;
        repeated.truncate(DIFFERENCES_KEPT_MAX);
        let found: HashMap<_, _> = repeated.into_iter().map(|key| (key, (String::new(), Vec::new()))).collect();
        (!found.is_empty()).then_some(Self { found, not_searched })
    }

    pub(super) fn add(&mut self, row: &RawRow<'_>, fingerprint: Fingerprint) {
        if let Some((key, positions)) = self.found.get_mut(&fingerprint.0) {
            *key = format!("({}, {}, {}, {})", row.tenant, row.source, row.id, row.meter);
            positions.push(row.position);
        }
    }

    pub(super) fn finish(self, differences: &mut Differences) {
        let mut found: Vec<(String, Vec<Position>)> = self.found.into_values().collect();
        found.sort_unstable_by(|a, b| a.1.cmp(&b.1));
        for (key, positions) in found {
            differences.push(|| Difference::KeyTwice { key, positions });
        }
        differences.count += self.not_searched;
    }
}
