//! Keyed hashes: fingerprints of keys, hashes of whole records, and the
//! order-free digest that any book can recompute.
//!
//! XXH3 (128 bits, seeded) over fixed-width parts, so that parts are joined
//! without ambiguity. The algorithm is frozen upstream; golden values below pin it.

use std::fmt;

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

use crate::record::IdRef;

/// The sum modulo 2^128 of the hashes of accepted records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Digest(pub u128);

impl Digest {
    /// Adds one accepted record.
    pub fn add(&mut self, record: RecordHash) {
        self.0 = self.0.wrapping_add(record.0);
    }

    /// Adds all records of another digest.
    pub fn merge(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }

    /// Reads the 32 hexadecimal digits that [`Digest`] displays.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok().map(Self))?
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The 128-bit fingerprint of a record's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub u128);

/// The 128-bit hash of a record: its key and its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordHash(pub u128);

impl RecordHash {
    /// What is remembered beside a fingerprint to tell a conflict from a duplicate.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the tag is the low half of the hash")]
    pub const fn tag(self) -> u64 {
        self.0 as u64
    }
}

/// The hash of one text (tenant, source, meter, subject, dimension …).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct TextHash(pub u128);

/// The hash of a key without its id: (tenant, source, meter).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScopeHash(pub u128);

/// What a record's hash covers besides its key.
#[derive(Clone, Copy, Debug)]
pub struct Content {
    /// Base units.
    pub quantity: i64,
    /// The event time as given; `None` when the log's time stood in for it, so that
    /// a retry is the same record.
    pub time_ms: Option<i64>,
    /// Hash of the subject; zero when there is none.
    pub subject: TextHash,
    /// [`Hasher::dimensions`]; zero when there are none.
    pub dimensions: TextHash,
    /// Hash of the reservation id; zero when there is none.
    pub reservation: TextHash,
}

/// Makes every hash of one installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hasher {
    seed: u64,
}

/// Stands for "no time given"; outside every valid event time.
const TIME_ABSENT: i64 = i64::MIN;

impl Hasher {
    /// A hasher keyed by the installation's seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The hash of one text.
    #[inline]
    #[must_use]
    pub fn text(&self, text: &str) -> TextHash {
        TextHash(xxh3_128_with_seed(text.as_bytes(), self.seed))
    }

    /// The hash of (tenant, source, meter).
    #[inline]
    #[must_use]
    pub fn scope(&self, tenant: TextHash, source: TextHash, meter: TextHash) -> ScopeHash {
        ScopeHash(words(&[tenant.0, source.0, meter.0], self.seed))
    }

    /// The fingerprint of a key.
    #[inline]
    #[must_use]
    pub fn fingerprint(&self, scope: ScopeHash, id: &IdRef<'_>) -> Fingerprint {
        // Each form of an id has a seed or a width of its own: equal bytes differ.
        Fingerprint(match id {
            IdRef::Text(text) => {
                let text = xxh3_128_with_seed(text.as_bytes(), self.seed ^ 1);
                words(&[scope.0, text], self.seed ^ 1)
            }
            IdRef::Uuid(uuid) => words(&[scope.0, *uuid], self.seed ^ 2),
            IdRef::Emitted(id) => {
                let tail = (u128::from(id.epoch) << 64) | u128::from(id.sequence);
                words(&[scope.0, id.source, tail], self.seed)
            }
        })
    }

    /// The hash of a whole record.
    #[inline]
    #[must_use]
    pub fn record(&self, fingerprint: Fingerprint, content: &Content) -> RecordHash {
        let quantity = u128::from(content.quantity.cast_unsigned());
        let time = u128::from(content.time_ms.unwrap_or(TIME_ABSENT).cast_unsigned());
        let parts =
            [fingerprint.0, quantity | (time << 64), content.subject.0, content.dimensions.0, content.reservation.0];
        RecordHash(words(&parts, self.seed))
    }

    /// The hash of a set of dimensions in ascending order of names; zero for none.
    pub fn dimensions<'a>(&self, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> TextHash {
        let mut hash = 0;
        for (name, value) in pairs {
            hash = words(&[hash, self.text(name).0, self.text(value).0], self.seed);
        }
        TextHash(hash)
    }

    /// A 64-bit hash of arbitrary bytes, for row checksums and sketches.
    #[must_use]
    pub fn bytes64(&self, bytes: &[u8]) -> u64 {
        xxh3_64_with_seed(bytes, self.seed)
    }
}

/// The hash of fixed-width words.
#[inline]
fn words<const N: usize>(words: &[u128; N], seed: u64) -> u128 {
    let mut bytes = [[0_u8; 16]; N];
    for (slot, word) in bytes.iter_mut().zip(words) {
        *slot = word.to_le_bytes();
    }
    xxh3_128_with_seed(bytes.as_flattened(), seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASHER: Hasher = Hasher::new(7);

    fn fingerprint(tenant: &str, source: &str, id: &str, meter: &str) -> Fingerprint {
        let scope = HASHER.scope(HASHER.text(tenant), HASHER.text(source), HASHER.text(meter));
        HASHER.fingerprint(scope, &IdRef::of_text(id))
    }

    #[test]
    fn parts_are_joined_without_ambiguity() {
        let keys = [
            ("ab", "c", "d", "e"),
            ("a", "bc", "d", "e"),
            ("a", "b", "cd", "e"),
            ("a", "b", "c", "de"),
            ("d", "c", "ab", "e"),
        ];
        for (i, a) in keys.iter().enumerate() {
            for b in &keys[i + 1..] {
                assert_ne!(fingerprint(a.0, a.1, a.2, a.3), fingerprint(b.0, b.1, b.2, b.3));
            }
        }
    }

    #[test]
    fn hashes_are_pinned() {
        let key = fingerprint("acme", "worker", "1", "api_call");
        let content = Content {
            quantity: 1,
            time_ms: Some(1_700_000_000_000),
            subject: TextHash::default(),
            dimensions: HASHER.dimensions([("model", "m")].into_iter()),
            reservation: TextHash::default(),
        };
        let hash = HASHER.record(key, &content);
        assert_eq!(format!("{:032x} {:032x}", key.0, hash.0), GOLDEN);
        assert_ne!(HASHER.record(key, &Content { time_ms: None, ..content }), hash);
        assert_ne!(HASHER.record(key, &Content { quantity: 2, ..content }), hash);
    }

    const GOLDEN: &str = "5da35dc35653f33f20d84cc2798dbde7 955113d3192fad1170cd0615adc48efd";

    #[test]
    fn a_digest_is_order_free_and_survives_its_text() {
        let (a, b) = (RecordHash(u128::MAX), RecordHash(12));
        let mut forward = Digest::default();
        forward.add(a);
        forward.add(b);
        let mut backward = Digest::default();
        backward.add(b);
        backward.add(a);
        assert_eq!(forward, backward);
        assert_eq!(Digest::parse(&forward.to_string()), Some(forward));
    }
}
