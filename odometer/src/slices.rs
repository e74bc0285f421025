//! What threads ask of the scheduler. A thread that answers asks for short time slices:
//! it has little to do each time, and is let in soon after it is woken instead of after
//! the slice of whoever computes. A thread behind the log asks for long ones, so that
//! whoever is woken is let in before it, and some for a smaller share: what they do, they
//! may do a little later.
//!
//! Linux takes the slice of an ordinary thread from `sched_runtime` of
//! sched_setattr(2) since 6.12 (Documentation/scheduler/sched-eevdf.rst); that, and a
//! smaller share, needs no privilege. Older kernels ignore the slice, other systems are
//! not asked. Where a processor is free, none of this changes anything.

/// Shortest slice that Linux grants: about what a lane needs for all that is ready.
const SHORT_NS: u64 = 100_000;
/// Longer than the slice of whoever asks for none, 2.8 ms at most. Only a thread with a
/// shorter slice takes the processor at once from whoever has it; others wait for the
/// timer's next tick, some milliseconds.
const LONG_NS: u64 = 5_000_000;
/// A third of the share of an ordinary thread: on a processor that two others want as
/// well, a seventh of it. What waits for the books then needs a few per cent of one, and
/// when it is let in no more, it is bounded: counting pauses, and says so.
const LATER_NICE: i32 = 5;

/// For threads that answer.
pub(crate) fn answer_soon() {
    ask(SHORT_NS, 0);
}

/// For the thread that counts: it has its full share, because answers are only as new as
/// what it has counted.
pub(crate) fn let_in() {
    ask(LONG_NS, 0);
}

/// For threads that nobody waits for: the books', and those that tidy up.
pub(crate) fn stand_back() {
    ask(LONG_NS, LATER_NICE);
}

fn ask(slice_ns: u64, nicer: i32) {
    if let Err(error) = set(slice_ns, nicer) {
        tracing::debug!("the scheduler is not to be asked: {error}");
    }
}

/// Nothing to ask.
#[cfg(not(target_os = "linux"))]
fn set(_slice_ns: u64, _nicer: i32) -> std::io::Result<()> {
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

/// Changes nothing else about the calling thread, and nothing of one that a user has made
/// no ordinary one.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "neither the standard library nor rustix has these two calls")]
fn set(slice_ns: u64, nicer: i32) -> std::io::Result<()> {
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
    const NICE_MAX: i32 = 19;
    attributes.runtime_ns = slice_ns;
    attributes.nice = (attributes.nice + nicer).min(NICE_MAX);
    // SAFETY: the kernel reads `attributes.size` bytes of a live value of that size.
    checked(unsafe { libc::syscall(libc::SYS_sched_setattr, CALLING_THREAD, &raw const attributes, NO_FLAGS) })
}
