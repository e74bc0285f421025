//! Processors: which of them lanes keep to, and on which one a client's bytes arrive.

use tokio::net::TcpStream;

/// One processor for each of so many lanes. None unless this process may use just as many:
/// in a container that is given the time of a few out of many processors, lanes would keep
/// to the same few as those of its neighbours do.
#[cfg(target_os = "linux")]
pub(super) fn one_each(lanes: usize) -> Option<Vec<usize>> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let ours = sched_getaffinity(None).ok()?;
    let processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|processor| ours.is_set(*processor)).collect();
    (lanes > 1 && processors.len() == lanes).then_some(processors)
}

/// Keeps the calling thread to one processor, where the system lets it.
#[cfg(target_os = "linux")]
pub(super) fn keep_to(processor: usize) {
    use rustix::thread::{CpuSet, sched_setaffinity};
    let mut only = CpuSet::new();
    only.set(processor);
    if let Err(error) = sched_setaffinity(None, &only) {
        tracing::debug!("a lane does not keep to processor {processor}: {error}");
    }
}

/// The processor on which the connection's newest bytes arrived: that of a client on this
/// machine, or the one that sees to the network card's queue (socket(7), `SO_INCOMING_CPU`).
#[cfg(target_os = "linux")]
pub(super) fn of_client(stream: &TcpStream) -> Option<usize> {
    socket2::SockRef::from(stream).cpu_affinity().ok()
}

/// Other systems place threads better than we could.
#[cfg(not(target_os = "linux"))]
pub(super) fn one_each(_lanes: usize) -> Option<Vec<usize>> {
    None
}

/// Not asked for where lanes have none.
#[cfg(not(target_os = "linux"))]
pub(super) fn keep_to(_processor: usize) {}

/// Not known.
#[cfg(not(target_os = "linux"))]
pub(super) fn of_client(_stream: &TcpStream) -> Option<usize> {
    None
}
