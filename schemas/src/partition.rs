//! One tenant, one partition: the assignment every producer must agree on.

use crate::limits::PARTITIONS_MAX;

/// The partition that `tenant`'s records belong to, out of `partitions`.
///
/// Java's `murmur2` as Kafka's default partitioner computes it for a key of the
/// tenant's UTF-8 bytes: `(murmur2(key) & 0x7fffffff) % partitions`.
///
/// # Panics
/// When `partitions` is zero or above [`PARTITIONS_MAX`]: that is our own bug, the
/// configuration is checked long before.
#[must_use]
pub fn partition_of(tenant: &str, partitions: u32) -> u32 {
    assert!((1..=PARTITIONS_MAX).contains(&partitions), "partition count {partitions} is outside 1..={PARTITIONS_MAX}");
    (murmur2(tenant.as_bytes()) & 0x7fff_ffff) % partitions
}

/// Kafka's `org.apache.kafka.common.utils.Utils.murmur2`, as an unsigned word.
#[must_use]
pub fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // Kafka's keys are far shorter than 4 GiB, and so are ours.
    #[expect(clippy::cast_possible_truncation, reason = "the algorithm is defined on 32-bit lengths")]
    let mut h = SEED ^ bytes.len() as u32;
    let (words, tail) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values from Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_agrees_with_java() {
        let cases: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, expected) in cases {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), expected, "{key}");
        }
    }

    #[test]
    fn a_partition_is_always_in_range() {
        for partitions in [1, 2, 3, 7, 64, PARTITIONS_MAX] {
            for i in 0..1000 {
                assert!(partition_of(&format!("t{i}"), partitions) < partitions);
            }
        }
    }
}
