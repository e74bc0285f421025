//! Moves pages from the write-ahead log into the file beside the writer. The write-ahead
//! log only begins anew once all of it was moved and nobody writes: the writer moves the
//! last pages itself, seldom, because that takes three flushes, one of the whole file. Has
//! what is written next fetched into memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use super::EmbeddedOptions;
use super::ahead::Ahead;
use super::store::{Store, is_of_the_disk};
use crate::log::LogError;

/// Pages written after which they are moved: 4 MiB.
const PAGES_TO_MOVE: usize = 512;
/// Pages of the write-ahead log at which it is to begin anew: 64 MiB, which the next start
/// after a crash moves within a second.
const PAGES_TO_RESTART: u64 = 8 * 1024;
/// Pages at which the writer moves the rest, however much it is.
const PAGES_MAX: u64 = 10 * 1024;
/// Pages that are left to the writer: a millisecond of its time.
const PAGES_LEFT_MAX: u64 = 48;
/// How often what was written meanwhile is moved, too, before the writer is left the rest.
const PASSES_MAX: u32 = 8;

/// The writer's end: says when there is something to move, and hears when most of it was.
/// Dropped, it ends the keeper's thread.
#[derive(Debug)]
pub(super) struct Keeper {
    calls: Option<SyncSender<()>>,
    told: Arc<Told>,
    thread: Option<JoinHandle<()>>,
    /// About as many pages were written since the last call.
    pages: usize,
}

/// What the keeper tells the writer.
#[derive(Debug, Default)]
struct Told {
    is_nearly_done: AtomicBool,
    /// The disk did not take what was moved.
    has_failed: AtomicBool,
}

impl Keeper {
    /// Starts the thread for the log at `path`.
    ///
    /// # Errors
    /// When the thread cannot be had or the file not be opened once more.
    pub(super) fn start(path: &Path, options: &EmbeddedOptions) -> Result<Self, LogError> {
        let store = Store::open(path, options.partitions)?;
        // One call says as much as many do.
        let (calls, called) = sync_channel(1);
        let told = Arc::new(Told::default());
        let (tell, prepare) = (Arc::clone(&told), options.in_background);
        let run = move || {
            prepare();
            keep(&store, &called, &tell);
        };
        let thread = std::thread::Builder::new().name("log-keeper".into()).spawn(run);
        let thread = thread.map_err(|error| LogError::Storage {
            doing: "starting the thread beside the writer",
            source: Box::new(error),
        })?;
        Ok(Self { calls: Some(calls), told, thread: Some(thread), pages: 0 })
    }

    /// Lets it end what it does, and ends it.
    pub(super) fn end(&mut self) {
        self.calls = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread beside the log's writer panicked");
        }
    }

    /// Counts what was written, so that it is moved in time.
    pub(super) fn wrote(&mut self, pages: usize) {
        self.pages += pages;
        if self.pages >= PAGES_TO_MOVE {
            self.pages = 0;
            // Full where it was called and has not begun; called again soon.
            if let Some(Err(TrySendError::Disconnected(()))) = self.calls.as_ref().map(|calls| calls.try_send(())) {
                tracing::error!("nobody moves pages beside the log's writer any more: the thread panicked");
                self.calls = None;
            }
        }
    }

    /// Whether the writer should move the rest now; the keeper moves nothing until it
    /// [goes on](Self::goes_on).
    pub(super) fn leaves_the_rest(&self) -> bool {
        self.told.is_nearly_done.load(Ordering::Relaxed)
    }

    /// Whether pages may be missing in the file that are taken for moved.
    pub(super) fn has_failed(&self) -> bool {
        self.told.has_failed.load(Ordering::Relaxed)
    }

    /// The writer has moved what it could.
    pub(super) fn goes_on(&self) {
        self.told.is_nearly_done.store(false, Ordering::Relaxed);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end();
    }
}

/// Works until nobody can call any more.
fn keep(store: &Store, called: &Receiver<()>, told: &Told) {
    let ahead = Ahead::of(store);
    // Of the write-ahead log, as far as is known.
    let mut next_page = 0;
    while called.recv().is_ok() {
        // The writer moves the rest, and needs the lock for that.
        if told.is_nearly_done.load(Ordering::Relaxed) {
            continue;
        }
        ahead.ask(next_page);
        match move_most(store, &ahead, &mut next_page) {
            Ok(false) => {}
            Ok(true) => told.is_nearly_done.store(true, Ordering::Relaxed),
            Err(error) => {
                tracing::warn!("pages of the embedded log were not moved beside its writer: {error}");
                if is_of_the_disk(&error) {
                    return told.has_failed.store(true, Ordering::Relaxed);
                }
            }
        }
    }
}

/// Moves what there is, and again what came meanwhile where the write-ahead log should begin
/// anew; returns whether the rest is for the writer. Notes where the next page will stand.
fn move_most(store: &Store, ahead: &Ahead, next_page: &mut u64) -> rusqlite::Result<bool> {
    for pass in 0..PASSES_MAX {
        let Some(moved) = store.move_pages()? else { break };
        *next_page = moved.next_page();
        if moved.pages < PAGES_TO_RESTART {
            break;
        }
        if pass == 0 {
            // Not after the last pass: what is written meanwhile would be left to the writer.
            ahead.ask(0);
        } else if moved.left <= PAGES_LEFT_MAX || moved.pages >= PAGES_MAX {
            *next_page = 0;
            return Ok(true);
        }
    }
    Ok(false)
}
