//! Read-only handles on the books, a few at a time: their reads block, so they run
//! on blocking threads, and a burst of questions waits instead of opening more.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use odometer_sink::BookError;
use odometer_sink::raw::RawBook;
use odometer_sink::totals::TotalsBook;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{Problem, ProblemKind};
use crate::node::footing::BookPlace;

/// Questions asked of the books at once. More than the cores of a small machine
/// would only make each slower.
const READERS_MAX: usize = 4;
/// How long a question waits for its turn. Whoever waited so long had better ask for
/// less, or later.
const WAIT_MAX: Duration = Duration::from_secs(10);

pub(crate) struct Books {
    place: BookPlace,
    turns: Arc<Semaphore>,
    totals: Mutex<Vec<Box<dyn TotalsBook>>>,
    raw: Mutex<Vec<Box<dyn RawBook>>>,
}

impl Books {
    pub(crate) fn new(place: BookPlace) -> Self {
        Self { place, turns: Arc::new(Semaphore::new(READERS_MAX)), totals: Mutex::default(), raw: Mutex::default() }
    }

    /// Asks the totals book.
    pub(crate) async fn totals<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&mut dyn TotalsBook) -> Result<T, BookError> + Send + 'static,
    ) -> Result<T, Problem> {
        self.ask(|books| &books.totals, BookPlace::totals, |book| question(book.as_mut())).await
    }

    /// Asks the raw book.
    pub(crate) async fn raw<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&mut dyn RawBook) -> Result<T, BookError> + Send + 'static,
    ) -> Result<T, Problem> {
        self.ask(|books| &books.raw, BookPlace::raw, |book| question(book.as_mut())).await
    }

    async fn ask<B: Send + 'static, T: Send + 'static>(
        self: &Arc<Self>,
        idle: impl Fn(&Books) -> &Mutex<Vec<B>> + Send + 'static,
        open: impl FnOnce(&BookPlace) -> Result<B, BookError> + Send + 'static,
        question: impl FnOnce(&mut B) -> Result<T, BookError> + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = self.turn().await?;
        let books = Arc::clone(self);
        let answer = tokio::task::spawn_blocking(move || {
            // Kept to the end of the question, also when nobody waits for the answer
            // any more.
            let _turn = turn;
            let take = || idle(&books).lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut book = take().map_or_else(|| open(&books.place), Ok)?;
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

    async fn turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        match tokio::time::timeout(WAIT_MAX, Arc::clone(&self.turns).acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            // The semaphore is never closed, so it is the time that ran out.
            _ => {
                let detail = "too many questions are being answered";
                Err(Problem::new(ProblemKind::BookUnavailable, detail, "ask again as Retry-After says"))
            }
        }
    }
}
