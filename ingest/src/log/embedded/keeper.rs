//! Moves pages from the write-ahead log into the file beside the writer. The write-ahead
//! log only begins anew once all of it was moved and nobody writes: the writer moves the
//! last pages itself, seldom, because that takes three flushes of some milliseconds each.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::EmbeddedOptions;
use super::store::Store;
use crate::log::LogError;

/// Pages written after which they are moved: 4 MiB.
const PAGES_TO_MOVE: usize = 512;
/// Pages written after which the write-ahead log is to begin anew: 64 MiB, which a crash
/// leaves to be read in a tenth of a second.
const PAGES_TO_RESTART: usize = 8 * 1024;
/// Pages that are left to the writer: a millisecond of its time.
const PAGES_LEFT_MAX: u64 = 48;
/// How often what was written meanwhile is moved, too, before the writer is left the rest.
const PASSES_MAX: u32 = 8;

/// The writer's end: says when there is something to move, and hears when most of it was.
/// Dropped, it ends the keeper's thread.
#[derive(Debug)]
pub(super) struct Keeper {
    calls: Option<SyncSender<Call>>,
    is_nearly_done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// About as many pages were written since the last call, and since the write-ahead log
    /// began anew.
    pages: usize,
    pages_in_all: usize,
}

/// What is asked of the thread.
#[derive(Clone, Copy, Debug)]
struct Call {
    /// Whether to move so many that the writer can move the rest.
    is_restart: bool,
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
        let is_nearly_done = Arc::new(AtomicBool::new(false));
        let (tell, prepare) = (Arc::clone(&is_nearly_done), options.in_background);
        let run = move || {
            prepare();
            keep(&store, &called, &tell);
        };
        let thread = std::thread::Builder::new().name("log-keeper".into()).spawn(run);
        let thread = thread.map_err(|error| LogError::Storage {
            doing: "starting the thread beside the writer",
            source: Box::new(error),
        })?;
        Ok(Self { calls: Some(calls), is_nearly_done, thread: Some(thread), pages: 0, pages_in_all: 0 })
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
        self.pages_in_all += pages;
        if self.pages >= PAGES_TO_MOVE {
            self.pages = 0;
            let call = Call { is_restart: self.pages_in_all >= PAGES_TO_RESTART };
            // Full where it was called and has not begun; called again soon.
            let _ = self.calls.as_ref().map(|calls| calls.try_send(call));
        }
    }

    /// The write-ahead log begins anew.
    pub(super) fn restarts(&mut self) {
        self.pages_in_all = 0;
    }

    /// Whether the writer should move the rest now.
    pub(super) fn leaves_the_rest(&self) -> bool {
        self.is_nearly_done.load(Ordering::Relaxed) && self.is_nearly_done.swap(false, Ordering::Relaxed)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end();
    }
}

/// Works until nobody can call any more.
fn keep(store: &Store, called: &Receiver<Call>, is_nearly_done: &AtomicBool) {
    while let Ok(Call { is_restart }) = called.recv() {
        let passes = if is_restart { PASSES_MAX } else { 1 };
        for _ in 0..passes {
            match store.move_pages() {
                Ok(Some(left)) if left > PAGES_LEFT_MAX => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!("pages of the embedded log were not moved beside its writer: {error}");
                    break;
                }
            }
        }
        is_nearly_done.store(is_restart, Ordering::Relaxed);
    }
}
