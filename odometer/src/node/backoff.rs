//! Growing pauses between attempts while something outside cannot be reached.

use std::time::{Duration, Instant};

/// The first pause: what a restart of a broker takes at best.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The last one: whatever comes back is used within two seconds.
const PAUSE_MAX: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pause: Duration,
    until: Option<Instant>,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { pause: PAUSE_MIN, until: None }
    }

    /// Waits, longer every time.
    pub(crate) fn sleep(&mut self) {
        std::thread::sleep(self.next());
    }

    /// Rests from now on, longer every time; [`is_resting`](Self::is_resting) tells.
    pub(crate) fn rest(&mut self) {
        let pause = self.next();
        self.until = Some(Instant::now() + pause);
    }

    pub(crate) fn is_resting(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    /// It worked: the next pause is a short one again.
    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }

    fn next(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        pause
    }
}
