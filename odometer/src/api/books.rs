//! Read-only handles on the books, a few at a time: SQLite reads block, so they run
//! on blocking threads, and a burst of questions waits instead of opening files.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use odometer_sink::BookError;
use odometer_sink::raw::SqliteRaw;
use odometer_sink::totals::SqliteTotals;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{Problem, ProblemKind};
use crate::node::files::Files;

/// Questions asked of the books at once. More than the cores of a small machine
/// would only make each slower.
const READERS_MAX: usize = 4;
/// How long a question waits for its turn. Whoever waited so long had better ask for
/// less, or later.
const WAIT_MAX: Duration = Duration::from_secs(10);

pub(crate) struct Books {
    files: Files,
    places: Arc<Semaphore>,
    totals: Mutex<Vec<SqliteTotals>>,
    raw: Mutex<Vec<SqliteRaw>>,
}

impl Books {
    pub(crate) fn new(files: Files) -> Self {
        Self { files, places: Arc::new(Semaphore::new(READERS_MAX)), totals: Mutex::default(), raw: Mutex::default() }
    }

    /// Asks the totals book.
    pub(crate) async fn totals<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&mut SqliteTotals) -> Result<T, BookError> + Send + 'static,
    ) -> Result<T, Problem> {
        let open = |files: &Files| SqliteTotals::open_read_only(&files.totals());
        self.ask(|books| &books.totals, open, question).await
    }

    /// Asks the raw book.
    pub(crate) async fn raw<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&mut SqliteRaw) -> Result<T, BookError> + Send + 'static,
    ) -> Result<T, Problem> {
        let open = |files: &Files| SqliteRaw::open_read_only(&files.raw());
        self.ask(|books| &books.raw, open, question).await
    }

    async fn ask<B: Send + 'static, T: Send + 'static>(
        self: &Arc<Self>,
        idle: impl Fn(&Books) -> &Mutex<Vec<B>> + Send + 'static,
        open: impl FnOnce(&Files) -> Result<B, BookError> + Send + 'static,
        question: impl FnOnce(&mut B) -> Result<T, BookError> + Send + 'static,
    ) -> Result<T, Problem> {
        let place = self.place().await?;
        let books = Arc::clone(self);
        let answer = tokio::task::spawn_blocking(move || {
            // Kept to the end of the question, also when nobody waits for the answer
            // any more.
            let _place = place;
            let take = || idle(&books).lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut book = take().map_or_else(|| open(&books.files), Ok)?;
            let answer = question(&mut book)?;
            // A handle that failed is closed; a good one is kept for the next question.
            idle(&books).lock().unwrap_or_else(PoisonError::into_inner).push(book);
            Ok::<T, BookError>(answer)
        });
        match answer.await {
            Ok(answer) => answer.map_err(Problem::from),
            Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
            Err(_) => Err(Problem::new(ProblemKind::BookUnavailable, "the process is stopping", "ask again later")),
        }
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        match tokio::time::timeout(WAIT_MAX, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            // The semaphore is never closed, so it is the time that ran out.
            _ => {
                let detail = "too many questions are being answered";
                Err(Problem::new(ProblemKind::BookUnavailable, detail, "ask again as Retry-After says"))
            }
        }
    }
}
