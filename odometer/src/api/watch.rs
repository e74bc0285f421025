//! An owned thread that looks at the log and at every stage once a second: how fresh
//! each is, and whether it has work without moving. Answers and health read what it
//! saw, so that neither waits for a disk that does not answer. Changes nothing.

use std::sync::atomic::Ordering::Acquire;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusHandle;
use odometer_ingest::log::{LogError, LogReader};
use odometer_schemas::time::TimeMs;

use crate::node::footing::LogHealth;
use crate::node::progress::{PartitionProgress, Progress, StageName, now};

/// Time between two looks: a look costs some microseconds a partition.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is looked at.
pub(crate) struct Watched {
    pub(crate) progress: Arc<Progress>,
    pub(crate) reader: Box<dyn LogReader>,
    pub(crate) log: Box<dyn Fn() -> LogHealth + Send>,
    /// Tidied at every look: samples that nobody fetches must not pile up.
    pub(crate) recorder: PrometheusHandle,
}

/// The thread, and what it saw last. Dropping it ends the thread.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    seen: Mutex<Seen>,
    stop: Mutex<bool>,
    stopped: Condvar,
}

/// One look at everything.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Wall-clock time before the look.
    at: TimeMs,
    /// The same by the monotonic clock.
    pub(crate) taken: Instant,
    pub(crate) partitions: Vec<PartitionSeen>,
    pub(crate) log: LogSeen,
    /// Why the log could not be read, since the last look that could.
    pub(crate) unreadable: Option<String>,
}

/// One partition at one look.
#[derive(Clone, Debug, Default)]
pub(crate) struct PartitionSeen {
    pub(crate) end_offset: u64,
    /// The first entry that each stage still had to do.
    next: [Option<(u64, TimeMs)>; 3],
    /// Since when each stage has had work and stood at the same offset.
    pub(crate) standing: [Option<(u64, Instant)>; 3],
}

/// The log's writer at one look.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogSeen {
    pub(crate) health: LogHealth,
    /// Since when envelopes have waited without an attempt to commit.
    pub(crate) standing_since: Option<Instant>,
    /// When the newest failed commit was first seen.
    pub(crate) failed_at: Option<Instant>,
}

impl PartitionProgress {
    /// The next offset of a stage.
    pub(crate) fn offset_of(&self, stage: StageName) -> u64 {
        match stage {
            StageName::Count => self.next_offset.load(Acquire),
            StageName::Totals => self.committed_offset.load(Acquire),
            StageName::Raw => self.raw_offset.load(Acquire),
        }
    }
}

