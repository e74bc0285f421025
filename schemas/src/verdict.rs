//! What is decided about every record, its packed form, and the conservation law.

use bincode::{Decode, Encode};

use crate::envelope::DecodeError;

/// The decision about one record. Every record gets exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Counted.
    Accepted,
    /// The same key with the same content was decided before.
    Duplicate,
    /// The same key with other content was decided before.
    Conflict,
    /// Its period is closed.
    Late,
    /// It breaks a rule.
    Rejected(RejectReason),
}

/// Which rule a rejected record breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RejectReason {
    /// The definitions in force have no such meter.
    UnknownMeter = 16,
    /// The tenant belongs to another partition.
    WrongPartition = 17,
    /// The event time is outside the years 2000 to 2199.
    TimeOutOfRange = 18,
    /// The event time lies further ahead of log time than definitions allow.
    TimeInFuture = 19,
    /// An emitter's epoch is older than the newest seen.
    StaleEpoch = 20,
    /// An emitter's sequence runs further ahead of a gap than can be remembered.
    SequenceTooFar = 21,
    /// The partition remembers as many emitter sources as it can.
    TooManySources = 22,
    /// A `unique_count` record with neither the dimension `value` nor a subject.
    MissingUniqueValue = 23,
    /// Not an envelope at all.
    NotAnEnvelope = 32,
    /// An envelope of a frame version or codec that this build does not know.
    UnknownVersion = 33,
    /// An envelope that ends early or goes on too long.
    Truncated = 34,
    /// An envelope whose checksum does not match.
    ChecksumMismatch = 35,
    /// An envelope whose body breaks the format's rules.
    MalformedBody = 36,
    /// More bytes than an envelope may have.
    EnvelopeTooLarge = 37,
}

impl RejectReason {
    /// All reasons.
    pub const ALL: [Self; 14] = [
        Self::UnknownMeter,
        Self::WrongPartition,
        Self::TimeOutOfRange,
        Self::TimeInFuture,
        Self::StaleEpoch,
        Self::SequenceTooFar,
        Self::TooManySources,
        Self::MissingUniqueValue,
        Self::NotAnEnvelope,
        Self::UnknownVersion,
        Self::Truncated,
        Self::ChecksumMismatch,
        Self::MalformedBody,
        Self::EnvelopeTooLarge,
    ];

    /// The name in books, answers and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownMeter => "unknown_meter",
            Self::WrongPartition => "wrong_partition",
            Self::TimeOutOfRange => "time_out_of_range",
            Self::TimeInFuture => "time_in_future",
            Self::StaleEpoch => "stale_epoch",
            Self::SequenceTooFar => "sequence_too_far",
            Self::TooManySources => "too_many_sources",
            Self::MissingUniqueValue => "missing_unique_value",
            Self::NotAnEnvelope => "not_an_envelope",
            Self::UnknownVersion => "unknown_version",
            Self::Truncated => "truncated",
            Self::ChecksumMismatch => "checksum_mismatch",
            Self::MalformedBody => "malformed_body",
            Self::EnvelopeTooLarge => "envelope_too_large",
        }
    }
}

impl From<DecodeError> for RejectReason {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::TooLarge { .. } => Self::EnvelopeTooLarge,
            DecodeError::Magic => Self::NotAnEnvelope,
            DecodeError::Version { .. } | DecodeError::Codec { .. } => Self::UnknownVersion,
            DecodeError::Truncated | DecodeError::TrailingBytes => Self::Truncated,
            DecodeError::Checksum => Self::ChecksumMismatch,
            DecodeError::Body(_) => Self::MalformedBody,
        }
    }
}

impl Verdict {
    /// The one-byte form in exceptions.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Accepted => 0,
            Self::Duplicate => 1,
            Self::Conflict => 2,
            Self::Late => 3,
            Self::Rejected(reason) => reason as u8,
        }
    }

    /// The verdict of a code; `None` for a code that no build has written.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Accepted),
            1 => Some(Self::Duplicate),
            2 => Some(Self::Conflict),
            3 => Some(Self::Late),
            _ => RejectReason::ALL.into_iter().find(|r| *r as u8 == code).map(Self::Rejected),
        }
    }

    /// `accepted`, `duplicate`, `conflict`, `late` or `rejected`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Conflict => "conflict",
            Self::Late => "late",
            Self::Rejected(_) => "rejected",
        }
    }

    /// The name of the broken rule, for rejected records.
    #[must_use]
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Rejected(reason) => Some(reason.name()),
            _ => None,
        }
    }

    /// The verdict that books and answers write as `name` and `reason`.
    #[must_use]
    pub fn from_name(name: &str, reason: Option<&str>) -> Option<Self> {
        match (name, reason) {
            ("accepted", None) => Some(Self::Accepted),
            ("duplicate", None) => Some(Self::Duplicate),
            ("conflict", None) => Some(Self::Conflict),
            ("late", None) => Some(Self::Late),
            ("rejected", Some(reason)) => {
                RejectReason::ALL.into_iter().find(|known| known.name() == reason).map(Self::Rejected)
            }
            _ => None,
        }
    }

    /// Whether the record's key is remembered, so that another one is a duplicate
    /// or a conflict.
    #[must_use]
    pub const fn is_remembered(self) -> bool {
        matches!(self, Self::Accepted | Self::Late)
    }
}

