//! Flushes what the writer has committed; then, and only then, shows it to readers and
//! answers who waits for that. The writer goes on meanwhile: a disk may take tens of
//! milliseconds for a flush.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use odometer_schemas::log::LogEntry;
use tokio::sync::oneshot;

use super::store::sync_directory;
use super::{Shared, locked};
use crate::log::{AppendError, Appended, LogError};

/// How long a commit that nobody waits for may stay without a flush: long enough that
/// flushes, and the turns of whoever reads, are few.
const LATER: Duration = Duration::from_millis(20);
/// Age of something unflushed at which nobody is answered without a flush any more: a loss
/// of power would cost all that is answered meanwhile. A disk that is shared takes half a
/// second for a flush now and then; a second is what Redis loses as `appendfsync everysec`.
const BEHIND: Duration = Duration::from_secs(1);
/// Bytes that may wait for a flush before the writer waits, too: some commits of the
/// largest size.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What was committed, and who waits until it is durable, if anybody does.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) entry: LogEntry,
    pub(super) answer: Option<oneshot::Sender<Result<Appended, AppendError>>>,
}

impl Committed {
    /// About what it takes in memory.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.entry.bytes.len()
    }
}

/// What is flushed at once.
struct Due {
    committed: Vec<Committed>,
    commits: u64,
}

/// The writer's end of the thread that flushes. Dropped, it ends the thread once
/// everything is flushed.
#[derive(Debug)]
pub(super) struct Flusher {
    line: Arc<Line>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Commits on their way to the flusher.
#[derive(Debug, Default)]
struct Line {
    waiting: Mutex<Waiting>,
    /// The flusher has something to do, or an end.
    due: Condvar,
    /// Something was taken.
    taken: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// In the order of their commits.
    committed: Vec<Committed>,
    commits: u64,
    bytes: usize,
    /// When the oldest came.
    since: Option<Instant>,
    /// When the oldest came of those that are being flushed.
    flushing_since: Option<Instant>,
    /// Somebody waits for one of them.
    is_awaited: bool,
    is_closing: bool,
    /// Why nothing more is taken.
    failure: Option<String>,
}

impl Flusher {
    /// Flushes what another process may have left, shows it to readers, and starts the
    /// thread for the log at `path`, the file's full name, which is open.
    ///
    /// # Errors
    /// When the write-ahead log cannot be opened or flushed, or the thread not be had.
    pub(super) fn start(path: &Path, ends: &[u64], shared: &Arc<Shared>) -> Result<Self, LogError> {
        let failed = |doing| move |error: io::Error| LogError::Storage { doing, source: Box::new(error) };
        let mut name = path.as_os_str().to_owned();
        name.push("-wal");
        let file = File::open(name).map_err(failed("opening its write-ahead log"))?;
        file.sync_data().map_err(failed("flushing its write-ahead log"))?;
        sync_directory(path)?;
        shared.flushed.iter().zip(ends).for_each(|(flushed, end)| flushed.store(*end, Ordering::Release));
        let line = Arc::new(Line::default());
        let (theirs, told) = (Arc::clone(&line), Arc::clone(shared));
        let run = move || flush_all(&file, &theirs, &told);
        let thread = std::thread::Builder::new().name("log-flusher".into()).spawn(run);
        Ok(Self {
            line,
            shared: Arc::clone(shared),
            thread: Some(thread.map_err(failed("starting the thread that flushes"))?),
        })
    }

    /// Why nothing can be flushed any more, if so.
    pub(super) fn failure(&self) -> Option<String> {
        self.line.lock().failure.clone()
    }

    /// Whether whoever needs no flush must wait for one all the same.
    pub(super) fn is_behind(&self) -> bool {
        let waiting = self.line.lock();
        waiting.failure.is_some()
            || waiting.flushing_since.or(waiting.since).is_some_and(|since| since.elapsed() >= BEHIND)
    }

