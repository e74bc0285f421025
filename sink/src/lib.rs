//! Stage 3 of Odometer: decisions go into the books.
//!
//! Two seams, each with a SQLite implementation and a test body for any other: the
//! totals book is the truth about what was decided, the raw book holds every judged
//! record and its rollups. What is pure stands apart from what performs.
//!
//! Reading path: [`totals`] (what the aggregator commits) → [`raw`] (what follows it)
//! → [`raw::RawGatherer`] (log and verdicts in, batches out) → [`mod@verify`] (the proof
//! that both agree).

pub mod error;
pub mod raw;
mod sqlite;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod totals;
pub mod verify;

pub use error::BookError;
pub use raw::{ClickHouseRaw, RawBatch, RawBook, RawGatherer, SqliteRaw};
pub use totals::{Claim, CommitError, Installation, OwnedCommit, PgTotals, SqliteTotals, TotalsBook};
pub use verify::{Report, VerifyScope, verify};
