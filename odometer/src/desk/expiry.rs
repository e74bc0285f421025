//! Frees what expired reservations held, on a thread of its own, partition by
//! partition, a little at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::node::cells::Cells;
use crate::node::progress::now;

/// Time between two looks: with the step that expiries are kept in, well below the
/// second that a hold may outlive its reservation.
const EVERY: Duration = Duration::from_millis(100);
/// Reservations looked at before others may have the core: some hundred microseconds.
const AT_ONCE: usize = 512;

pub(super) struct Expiry {
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Expiry {
    pub(super) fn start(cells: Cells, partitions: u32) -> std::io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let run = move || {
            while !stop.load(Ordering::Acquire) {
                for partition in 0..partitions {
                    while cells.quota(partition).is_some_and(|quota| quota.expire(now(), AT_ONCE)) {
                        std::thread::yield_now();
                    }
                }
                std::thread::sleep(EVERY);
            }
        };
        let thread = std::thread::Builder::new().name("expiry".into()).spawn(run)?;
        Ok(Self { stopping, thread: Some(thread) })
    }
}

impl Drop for Expiry {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
