//! The one task that writes: it takes what has gathered in front of all partitions at the
//! same moments, so that one flush takes the envelopes of all, and whoever reads them is
//! woken once. It looks at the next moment whether the log has them, and is woken for that
//! only while somebody waits, or the next of some partition are due already: those are
//! taken as soon as the log has the ones before. An envelope that the log is slow to take
//! holds up its own partition alone.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use odometer_ingest::log::{AppendError, LogAppender};
use tokio::task::{consume_budget, unconstrained};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Page, Queues};

/// How often is looked at what has gathered of operations that nobody waits for.
const LOOK: Duration = Duration::from_millis(1);
/// Looks after which it is taken in any case: within the 5 ms in which the log usually has
/// it, and seldom enough that envelopes and commits are few.
const LOOKS_MAX: u32 = 3;
/// Operations for each partition with which it is taken at once: every envelope has its price,
/// and with many partitions each would have next to nothing.
const ENOUGH: usize = 4;
/// Operations up to which it is. Who decides so few in a look has few who ask, and each of
/// them waits while the log's commit has their processor: several short ones hold them up
/// less than a long one. With more than that the machine is busy, and fewer commits leave it
/// more.
const FEW: usize = 48;
/// How long an envelope that the log does not take is offered again.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Pause before it is offered again.
const WRITE_PAUSE: Duration = Duration::from_millis(5);

/// Writes what comes, until nothing more will.
pub(super) async fn write_all(log: &dyn LogAppender, queues: &Queues) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut pace = Pace::default();
    let mut writing = Writing::new(log, queues);
    let mut rests = false;
    loop {
        let is_moment = tokio::select! {
            () = queues.call.notified() => false,
            () = writing.end(), if writing.hurried > 0 => false,
            _ = looks.tick(), if !rests => pace.is_moment(queues),
        };
        // Whoever calls again and again takes nobody else's turn.
        consume_budget().await;
        let is_closing = queues.is_closing.load(Ordering::Acquire);
        writing.go_on();
        writing.take(is_moment || is_closing);
        while writing.go_on() {
            writing.take(is_closing);
        }
        let may_rest = rests || is_moment || is_closing;
        let rested = std::mem::replace(&mut rests, may_rest && writing.is_over() && queues.may_rest());
        if rests && is_closing {
            return;
        }
        if !rests {
            queues.is_resting.store(false, Ordering::Relaxed);
        }
        if rested && !rests {
            looks.reset();
        }
    }
}

/// When what has gathered is taken.
#[derive(Default)]
struct Pace {
    /// Looks since it was.
    looks: u32,
}

impl Pace {
    /// To be asked at every look.
    fn is_moment(&mut self, queues: &Queues) -> bool {
        self.looks += 1;
        let is_enough = (ENOUGH * queues.queues.len()..=FEW).contains(&queues.queued());
        let is_moment = is_enough || self.looks >= LOOKS_MAX;
        if is_moment {
            self.looks = 0;
        }
        is_moment
    }
}

/// What is on its way into the log, of each partition what was taken at once.
struct Writing<'a> {
    log: &'a dyn LogAppender,
    queues: &'a Queues,
    /// Each ends with its partition.
    writes: FuturesUnordered<BoxFuture<'a, usize>>,
    partitions: Vec<State>,
    /// Partitions whose end is waited for.
    hurried: usize,
}

#[derive(Clone, Copy, Default)]
struct State {
    is_writing: bool,
    /// Somebody waits for what is on its way or for what comes next, or there is more to
    /// write once this is written.
    is_hurried: bool,
    /// What has gathered was due, and is taken once the partition is free.
    is_late: bool,
}

impl<'a> Writing<'a> {
    fn new(log: &'a dyn LogAppender, queues: &'a Queues) -> Self {
        let partitions = vec![State::default(); queues.queues.len()];
        Self { log, queues, writes: FuturesUnordered::new(), partitions, hurried: 0 }
    }

    fn is_over(&self) -> bool {
        self.writes.is_empty()
    }

