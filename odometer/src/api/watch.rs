//! An owned thread that looks at the log and at every stage once a second: how fresh
//! each is, and whether it has work without moving. Answers and health read what it
//! saw, so that neither waits for a disk or a broker that does not answer.
//!
//! Freshness comes from where the log was seen to end, and when: whatever stands
//! behind an end has everything that was acknowledged before that look. The log itself
//! is not read.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusHandle;
use odometer_ingest::log::{LogError, LogReader};
use odometer_schemas::time::TimeMs;

use crate::node::footing::LogHealth;
use crate::node::progress::{PartitionProgress, Progress, StageName, Standing, now};

/// Time between two looks: a look costs some microseconds a partition.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Ends that are remembered of one partition. Beyond it every second one of the older
/// half is forgotten, so that the past fades without ending.
const ENDS_MAX: usize = 512;

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
    /// Where the log ended, each with the latest look that found it so, ascending.
    ends: VecDeque<(u64, TimeMs)>,
    /// Log time that was counted here, whatever the looks say.
    counted_through: Option<TimeMs>,
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
                // A statement of its own, so that the lock is free during the look.
                let before = lock(&work.seen).clone();
                let next = before.next(&mut watched);
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
            let end_offset = watched.reader.bounds(partition)?.end_offset;
            partitions.push(before.next(progress, end_offset, (at, taken)));
        }
        (self.at, self.taken, self.partitions) = (at, taken, partitions);
        Ok(())
    }

    /// Everything that was acknowledged before this time is in a stage's answers, if
    /// the stage stands at `offset` now. The beginning of time where nothing is known:
    /// the stage is behind all that was seen since the start.
    pub(crate) fn fresh_through(&self, partition: u32, stage: StageName, offset: u64) -> TimeMs {
        let seen = &self.partitions[partition as usize];
        if offset >= seen.end_offset {
            return self.at;
        }
        let behind = seen.ends.partition_point(|(end, _)| *end <= offset);
        let looked = behind.checked_sub(1).map(|last| seen.ends[last].1);
        let counted = seen.counted_through.filter(|_| stage == StageName::Count);
        looked.max(counted).unwrap_or(TimeMs(0))
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
    fn next(&self, progress: &PartitionProgress, end_offset: u64, (at, taken): (TimeMs, Instant)) -> Self {
        let counts = progress.standing() != Standing::Elsewhere;
        let mut seen = Self { end_offset, ends: self.ends.clone(), ..Self::default() };
        if seen.ends.back().is_some_and(|(end, _)| *end == end_offset) {
            seen.ends.pop_back();
        }
        seen.ends.push_back((end_offset, at));
        thin(&mut seen.ends);
        if counts {
            progress.ends_at_least(end_offset);
            seen.counted_through = Some(TimeMs(progress.log_time_ms.load(Relaxed)));
        }
        // What a stage follows, after its own offset: it may move meanwhile, and then
        // looks idle.
        let [counted, committed, raw] = StageName::ALL.map(|stage| progress.offset_of(stage));
        let work = [
            (counts, counted, end_offset),
            (counts, committed, counted),
            (progress.writes_raw.load(Acquire), raw, committed),
        ];
        for ((is_own, offset, upstream), (standing, before)) in
            work.into_iter().zip(seen.standing.iter_mut().zip(self.standing))
        {
            *standing = if is_own { stood(before, offset, upstream, taken) } else { None };
        }
        seen
    }
}

/// Forgets every second end of the older half, once there are too many.
fn thin(ends: &mut VecDeque<(u64, TimeMs)>) {
    if ends.len() > ENDS_MAX {
        let mut index = 0;
        ends.retain(|_| {
            index += 1;
            index > ENDS_MAX / 2 || index % 2 == 1
        });
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
    use std::sync::mpsc::{Receiver, Sender, channel};

    use metrics_exporter_prometheus::PrometheusBuilder;
    use odometer_ingest::log::Bounds;
    use odometer_schemas::log::LogEntry;

    use super::*;

    /// A log that says when it is asked, and answers when it is told to.
    struct Slow {
        asked: Sender<()>,
        go: Receiver<()>,
    }

    impl LogReader for Slow {
        fn partitions(&self) -> u32 {
            1
        }

        fn read(&mut self, _: u32, _: u64, _: usize) -> Result<Vec<LogEntry>, LogError> {
            Ok(Vec::new())
        }

        fn bounds(&mut self, _: u32) -> Result<Bounds, LogError> {
            self.asked.send(()).unwrap();
            let _ = self.go.recv();
            Ok(Bounds { start_offset: 0, end_offset: 0 })
        }

        fn wait(&mut self, _: Duration) {}
    }

    #[test]
    fn nobody_waits_for_a_look() {
        let ((asked, is_asked), (go, answer)) = (channel(), channel());
        let watched = Watched {
            progress: Arc::new(Progress::new(1)),
            reader: Box::new(Slow { asked, go: answer }),
            log: Box::new(LogHealth::default),
            recorder: PrometheusBuilder::new().build_recorder().handle(),
        };
        go.send(()).unwrap();
        let watch = Watch::start(watched).unwrap();
        // The first look, and the one under way.
        (0..2).for_each(|_| is_asked.recv().unwrap());
        assert!(watch.shared.seen.try_lock().is_ok(), "health waits for the log");
        drop(go);
    }

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
    fn freshness_is_the_last_look_that_found_the_log_end_at_or_below() {
        let mut seen = Seen { at: TimeMs(1000), ..Seen::nothing(1) };
        let partition = &mut seen.partitions[0];
        partition.end_offset = 10;
        partition.ends = [(4, TimeMs(400)), (7, TimeMs(700)), (10, TimeMs(1000))].into();
        partition.counted_through = Some(TimeMs(550));
        for (stage, offset, expected) in [
            (StageName::Raw, 3, 0),
            (StageName::Raw, 4, 400),
            (StageName::Raw, 6, 400),
            (StageName::Raw, 9, 700),
            (StageName::Raw, 10, 1000),
            (StageName::Raw, 12, 1000),
            (StageName::Count, 5, 550),
            (StageName::Count, 8, 700),
            (StageName::Count, 10, 1000),
        ] {
            assert_eq!(seen.fresh_through(0, stage, offset), TimeMs(expected), "{stage:?} at {offset}");
        }
        assert_eq!(seen.lag_ms(0, StageName::Raw, 10), 0);
        assert!(seen.lag_ms(0, StageName::Raw, 4) > 0);
    }

    #[test]
    fn the_past_fades_without_ending() {
        let progress = PartitionProgress::default();
        let mut seen = PartitionSeen::default();
        for look in 1..10_000_u64 {
            seen = seen.next(&progress, look, (TimeMs(i64::try_from(look).unwrap()), Instant::now()));
        }
        assert!(seen.ends.len() <= ENDS_MAX);
        assert_eq!(seen.ends.front(), Some(&(1, TimeMs(1))));
        assert!(seen.ends.iter().is_sorted());
    }
}
