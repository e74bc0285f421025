//! Shares the processor in small pieces. A thread that answers has little to do each
//! time: with short time slices it is let in soon after it is woken. But Linux looks at
//! slices at the timer's tick only, which may be 4 ms away, so that nobody who waits is
//! let in before whoever computes pauses: a thread that works on what has gathered behind
//! the log lets others in itself, twenty times a millisecond. Linux 6.18 takes the rest of
//! its slice from whoever yields, so that its slices are short as well: with the usual ones
//! of 3 ms it would wait for as long each time.
//!
//! Linux takes the slice of an ordinary thread from `sched_runtime` of
//! sched_setattr(2) since 6.12 (Documentation/scheduler/sched-eevdf.rst); it needs no
//! privilege. Older kernels ignore it, other systems are not asked. Who may not ask, or
//! runs as SCHED_BATCH, counts slower beside others who want whole processors.

#[cfg(target_os = "linux")]
mod sqlite;

use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use sqlite::give_way_in_sqlite;
#[cfg(target_os = "linux")]
pub(crate) use sqlite::look_into_sqlite;

/// Shortest slice that Linux grants: about what a lane needs for all that is ready.
const SLICE: Duration = Duration::from_micros(100);
/// How long a thread works on what has gathered, before it lets others in: several of them
/// may have something at once, and whoever waits waits for all.
const TURN: Duration = Duration::from_micros(50);

/// Shortens the slices of the calling thread, where the system can.
pub(crate) fn shorten() {
    ask(SLICE);
}

/// For a thread whose work nobody waits for: short slices, and others let in while SQLite
/// works for it.
pub(crate) fn stand_back() {
    shorten();
    give_way_in_sqlite();
}

/// How long the calling thread has had the processor, as far as it knows.
#[derive(Debug)]
pub(crate) struct Turn(Instant);

impl Turn {
    pub(crate) fn begin() -> Self {
        Self(Instant::now())
    }

    /// Lets others in once its time is over; to be called between small pieces of work.
    pub(crate) fn give_way(&mut self) {
        if self.0.elapsed() >= TURN {
            std::thread::yield_now();
            *self = Self::begin();
        }
    }
}

fn ask(slice: Duration) {
    if let Err(error) = set(slice) {
        tracing::debug!("the system gives no other time slices: {error}");
    }
}

/// Nothing is known of how others share processors.
#[cfg(not(target_os = "linux"))]
pub(crate) fn look_into_sqlite() {}

/// The same.
#[cfg(not(target_os = "linux"))]
fn give_way_in_sqlite() {}

/// Nothing to ask for.
#[cfg(not(target_os = "linux"))]
fn set(_slice: Duration) -> std::io::Result<()> {
    Ok(())
}

/// `struct sched_attr` of sched_setattr(2) in its first version, 48 bytes.
#[cfg(target_os = "linux")]
#[repr(C)]
#[derive(Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
}

/// Leaves everything else about the calling thread as it is.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "neither the standard library nor rustix has these two calls")]
fn set(slice: Duration) -> std::io::Result<()> {
    const CALLING_THREAD: libc::pid_t = 0;
    const NO_FLAGS: libc::c_uint = 0;
    let size = u32::try_from(size_of::<Attributes>()).unwrap_or(u32::MAX);
    let mut attributes = Attributes { size, ..Attributes::default() };
    let checked = |returned: libc::c_long| match returned {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    // SAFETY: the kernel writes at most `size` bytes to a live value of that size, whose
    // fields may have any bits.
    checked(unsafe { libc::syscall(libc::SYS_sched_getattr, CALLING_THREAD, &raw mut attributes, size, NO_FLAGS) })?;
    if i32::try_from(attributes.policy) != Ok(libc::SCHED_OTHER) {
        return Ok(());
    }
    attributes.runtime_ns = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the kernel reads `attributes.size` bytes of a live value of that size.
    checked(unsafe { libc::syscall(libc::SYS_sched_setattr, CALLING_THREAD, &raw const attributes, NO_FLAGS) })
}
