//! Every limit of the wire and of the names on it, each with its reason, and the
//! relations between them checked at compile time.

/// Longest tenant id in bytes. Long enough for a URN, short enough to index.
pub const TENANT_BYTES_MAX: usize = 128;
/// Longest source in bytes. CloudEvents sources are URI references.
pub const SOURCE_BYTES_MAX: usize = 256;
/// Longest record id in bytes.
pub const ID_BYTES_MAX: usize = 256;
/// Longest meter name in bytes.
pub const METER_BYTES_MAX: usize = 64;
/// Longest subject (user, agent, API key) in bytes.
pub const SUBJECT_BYTES_MAX: usize = 256;
/// Longest reservation id in bytes.
pub const RESERVATION_BYTES_MAX: usize = 128;
/// Longest dimension name in bytes.
pub const DIMENSION_NAME_BYTES_MAX: usize = 64;
/// Longest dimension value in bytes.
pub const DIMENSION_VALUE_BYTES_MAX: usize = 256;
/// Dimensions that one record may carry. More would make rollups explode.
pub const DIMENSIONS_MAX: usize = 16;

/// Records in one envelope. Amortises the per-envelope cost to under a nanosecond
/// a record, and lets an index fit into nine bits.
pub const ENVELOPE_RECORDS_MAX: usize = 512;
/// Bytes of one envelope, frame included. Far below every broker's message limit.
pub const ENVELOPE_BYTES_MAX: usize = 64 * 1024;
/// What decoding one envelope may claim in memory. bincode counts in-memory sizes,
/// which exceed the wire's: string references and record structs are the bulk.
pub const DECODE_BYTES_MAX: usize = 512 * 1024;
/// Strings in one envelope's table: worst case every record brings all of its own.
pub const ENVELOPE_STRINGS_MAX: usize = u16::MAX as usize;

/// Most partitions of one log. A position packs the partition into ten bits.
pub const PARTITIONS_MAX: u32 = 1024;

/// Earliest event time: 2000-01-01T00:00:00Z in Unix milliseconds. Anything before
/// it is a clock or unit error (seconds read as milliseconds land in 1970).
pub const TIME_MS_MIN: i64 = 946_684_800_000;
/// Latest event time (exclusive): 2200-01-01T00:00:00Z in Unix milliseconds.
pub const TIME_MS_MAX: i64 = 7_258_118_400_000;

/// Largest encoded size of one record with all of its strings new to the table.
/// The constant 64 covers the scope entry, length prefixes of the seven parts and
/// the varint fields.
pub const RECORD_BYTES_MAX: usize = TENANT_BYTES_MAX
    + SOURCE_BYTES_MAX
    + ID_BYTES_MAX
    + METER_BYTES_MAX
    + SUBJECT_BYTES_MAX
    + RESERVATION_BYTES_MAX
    + DIMENSIONS_MAX * (DIMENSION_NAME_BYTES_MAX + DIMENSION_VALUE_BYTES_MAX + 12)
    + 64;

const _: () = assert!(RECORD_BYTES_MAX * 4 < ENVELOPE_BYTES_MAX);
const _: () = assert!(DECODE_BYTES_MAX > ENVELOPE_BYTES_MAX);
const _: () = assert!(ENVELOPE_RECORDS_MAX <= 1 << 9);
const _: () = assert!(TIME_MS_MIN < TIME_MS_MAX);
