//! The driver's errors in, the book's out: what was being done, and whether the same
//! call may succeed later.

use std::borrow::Cow;
use std::future::Future;
use std::io::ErrorKind;
use std::time::Duration;

use tokio::time::timeout;

use crate::error::BookError;

const BOOK: &str = "totals book";

/// The server gave no answer in time; it may have done what it was asked to.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", .0.as_secs())]
struct NoAnswer(Duration);

/// Waits at most `wait` for one answer of the server.
pub(super) async fn answer<T>(
    doing: &'static str,
    wait: Duration,
    call: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, BookError> {
    match timeout(wait, call).await {
        Ok(answer) => answer.map_err(|error| failed(doing, error)),
        Err(_) => Err(BookError::Storage { book: BOOK, doing, retryable: true, source: Box::new(NoAnswer(wait)) }),
    }
}

/// Turns the driver's error into the book's.
pub(super) fn failed(doing: &'static str, error: sqlx::Error) -> BookError {
    let retryable = is_retryable(&error);
    // The driver's own layer would say everything twice.
    let source = match error {
        sqlx::Error::Database(error) => error.into_error(),
        sqlx::Error::Io(error) => error.into(),
        other => other.into(),
    };
    BookError::Storage { book: BOOK, doing, retryable, source }
}

fn is_retryable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Tls(cause) => cause
            .downcast_ref::<std::io::Error>()
            // A certificate that is wrong today is wrong tomorrow.
            .is_some_and(|cause| cause.kind() != ErrorKind::InvalidData),
        sqlx::Error::Database(error) => may_pass(&error.code().unwrap_or(Cow::Borrowed(""))),
        _ => false,
    }
}

/// Whether the server's state behind an error may pass by itself. Codes from
/// PostgreSQL's documentation, appendix A.
fn may_pass(sqlstate: &str) -> bool {
    // The database was dropped; nothing brings it back.
    const DATABASE_DROPPED: &str = "57P04";
    const PASSING: [&str; 6] = [
        "40001", // serialization failure, also on a standby that replays
        "40P01", // deadlock
        "25006", // read-only: this server has just become a standby
        "25P03", // idle in transaction for too long
        "55P03", // a lock was not granted in time
        "58030", // I/O error
    ];
    // Connection, resources (memory, disk, connections), operator intervention (also
    // the statement timeout, shutdown and start-up).
    const PASSING_CLASSES: [&str; 3] = ["08", "53", "57"];
    let in_class = PASSING_CLASSES.iter().any(|class| sqlstate.starts_with(class));
    sqlstate != DATABASE_DROPPED && (in_class || PASSING.contains(&sqlstate))
}

#[cfg(test)]
mod tests {
    use super::may_pass;

    #[test]
    fn only_what_may_pass_is_repeated() {
        for code in ["08006", "40001", "40P01", "53100", "53300", "55P03", "57014", "57P01", "57P03", "25006"] {
            assert!(may_pass(code), "{code}");
        }
        for code in ["", "21000", "22003", "22021", "23505", "28P01", "3D000", "42P01", "57P04", "XX001"] {
            assert!(!may_pass(code), "{code}");
        }
    }
}
