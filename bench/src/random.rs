//! Numbers that look random and are the same in every run.

use odometer_schemas::record::IdRef;

/// SplitMix64 (Steele, Lea, Flood 2014): distinct outputs, no dependency.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The sequence that `seed` begins.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number below `limit`, which must not be zero. Small limits only: the
    /// remainder's bias is then far below anything that a benchmark shows.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    /// The next fraction: 0 or more, below 1.
    pub fn fraction(&mut self) -> f64 {
        // As many bits as a double has.
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The next UUID.
    pub fn uuid(&mut self) -> String {
        let id = (u128::from(self.number()) << 64) | u128::from(self.number());
        IdRef::Uuid(id).to_string()
    }
}
