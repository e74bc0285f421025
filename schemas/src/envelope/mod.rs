//! The log's message: one frame around up to 512 records of one partition, or
//! around one control record.
//!
//! [`EnvelopeBuilder`] writes envelopes, [`decode()`] reads them, borrowing from the
//! bytes. [`decode()`] accepts any bytes: it answers with an error that names what is
//! wrong, never panics, and never claims more memory than
//! [`DECODE_BYTES_MAX`](crate::limits::DECODE_BYTES_MAX).
//!
//! | bytes | field |
//! | --- | --- |
//! | 0..4 | magic `ODOM` |
//! | 4 | frame version, 1 |
//! | 5 | codec of the body: 1 = bincode 2, standard configuration |
//! | 6 | kind: 0 = usage, 1 = control |
//! | 7 | reserved, 0 |
//! | 8..24 | source: the emitter's random identity |
//! | 24..28 | epoch of the source |
//! | 28..36 | sequence of the first record within (source, epoch, partition) |
//! | 36..38 | record count, 1 to 512 |
//! | 38..42 | body length in bytes |
//! | 42..50 | XXH3-64 of the body, seeded with the XXH3-64 of bytes 0..42 |
//! | 50.. | body |
//!
//! All integers are little-endian.

mod build;
mod decode;
mod frame;
mod lists;
mod plain;
mod read;
mod sheet;
mod wire;
mod write;

pub use build::{EnvelopeBuilder, EnvelopeFull, encode_control};
pub use decode::{DecodeError, Decoded, RecordRef, Scope, Usage, decode, is_quota};
pub use frame::{FRAME_BYTES, FRAME_VERSION, Origin};
pub use sheet::{QuotaSheet, encode_operation};

#[cfg(test)]
mod tests;
