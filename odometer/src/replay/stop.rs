//! The one way to end a replay early, heard by threads and tasks alike.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// How long a blocking sleeper may take to notice, at most.
const SLICE: Duration = Duration::from_millis(20);

/// Why a replay ends before its file does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    /// The user asked for it.
    Interrupted,
    /// Sending cannot go on: the text says why.
    Failed(String),
}

/// A handle on the replay's end; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Stop(Arc<watch::Sender<Option<StopReason>>>);

impl Stop {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Ends the replay. The first reason stays.
    pub(super) fn request(&self, reason: StopReason) {
        self.0.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(reason);
            first
        });
    }

    /// The reason, once there is one.
    pub(super) fn reason(&self) -> Option<StopReason> {
        self.0.borrow().clone()
    }

    /// Whether the replay is to end.
    pub(super) fn is_requested(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Returns once the replay is to end.
    pub(super) async fn requested(&self) {
        let mut receiver = self.0.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = receiver.wait_for(Option::is_some).await;
    }

    /// Blocks until `deadline`, or until the replay is to end.
    pub(super) fn sleep_until(&self, deadline: Instant) {
        while !self.is_requested() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(SLICE));
        }
    }
}
