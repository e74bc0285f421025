//! Frees what expired reservations held, on a thread of its own, partition by
//! partition, a little at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::node::cells::Cells;
use crate::node::progress::now;
use crate::slices::{Turn, shorten};

/// Time between two looks: with the step that expiries are kept in, well below the
/// second that a hold may outlive its reservation.
const EVERY: Duration = Duration::from_millis(100);
/// Reservations looked at before it is looked who else wants the processor: some tens of
/// microseconds.
const AT_ONCE: usize = 32;

pub(super) struct Expiry {
    stopping: Arc<AtomicBool>,
    expired: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Expiry {
    pub(super) fn start(cells: Cells, partitions: u32) -> std::io::Result<Self> {
        let (stopping, expired) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stop, count) = (Arc::clone(&stopping), Arc::clone(&expired));
        let run = move || {
            shorten();
            while !stop.load(Ordering::Acquire) {
                let mut turn = Turn::begin();
                for partition in 0..partitions {
                    while let Some(quota) = cells.quota(partition) {
                        let before = quota.expired();
                        let has_more = quota.expire(now(), AT_ONCE);
                        count.fetch_add(quota.expired() - before, Ordering::Relaxed);
                        if !has_more {
                            break;
                        }
                        turn.give_way();
                    }
                }
                std::thread::sleep(EVERY);
            }
        };
        let thread = std::thread::Builder::new().name("expiry".into()).spawn(run)?;
        Ok(Self { stopping, expired, thread: Some(thread) })
    }

    /// Reservations whose time was over, of all partitions that this node had.
    pub(super) fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
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
