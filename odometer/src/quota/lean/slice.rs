//! Asks the system for short time slices: a thread that has little to do each time is
//! let in soon after it is woken, instead of after the slice of whoever computes. Its
//! share of the processor stays what it was.
//!
//! Linux takes the slice of an ordinary thread from `sched_runtime` of
//! sched_setattr(2) since 6.12 (Documentation/scheduler/sched-eevdf.rst); it needs no
//! privilege. Older kernels ignore it, other systems are not asked.

/// Shortest slice that Linux grants: about what a lane needs for all that is ready.
#[cfg(target_os = "linux")]
const SLICE_NS: u64 = 100_000;

/// Shortens the slices of the calling thread, where the system can.
#[cfg(target_os = "linux")]
pub(super) fn shorten() {
    if let Err(error) = shorten_to(SLICE_NS) {
        tracing::debug!("the system gives no shorter time slices: {error}");
    }
}

/// Nothing to ask for.
#[cfg(not(target_os = "linux"))]
pub(super) fn shorten() {}

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

/// Leaves everything else about the thread as it is.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "neither the standard library nor rustix has these two calls")]
fn shorten_to(slice_ns: u64) -> std::io::Result<()> {
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
    attributes.runtime_ns = slice_ns;
    // SAFETY: the kernel reads `attributes.size` bytes of a live value of that size.
    checked(unsafe { libc::syscall(libc::SYS_sched_setattr, CALLING_THREAD, &raw const attributes, NO_FLAGS) })
}
