//! Keys of accepted rows in, keys that were accepted more than once out. Memory is
//! bounded: more keys than fit are looked at in several passes, each over its own part
//! of the fingerprints.

use std::collections::HashMap;

use odometer_schemas::digest::Fingerprint;
use odometer_schemas::log::Position;
use odometer_schemas::row::RawRow;

use super::difference::{DIFFERENCES_KEPT_MAX, Difference, Differences};

/// Fingerprints of one pass: 512 MiB of them.
const FINGERPRINTS_PER_PASS_MAX: usize = 1 << 25;

/// One pass: collects the fingerprints of its part.
#[derive(Debug)]
pub(super) struct KeyPass {
    part: u64,
    parts: u64,
    fingerprints: Vec<u128>,
    most: usize,
}

impl KeyPass {
    /// The first pass. It halves its part whenever more comes than fits, so that the
    /// number of parts follows from what is there.
    pub(super) fn first() -> Self {
        Self { part: 0, parts: 1, fingerprints: Vec::new(), most: FINGERPRINTS_PER_PASS_MAX }
    }

    /// A later pass, over one of as many parts as the first one ended with.
    pub(super) fn later(part: u64, parts: u64) -> Self {
        Self { part, parts, fingerprints: Vec::new(), most: usize::MAX }
    }

    /// How many parts there are.
    pub(super) fn parts(&self) -> u64 {
        self.parts
    }

    pub(super) fn add(&mut self, fingerprint: Fingerprint) {
        if !is_in_part(fingerprint.0, self.part, self.parts) {
            return;
        }
        if self.fingerprints.len() >= self.most {
            self.parts *= 2;
            let (part, parts) = (self.part, self.parts);
            self.fingerprints.retain(|kept| is_in_part(*kept, part, parts));
            return self.add(fingerprint);
        }
        self.fingerprints.push(fingerprint.0);
    }

    /// The fingerprints that came more than once.
    pub(super) fn repeated(mut self) -> Vec<u128> {
        self.fingerprints.sort_unstable();
        let runs = self.fingerprints.chunk_by(|a, b| a == b).filter(|run| run.len() > 1);
        runs.map(|run| run[0]).collect()
    }
}

/// The high half, as a fraction of its range, times the number of parts. Part 0 of
/// twice as many parts lies within part 0.
fn is_in_part(fingerprint: u128, part: u64, parts: u64) -> bool {
    ((fingerprint >> 64) * u128::from(parts)) >> 64 == u128::from(part)
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

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [u128; 6] = [0, 1, u128::MAX / 3, u128::MAX / 2, u128::MAX - 1, u128::MAX];

    fn feed(mut pass: KeyPass) -> KeyPass {
        KEYS.iter().chain(&KEYS).for_each(|key| pass.add(Fingerprint(*key)));
        pass.add(Fingerprint(77 << 100));
        pass
    }

    #[test]
    fn the_parts_of_the_keys_cover_every_key_once() {
        for most in [4, 5, 8, 100] {
            let first = feed(KeyPass { most, ..KeyPass::first() });
            let parts = first.parts();
            assert!(first.fingerprints.len() <= most && (most == 100) == (parts == 1), "{most}: {parts}");
            let later = (1..parts).flat_map(|part| feed(KeyPass::later(part, parts)).repeated());
            let mut repeated: Vec<u128> = later.collect();
            repeated.extend(first.repeated());
            repeated.sort_unstable();
            assert_eq!(repeated, KEYS, "{most}");
        }
    }
}
