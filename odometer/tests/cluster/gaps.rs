//! How long each partition stood still with work at hand.
//!
//! A gap begins when the log has more of a partition than the totals book's cursor
//! covers, and ends when that cursor moves: whatever the reason, nobody sees newer
//! totals meanwhile. So it holds the wait for the next commit, and on a handover the
//! last commit of one node, the group's agreement, the claim, recovery and the first
//! commit of the next node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use odometer_ingest::log::LogReader;
use odometer_ingest::log::kafka::KafkaLog;
use odometer_sink::totals::{PgTotals, TotalsBook};

/// Time between two looks; no gap is known more exactly.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks at the cursors of all partitions until it is asked.
pub(crate) struct Gaps {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

/// One partition.
#[derive(Clone, Copy, Default)]
struct Seen {
    next_offset: u64,
    /// Since when there has been work and no progress.
    since: Option<Instant>,
    longest: Duration,
}

impl Seen {
    fn look(&mut self, now: Instant, next_offset: u64, end_offset: u64) {
        if let Some(since) = self.since {
            self.longest = self.longest.max(now - since);
        }
        if next_offset > self.next_offset {
            self.next_offset = next_offset;
            self.since = None;
        }
        let has_work = end_offset > next_offset;
        self.since = self.since.filter(|_| has_work).or(has_work.then_some(now));
    }
}

impl Gaps {
    pub(crate) fn watch(log: KafkaLog, mut book: PgTotals) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut reader = log.reader().unwrap();
            let mut seen = vec![Seen::default(); reader.partitions() as usize];
            while !is_over.load(Ordering::Acquire) {
                for cursor in book.cursors().unwrap() {
                    let end_offset = reader.bounds(cursor.partition).unwrap().end_offset;
                    seen[cursor.partition as usize].look(Instant::now(), cursor.next_offset, end_offset);
                }
                std::thread::sleep(LOOK_EVERY);
            }
            seen.into_iter().map(|seen| seen.longest).collect()
        });
        Self { stop, thread }
    }

    /// The longest gap of each partition.
    pub(crate) fn longest(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

#[test]
fn a_gap_is_work_without_progress() {
    let (start, mut seen) = (Instant::now(), Seen::default());
    let at = |ms| start + Duration::from_millis(ms);
    // Nothing to do is no gap, however long.
    seen.look(at(0), 0, 0);
    seen.look(at(5000), 0, 0);
    seen.look(at(5010), 0, 3);
    seen.look(at(5310), 2, 3);
    assert_eq!(seen.longest, Duration::from_millis(300));
    seen.look(at(5400), 3, 3);
    seen.look(at(9000), 3, 3);
    seen.look(at(9100), 3, 4);
    seen.look(at(9500), 3, 5);
    assert_eq!(seen.longest, Duration::from_millis(400));
}