impl Watch {
    /// Takes the first look, then starts the thread.
    pub(crate) fn start(mut watched: Watched) -> anyhow::Result<Self> {
        let seen = Seen::first(&mut watched)?;
        let shared = Arc::new(Shared { seen: Mutex::new(seen), stop: Mutex::new(false), stopped: Condvar::new() });
        let work = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("watch".into()).spawn(move || {
            while !work.wait() {
                let next = lock(&work.seen).clone().next(&mut watched);
                *lock(&work.seen) = next;
                watched.recorder.run_upkeep();
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// [`Seen::lag_ms`] of the last look.
    pub(crate) fn lag_ms(&self, partition: u32, stage: StageName, offset: u64) -> i64 {
        lock(&self.shared.seen).lag_ms(partition, stage, offset)
    }

    /// What was seen last.
    pub(crate) fn seen(&self) -> Seen {
        lock(&self.shared.seen).clone()
    }

    /// Whether the thread is still looking.
    pub(crate) fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        *lock(&self.shared.stop) = true;
        self.shared.stopped.notify_all();
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed, and it has nothing to lose.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Waits for the next look; whether to stop instead.
    fn wait(&self) -> bool {
        let stop = lock(&self.stop);
        let waited = self.stopped.wait_timeout_while(stop, LOOK_EVERY, |stop| !*stop);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Seen {
    /// Nothing has been seen yet.
    pub(crate) fn nothing(partitions: usize) -> Self {
        let partitions = vec![PartitionSeen::default(); partitions];
        Self { at: TimeMs(0), taken: Instant::now(), partitions, log: LogSeen::default(), unreadable: None }
    }

    fn first(watched: &mut Watched) -> Result<Self, LogError> {
        let mut seen = Self::nothing(watched.progress.partitions.len());
        seen.look(watched)?;
        seen.log.health = (watched.log)();
        Ok(seen)
    }

    /// The look after this one. When the log cannot be read it stays as old as it is,
    /// and says why.
    fn next(mut self, watched: &mut Watched) -> Self {
        self.unreadable = None;
        if let Err(error) = self.look(watched) {
            self.unreadable = Some(error.to_string());
        }
        self.log = self.log.next((watched.log)(), Instant::now());
        self
    }

    fn look(&mut self, watched: &mut Watched) -> Result<(), LogError> {
        let (at, taken) = (now(), Instant::now());
        let mut partitions = Vec::with_capacity(self.partitions.len());
        for (partition, before) in (0_u32..).zip(&self.partitions) {
            let progress = watched.progress.of(partition);
            partitions.push(before.next(partition, progress, watched.reader.as_mut(), taken)?);
        }
        (self.at, self.taken, self.partitions) = (at, taken, partitions);
        Ok(())
    }

    /// Everything that was acknowledged before this time is in a stage's answers, if
    /// the stage stands at `offset` now.
    pub(crate) fn fresh_through(&self, partition: u32, stage: StageName, offset: u64) -> TimeMs {
        let seen = &self.partitions[partition as usize];
        match seen.next[stage as usize] {
            // Appended after everything below it.
            Some((_, append_time)) if offset < seen.end_offset => append_time,
            _ => self.at,
        }
    }

    /// How far a stage that stands at `offset` now is behind what was there at this
    /// look, in milliseconds.
    pub(crate) fn lag_ms(&self, partition: u32, stage: StageName, offset: u64) -> i64 {
        if offset >= self.partitions[partition as usize].end_offset {
            return 0;
        }
        (now().0 - self.fresh_through(partition, stage, offset).0).max(0)
    }
}

impl PartitionSeen {
    fn next(
        &self,
        partition: u32,
        progress: &PartitionProgress,
        reader: &mut dyn LogReader,
        taken: Instant,
    ) -> Result<Self, LogError> {
        // A stage's own offset first: it may move meanwhile, and then looks idle.
        let offsets = StageName::ALL.map(|stage| progress.offset_of(stage));
        let end_offset = reader.bounds(partition)?.end_offset;
        let mut seen = Self { end_offset, ..Self::default() };
        for (stage, offset) in StageName::ALL.into_iter().zip(offsets) {
            let upstream = match stage {
                StageName::Count => end_offset,
                StageName::Totals => offsets[StageName::Count as usize],
                StageName::Raw => offsets[StageName::Totals as usize],
            };
            seen.standing[stage as usize] = stood(self.standing[stage as usize], offset, upstream, taken);
            if offset < end_offset {
                let first = reader.read(partition, offset, 1)?;
                seen.next[stage as usize] = first.first().map(|entry| (entry.offset, entry.append_time));
            }
        }
        Ok(seen)
    }
}

/// Since when a stage that has work has stood at `offset`.
fn stood(before: Option<(u64, Instant)>, offset: u64, upstream: u64, now: Instant) -> Option<(u64, Instant)> {
    if offset >= upstream {
        return None;
    }
    Some(before.filter(|(stood_at, _)| *stood_at == offset).unwrap_or((offset, now)))
}

impl LogSeen {
    fn next(self, health: LogHealth, now: Instant) -> Self {
        let attempts = |health: &LogHealth| (health.commits, health.failures);
        let stands = health.queued_envelopes > 0 && attempts(&health) == attempts(&self.health);
        let has_failed = health.failures > self.health.failures;
        Self {
            standing_since: stands.then(|| self.standing_since.unwrap_or(now)),
            failed_at: if has_failed { Some(now) } else { self.failed_at },
            health,
        }
    }
}

/// What the lock guards is whole at every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_stands_from_the_first_look_that_finds_it_with_work_at_the_same_offset() {
        let start = Instant::now();
        let later = start + Duration::from_secs(5);
        assert_eq!(stood(None, 7, 7, start), None);
        let standing = stood(None, 7, 8, start);
        assert_eq!(standing, Some((7, start)));
        assert_eq!(stood(standing, 7, 9, later), Some((7, start)));
        assert_eq!(stood(standing, 8, 9, later), Some((8, later)));
        assert_eq!(stood(standing, 9, 9, later), None);
    }

    #[test]
    fn a_log_stands_when_envelopes_wait_and_nothing_is_tried() {
        let start = Instant::now();
        let at = |commits, failures, queued_envelopes| LogHealth {
            commits,
            failures,
            queued_envelopes,
            ..LogHealth::default()
        };
        let seen = LogSeen::default().next(at(1, 0, 3), start);
        assert_eq!(seen.standing_since, None);
        let seen = seen.next(at(1, 0, 3), start + LOOK_EVERY);
        assert_eq!(seen.standing_since, Some(start + LOOK_EVERY));
        let seen = seen.next(at(1, 0, 9), start + 2 * LOOK_EVERY);
        assert_eq!(seen.standing_since, Some(start + LOOK_EVERY));
        let seen = seen.next(at(1, 1, 9), start + 3 * LOOK_EVERY);
        assert_eq!((seen.standing_since, seen.failed_at), (None, Some(start + 3 * LOOK_EVERY)));
        let seen = seen.next(at(2, 1, 0), start + 4 * LOOK_EVERY);
        assert_eq!((seen.standing_since, seen.failed_at), (None, Some(start + 3 * LOOK_EVERY)));
    }

    #[test]
    fn freshness_is_the_first_missing_entry_or_the_look_itself() {
        let mut seen = Seen { at: TimeMs(1000), ..Seen::nothing(1) };
        seen.partitions[0].end_offset = 10;
        seen.partitions[0].next[StageName::Raw as usize] = Some((4, TimeMs(400)));
        for (stage, offset, expected) in [
            (StageName::Raw, 4, 400),
            (StageName::Raw, 9, 400),
            (StageName::Raw, 10, 1000),
            (StageName::Raw, 12, 1000),
            (StageName::Count, 10, 1000),
        ] {
            assert_eq!(seen.fresh_through(0, stage, offset), TimeMs(expected), "{stage:?} at {offset}");
        }
        assert_eq!(seen.lag_ms(0, StageName::Raw, 10), 0);
        assert!(seen.lag_ms(0, StageName::Raw, 4) > 0);
    }
}