    /// Hands over what one commit wrote; blocks while too much waits.
    pub(super) fn take(&self, committed: Vec<Committed>) {
        let mut waiting = self.line.lock();
        while waiting.bytes > WAITING_BYTES_MAX && waiting.failure.is_none() {
            waiting = self.line.taken.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(why) = &waiting.failure {
            return self.shared.refuse(committed, why);
        }
        let is_awaited = committed.iter().any(|one| one.answer.is_some());
        let is_news = waiting.since.is_none() || is_awaited && !waiting.is_awaited;
        waiting.is_awaited |= is_awaited;
        waiting.since.get_or_insert_with(Instant::now);
        waiting.commits += 1;
        waiting.bytes += committed.iter().map(Committed::bytes).sum::<usize>();
        waiting.committed.extend(committed);
        drop(waiting);
        if is_news {
            self.line.due.notify_one();
        }
    }

    /// Has everything flushed, and ends the thread.
    pub(super) fn end(&mut self) {
        self.line.lock().is_closing = true;
        self.line.due.notify_one();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that flushes the embedded log panicked");
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.end();
    }
}

impl Line {
    /// Whole at every step.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        locked(&self.waiting)
    }

    /// Waits until something should be flushed, and takes all of it; none at the end.
    fn next(&self) -> Option<Due> {
        let mut waiting = self.lock();
        waiting.flushing_since = None;
        loop {
            let Some(since) = waiting.since else {
                if waiting.is_closing {
                    return None;
                }
                waiting = self.due.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = LATER.saturating_sub(since.elapsed());
            if left.is_zero() || waiting.is_urgent() {
                (waiting.flushing_since, waiting.is_awaited, waiting.bytes) = (waiting.since.take(), false, 0);
                self.taken.notify_one();
                let commits = std::mem::take(&mut waiting.commits);
                return Some(Due { committed: std::mem::take(&mut waiting.committed), commits });
            }
            waiting = self.due.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Nothing more is taken: what the disk has of what was committed is not known, and
    /// flushing again would not tell.
    fn fail(&self, why: &str, shared: &Shared) {
        let mut waiting = self.lock();
        waiting.failure = Some(why.to_owned());
        waiting.since = None;
        shared.failed(why);
        shared.refuse(std::mem::take(&mut waiting.committed), why);
        self.taken.notify_one();
    }
}

impl Waiting {
    fn is_urgent(&self) -> bool {
        self.is_awaited || self.is_closing || self.bytes > WAITING_BYTES_MAX / 2
    }
}

/// What the thread does.
fn flush_all(file: &File, line: &Line, shared: &Shared) {
    let _closes = FailsAtPanic(line, shared);
    while let Some(due) = line.next() {
        if let Err(error) = file.sync_data() {
            let why = format!("flushing failed, and what the disk has is not known: {error}");
            line.fail(&why, shared);
            shared.refuse(due.committed, &why);
        } else {
            shared.show(due);
        }
    }
}

impl Shared {
    /// Shows readers what is durable, and answers everyone.
    fn show(&self, Due { committed, commits }: Due) {
        locked(&self.health).commits += commits;
        self.queued_envelopes.fetch_sub(committed.len(), Ordering::Relaxed);
        let show = |Committed { entry, answer }: Committed| {
            let appended = Appended { offset: entry.offset, append_time: entry.append_time };
            self.flushed[entry.partition as usize].store(entry.offset + 1, Ordering::Release);
            self.recent.put(entry);
            answer.map(|answer| (answer, appended))
        };
        let answers: Vec<_> = committed.into_iter().filter_map(show).collect();
        self.announce();
        for (answer, appended) in answers {
            // Whoever stopped waiting does not want to know.
            let _ = answer.send(Ok(appended));
        }
    }

    fn refuse(&self, committed: Vec<Committed>, why: &str) {
        self.queued_envelopes.fetch_sub(committed.len(), Ordering::Relaxed);
        for answer in committed.into_iter().filter_map(|one| one.answer) {
            let _ = answer.send(Err(AppendError::Unavailable(why.to_owned())));
        }
    }
}

/// Nobody waits for a thread that has panicked.
struct FailsAtPanic<'a>(&'a Line, &'a Shared);

impl Drop for FailsAtPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("the thread that flushes panicked; this is a bug", self.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use odometer_schemas::time::TimeMs;

    use super::*;

    fn committed(offset: u64, answer: Option<oneshot::Sender<Result<Appended, AppendError>>>) -> Committed {
        let bytes = vec![7; 100].into();
        Committed { entry: LogEntry { partition: 0, offset, append_time: TimeMs(5), bytes }, answer }
    }

    /// Without a thread.
    fn idle() -> Flusher {
        let shared = Shared::new(1);
        // More than is ever answered here.
        shared.queued_envelopes.store(100, Ordering::Relaxed);
        Flusher { line: Arc::default(), shared: Arc::new(shared), thread: None }
    }

    fn offsets(due: Option<Due>) -> Vec<u64> {
        due.expect("it is not the end").committed.iter().map(|one| one.entry.offset).collect()
    }

    #[test]
    fn a_disk_that_takes_nothing_is_waited_for() {
        let flusher = idle();
        assert!(!flusher.is_behind());
        flusher.take(vec![committed(0, None)]);
        assert!(!flusher.is_behind());
        flusher.line.lock().since = Instant::now().checked_sub(BEHIND);
        assert!(flusher.is_behind());
        assert_eq!(offsets(flusher.line.next()), [0]);
        flusher.take(vec![committed(1, None)]);
        assert!(flusher.is_behind(), "the flush is under way");
        flusher.line.lock().is_closing = true;
        assert_eq!(offsets(flusher.line.next()), [1]);
        assert!(flusher.line.next().is_none());
        assert!(!flusher.is_behind());
    }

    #[test]
    fn what_nobody_waits_for_gathers_until_somebody_does() {
        let flusher = idle();
        flusher.take(vec![committed(0, None)]);
        flusher.take(vec![committed(1, None)]);
        flusher.take(vec![committed(2, Some(oneshot::channel().0))]);
        // Would gather for longer if nobody did.
        flusher.line.lock().since = Some(Instant::now() + Duration::from_secs(600));
        assert_eq!(offsets(flusher.line.next()), [0, 1, 2]);
        let began = Instant::now();
        flusher.take(vec![committed(3, None)]);
        assert_eq!(offsets(flusher.line.next()), [3]);
        assert!(began.elapsed() >= LATER, "it gathered");
        flusher.take(vec![committed(4, None)]);
        flusher.line.lock().is_closing = true;
        assert_eq!(offsets(flusher.line.next()), [4]);
        assert!(flusher.line.next().is_none());
    }

    #[test]
    fn a_flush_that_fails_is_the_last() {
        // Cannot be flushed.
        let file = File::open("/dev/null").unwrap();
        let flusher = idle();
        let shared = &flusher.shared;
        let (answer, mut answered) = oneshot::channel();
        flusher.take(vec![committed(0, Some(answer))]);
        flusher.line.lock().is_closing = true;
        flush_all(&file, &flusher.line, shared);
        let why = flusher.failure().expect("it failed");
        assert_eq!(answered.try_recv(), Ok(Err(AppendError::Unavailable(why.clone()))));
        let (answer, mut answered) = oneshot::channel();
        flusher.take(vec![committed(1, Some(answer))]);
        assert_eq!(answered.try_recv(), Ok(Err(AppendError::Unavailable(why.clone()))), "nothing more is taken");
        let health = locked(&shared.health).clone();
        assert_eq!((health.is_failing, health.last_error), (true, Some(why)));
        assert_eq!(shared.flushed[0].load(Ordering::Acquire), 0, "nobody is shown what may be lost");
        assert!(shared.recent.read(0, 0, 1000).is_none());
    }

    #[test]
    fn what_is_flushed_is_shown_and_answered() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create(directory.path().join("file")).unwrap();
        let flusher = idle();
        let shared = &flusher.shared;
        let (answer, mut answered) = oneshot::channel();
        flusher.take(vec![committed(0, None), committed(1, Some(answer))]);
        flusher.line.lock().is_closing = true;
        flush_all(&file, &flusher.line, shared);
        assert_eq!(answered.try_recv(), Ok(Ok(Appended { offset: 1, append_time: TimeMs(5) })));
        assert_eq!(shared.flushed[0].load(Ordering::Acquire), 2);
        assert_eq!(shared.recent.read(0, 0, 1000).map(|entries| entries.len()), Some(2));
        assert_eq!((*locked(&shared.generation), locked(&shared.health).commits), (1, 1));
    }
}
