//! The gateway's limits, each with its reason.

use std::time::Duration;

/// Largest body as it arrives, in bytes. A hundred thousand plain records compress
/// far below it, and a request's memory stays small.
pub const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest body after inflating, in bytes. Eight times the compressed limit: real
/// usage compresses that well, and a bomb is stopped here.
pub const INFLATED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most events of one request, and most records that they may make: the answer
/// names each event, so it grows with them.
pub const RECORDS_MAX: usize = 100_000;
/// Requests being worked on at once. With [`BODY_BYTES_MAX`] it bounds what waiting
/// bodies can hold (2 GiB if every one is the largest); beyond it a client is told to
/// come back rather than being queued.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 256;
/// How long a client may take to send its body. A slow one holds a place.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a request waits for the log before it is answered "unknown". Far above
/// any commit, below the time-outs of common clients (60 s).
pub const APPEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Envelopes of one request that are on their way to the log at once: enough to
/// fill a group commit, few enough that one request cannot fill the log's queue.
pub(super) const APPENDS_IN_FLIGHT_MAX: usize = 32;
/// Bodies up to this many plain bytes are read where they arrive; larger ones, and
/// compressed ones, move to a blocking thread so that they hold up no other request.
pub(super) const INLINE_BYTES_MAX: usize = 16 * 1024;
/// Members of one native record or CloudEvent. Both need about ten; the rest is room
/// for extension attributes. Bounds the search for duplicate names.
pub(super) const MEMBERS_MAX: usize = 64;
/// Bytes of a caller's text that a refusal quotes: enough to recognise it.
pub(super) const QUOTE_BYTES_MAX: usize = 80;
/// Known names that a refusal lists.
pub(super) const NAMES_LISTED_MAX: usize = 8;
/// Searches for the nearest known name in one request: each compares with every
/// meter, and a request may hold many wrong names.
pub(super) const HINTS_MAX: usize = 16;
/// Largest window that a zstd frame may ask for, as a power of two: 8 MiB, the most
/// that RFC 9659 allows for a content coding.
pub(super) const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// What `Retry-After` says, in seconds: the log commits many times a second, and a
/// full queue is gone well within one.
pub(super) const RETRY_AFTER_S: &str = "1";

/// What one gateway allows.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Largest body as it arrives, in bytes.
    pub body_bytes_max: usize,
    /// Largest body after inflating, in bytes.
    pub inflated_bytes_max: usize,
    /// Most events of one request, and most records that they make.
    pub records_max: usize,
    /// Requests being worked on at once.
    pub requests_in_flight_max: usize,
    /// Large bodies being read at once. They are work for the processor, so more
    /// than there are cores would only hold memory.
    pub readers_max: usize,
    /// How long a client may take to send its body.
    pub body_timeout: Duration,
    /// How long a request waits for the log.
    pub append_timeout: Duration,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            body_bytes_max: BODY_BYTES_MAX,
            inflated_bytes_max: INFLATED_BYTES_MAX,
            records_max: RECORDS_MAX,
            requests_in_flight_max: REQUESTS_IN_FLIGHT_MAX,
            readers_max: std::thread::available_parallelism().map_or(1, usize::from),
            body_timeout: BODY_TIMEOUT,
            append_timeout: APPEND_TIMEOUT,
        }
    }
}