    /// Begins to write what is due: all that waits where it `is_moment`, else what
    /// somebody waits for and what is late.
    fn take(&mut self, is_moment: bool) {
        for (partition, queue) in self.queues.queues.iter().enumerate() {
            let state = self.partitions[partition];
            if !(is_moment || state.is_late || queue.is_awaited()) {
                continue;
            }
            if state.is_writing {
                if !state.is_late && queue.has_some() {
                    self.partitions[partition].is_late = true;
                    self.hurry(partition);
                }
                continue;
            }
            self.partitions[partition].is_late = false;
            let (pages, is_awaited) = queue.take();
            if !pages.is_empty() {
                self.begin(partition, pages, is_awaited);
            }
        }
    }

    fn begin(&mut self, partition: usize, pages: Vec<Page>, is_awaited: bool) {
        self.partitions[partition].is_writing = true;
        if is_awaited || pages.len() > 1 {
            self.hurry(partition);
        }
        // There may be more of them than a task may look at in a row.
        let write = unconstrained(write_pages((partition, self.queues), self.log, pages));
        self.writes.push(write.boxed());
    }

    fn hurry(&mut self, partition: usize) {
        let was_hurried = std::mem::replace(&mut self.partitions[partition].is_hurried, true);
        self.hurried += usize::from(!was_hurried);
    }

    /// Does what can be done now, without asking to be woken; whether a partition is free
    /// now whose next are late.
    fn go_on(&mut self) -> bool {
        let mut is_late = false;
        while let Some(Some(partition)) = self.writes.next().now_or_never() {
            is_late |= self.ended(partition);
        }
        is_late
    }

    /// Waits until one has ended; to be called while there is one.
    async fn end(&mut self) {
        if let Some(partition) = self.writes.next().await {
            self.ended(partition);
        }
    }

    /// Notes that a partition is free; whether its next are late.
    fn ended(&mut self, partition: usize) -> bool {
        let state = &mut self.partitions[partition];
        state.is_writing = false;
        self.hurried -= usize::from(std::mem::take(&mut state.is_hurried));
        state.is_late
    }
}

/// Writes what was taken from one partition's queue, in its order.
async fn write_pages((partition, queues): (usize, &Queues), log: &dyn LogAppender, pages: Vec<Page>) -> usize {
    for page in pages {
        write_one((partition, queues), log, page).await;
    }
    let queue = &queues.queues[partition];
    queue.note_oldest(&queue.lock(), true);
    partition
}

async fn write_one((partition, queues): (usize, &Queues), log: &dyn LogAppender, page: Page) {
    // There are as many as the log says, in 32 bits.
    let number = u32::try_from(partition).unwrap_or(u32::MAX);
    let envelope = page.sheet.seal();
    let deadline = Instant::now() + WRITE_MAX;
    let written = loop {
        // Whoever counts at the end is to see what is written from then on.
        let is_durable = page.is_durable || queues.is_closing.load(Ordering::Acquire);
        let appending = match is_durable {
            true => log.append(number, envelope.clone()),
            false => log.append_unflushed(number, envelope.clone()),
        };
        match appending.wait().await {
            Err(error) if error.is_retryable() && Instant::now() < deadline => tokio::time::sleep(WRITE_PAUSE).await,
            written => break written,
        }
    };
    if let Err(error) = &written {
        tracing::warn!("decisions of partition {partition} did not get into the log: {error}");
        // Nothing ever will again: nobody is told yes any more.
        if *error == AppendError::Closed {
            queues.has_failed.store(true, Ordering::Relaxed);
        }
    }
    for waiting in page.tell {
        // Whoever does not wait any more asks again with the same id.
        let _ = waiting.send(written.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gathers_is_taken_at_the_third_look_or_while_it_is_worth_it_and_little() {
        let queues = Queues::new(2);
        let mut pace = Pace::default();
        let mut looks = |waiting: [usize; 6]| {
            waiting.map(|operations| {
                queues.queues[1].places.store(operations, Ordering::Relaxed);
                pace.is_moment(&queues)
            })
        };
        assert_eq!(looks([0, 1, 7, 7, 7, 7]), [false, false, true, false, false, true]);
        assert_eq!(looks([8, FEW, 7, 8, 0, 0]), [true, true, false, true, false, false]);
        assert_eq!(looks([0, FEW + 1, 99, 99, 99, 0]), [true, false, false, true, false, false]);
    }
}
