//! Read-only handles on the books, a few at a time: SQLite reads block, so they run
//! on blocking threads, and a burst of questions waits instead of opening files.

use std::sync::{Mutex, PoisonError};

use odometer_sink::BookError;
use odometer_sink::raw::SqliteRaw;
use odometer_sink::totals::SqliteTotals;
use tokio::sync::Semaphore;

use crate::node::files::Files;

/// Questions asked of the books at once. More than the cores of a small machine
/// would only make each slower.
const READERS_MAX: usize = 4;

pub(crate) struct Books {
    files: Files,
    places: Semaphore,
    totals: Mutex<Vec<SqliteTotals>>,
    raw: Mutex<Vec<SqliteRaw>>,
}

impl Books {
    pub(crate) fn new(files: Files) -> Self {
        Self { files, places: Semaphore::new(READERS_MAX), totals: Mutex::default(), raw: Mutex::default() }
    }

    /// Asks the totals book.
    pub(crate) async fn totals<T: Send + 'static>(
        self: std::sync::Arc<Self>,
        question: impl FnOnce(&mut SqliteTotals) -> Result<T, BookError> + Send + 'static,
    ) -> Result<T, BookError> {
        let open = |files: &Files| SqliteTotals::open_read_only(&files.totals());
        ask(self, |books| &books.totals, open, question).await
    }

    /// Asks the raw book.
    pub(crate) async fn raw<T: Send + 'static>(
        self: std::sync::Arc<Self>,
        question: impl FnOnce(&mut SqliteRaw) -> Result<T, BookError> + Send + 'static,
    ) -> Result<T, BookError> {
        let open = |files: &Files| SqliteRaw::open_read_only(&files.raw());
        ask(self, |books| &books.raw, open, question).await
    }
}

async fn ask<B: Send + 'static, T: Send + 'static>(
    books: std::sync::Arc<Books>,
    idle: impl Fn(&Books) -> &Mutex<Vec<B>> + Send + 'static,
    open: impl FnOnce(&Files) -> Result<B, BookError> + Send + 'static,
    question: impl FnOnce(&mut B) -> Result<T, BookError> + Send + 'static,
) -> Result<T, BookError> {
    let asked = std::sync::Arc::clone(&books);
    // The semaphore is never closed.
    let _place = books.places.acquire().await.ok();
    let answer = tokio::task::spawn_blocking(move || {
        let take = || idle(&asked).lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut book = take().map_or_else(|| open(&asked.files), Ok)?;
        let answer = question(&mut book)?;
        // A handle that failed is closed; a good one is kept for the next question.
        idle(&asked).lock().unwrap_or_else(PoisonError::into_inner).push(book);
        Ok(answer)
    });
    answer.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