/// Records by verdict. Conservation law: `received` is the sum of all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub struct VerdictCounts {
    /// Records that the log delivered; an undecodable envelope is one.
    pub received: u64,
    /// Counted.
    pub accepted: u64,
    /// Known key, same content.
    pub duplicate: u64,
    /// Known key, other content.
    pub conflict: u64,
    /// Period closed.
    pub late: u64,
    /// Rule broken.
    pub rejected: u64,
}

impl VerdictCounts {
    /// Counts one received record and its verdict.
    #[inline]
    pub fn count(&mut self, verdict: Verdict) {
        self.received += 1;
        match verdict {
            Verdict::Accepted => self.accepted += 1,
            Verdict::Duplicate => self.duplicate += 1,
            Verdict::Conflict => self.conflict += 1,
            Verdict::Late => self.late += 1,
            Verdict::Rejected(_) => self.rejected += 1,
        }
    }

    /// Adds another partition's counts.
    pub fn merge(&mut self, other: &Self) {
        self.received += other.received;
        self.accepted += other.accepted;
        self.duplicate += other.duplicate;
        self.conflict += other.conflict;
        self.late += other.late;
        self.rejected += other.rejected;
    }

    /// Whether the conservation law holds.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        self.received == self.accepted + self.duplicate + self.conflict + self.late + self.rejected
    }

    /// Counts by verdict name, in the law's order, without `received`.
    #[must_use]
    pub fn by_name(&self) -> [(&'static str, u64); 5] {
        [
            ("accepted", self.accepted),
            ("duplicate", self.duplicate),
            ("conflict", self.conflict),
            ("late", self.late),
            ("rejected", self.rejected),
        ]
    }
}

/// Packs the verdicts of one envelope: runs of (code, length as little-endian u16).
#[must_use]
pub fn pack(verdicts: &[Verdict]) -> Vec<u8> {
    let mut packed = Vec::new();
    for run in verdicts.chunk_by(|a, b| a == b) {
        let length = u16::try_from(run.len()).expect("an envelope holds at most 512 records");
        packed.push(run[0].code());
        packed.extend_from_slice(&length.to_le_bytes());
    }
    packed
}

/// Unpacks what [`pack`] wrote; `None` when the bytes are no such thing.
#[must_use]
pub fn unpack(packed: &[u8]) -> Option<Vec<Verdict>> {
    let (runs, []) = packed.as_chunks::<3>() else { return None };
    let mut verdicts = Vec::new();
    for [code, low, high] in runs {
        let verdict = Verdict::from_code(*code)?;
        verdicts.extend(std::iter::repeat_n(verdict, usize::from(u16::from_le_bytes([*low, *high]))));
    }
    Some(verdicts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn codes_are_distinct_and_read_back() {
        for code in 0..=u8::MAX {
            if let Some(verdict) = Verdict::from_code(code) {
                assert_eq!(verdict.code(), code);
                assert_eq!(Verdict::from_name(verdict.name(), verdict.reason()), Some(verdict));
            }
        }
        for reason in RejectReason::ALL {
            assert_eq!(Verdict::from_code(reason as u8), Some(Verdict::Rejected(reason)));
        }
    }

    #[test]
    fn a_name_without_its_reason_is_no_verdict() {
        for (name, reason) in [("rejected", None), ("rejected", Some("x")), ("late", Some("x")), ("x", None)] {
            assert_eq!(Verdict::from_name(name, reason), None);
        }
    }

    #[test]
    fn the_law_holds_for_whatever_was_counted_and_not_for_a_lost_record() {
        let mut counts = VerdictCounts::default();
        for code in 0..=u8::MAX {
            Verdict::from_code(code).into_iter().for_each(|v| counts.count(v));
        }
        assert!(counts.is_conserved());
        counts.late -= 1;
        assert!(!counts.is_conserved());
    }

    proptest! {
        #[test]
        fn verdicts_survive_packing(codes in prop::collection::vec(0_u8..40, 0..512)) {
            let verdicts: Vec<Verdict> = codes.into_iter().filter_map(Verdict::from_code).collect();
            prop_assert_eq!(unpack(&pack(&verdicts)), Some(verdicts));
        }

        #[test]
        fn any_bytes_unpack_or_do_not(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = unpack(&bytes);
        }
    }
}
