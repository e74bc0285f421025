//! The fixed head of every envelope and its checksum.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::decode::DecodeError;
use crate::limits::{ENVELOPE_BYTES_MAX, ENVELOPE_RECORDS_MAX};

/// Bytes before the body.
pub const FRAME_BYTES: usize = 50;
/// The frame version that this build writes, and the only one it reads.
pub const FRAME_VERSION: u8 = 1;

const MAGIC: [u8; 4] = *b"ODOM";
const CODEC_BINCODE_2: u8 = 1;
const CHECKSUM_AT: usize = 42;

/// Whose records an envelope holds, and where they stand in that source's sequence.
///
/// Every record of the envelope takes one sequence. A source that lets the emitter
/// make its ids must do so for all of its records: a caller-made id is remembered by
/// itself and leaves its sequence open, which in the end counts as a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Origin {
    /// The emitter's random identity.
    pub source: u128,
    /// Raised when the emitter restarts with its state.
    pub epoch: u32,
    /// Sequence of the first record within (source, epoch, partition).
    pub first_sequence: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Usage = 0,
    Control = 1,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) origin: Origin,
    pub(super) count: usize,
}

/// Puts the frame around `body`.
pub(super) fn seal(head: Head, body: &[u8]) -> Vec<u8> {
    let count = u16::try_from(head.count).unwrap_or(u16::MAX);
    let body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
    assert!(
        (1..=ENVELOPE_RECORDS_MAX).contains(&head.count) && FRAME_BYTES + body.len() <= ENVELOPE_BYTES_MAX,
        "an envelope of {} records and {} body bytes is over the limits",
        head.count,
        body.len()
    );
    let mut out = Vec::with_capacity(FRAME_BYTES + body.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[FRAME_VERSION, CODEC_BINCODE_2, head.kind as u8, 0]);
    out.extend_from_slice(&head.origin.source.to_le_bytes());
    out.extend_from_slice(&head.origin.epoch.to_le_bytes());
    out.extend_from_slice(&head.origin.first_sequence.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&body_bytes.to_le_bytes());
    let checksum = checksum(&out, body);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(body);
    out
}

/// Checks the frame and returns its head and body.
pub(super) fn open(bytes: &[u8]) -> Result<(Head, &[u8]), DecodeError> {
    if bytes.len() > ENVELOPE_BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: bytes.len() });
    }
    if !bytes.starts_with(&MAGIC) {
        return Err(DecodeError::Magic);
    }
    let Some((head, body)) = bytes.split_at_checked(FRAME_BYTES) else {
        return Err(DecodeError::Truncated);
    };
    if head[4] != FRAME_VERSION {
        return Err(DecodeError::Version { found: head[4] });
    }
    if head[5] != CODEC_BINCODE_2 {
        return Err(DecodeError::Codec { found: head[5] });
    }
    let body_bytes = u32::from_le_bytes(field(head, 38)) as usize;
    match body.len() {
        found if found < body_bytes => return Err(DecodeError::Truncated),
        found if found > body_bytes => return Err(DecodeError::TrailingBytes),
        _ => {}
    }
    if u64::from_le_bytes(field(head, CHECKSUM_AT)) != checksum(&head[..CHECKSUM_AT], body) {
        return Err(DecodeError::Checksum);
    }
    let kind = match (head[6], head[7]) {
        (0, 0) => Kind::Usage,
        (1, 0) => Kind::Control,
        _ => return Err(DecodeError::Body("unknown kind or reserved byte in use")),
    };
    let count = usize::from(u16::from_le_bytes(field(head, 36)));
    if !(1..=ENVELOPE_RECORDS_MAX).contains(&count) {
        return Err(DecodeError::Body("record count is outside 1..=512"));
    }
    let origin = Origin {
        source: u128::from_le_bytes(field(head, 8)),
        epoch: u32::from_le_bytes(field(head, 24)),
        first_sequence: u64::from_le_bytes(field(head, 28)),
    };
    if origin.first_sequence.checked_add(count as u64).is_none() {
        return Err(DecodeError::Body("sequence runs past the end of 64 bits"));
    }
    Ok((Head { kind, origin, count }, body))
}

fn checksum(head: &[u8], body: &[u8]) -> u64 {
    // One pass over the body, seeded by what stands before it.
    xxh3_64_with_seed(body, xxh3_64(head))
}

/// The `N` bytes at `at`; the caller has checked that the head is whole.
fn field<const N: usize>(head: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&head[at..at + N]);
    bytes
}
