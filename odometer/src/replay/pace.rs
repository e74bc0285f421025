//! When each row is due. Trace time in, moments of this run out.

use std::str::FromStr;
use std::time::{Duration, Instant};

use odometer_schemas::time::{MINUTE_MS, TimeMs};

/// How fast a trace is replayed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Speed {
    /// As fast as the server acknowledges.
    Max,
    /// So many times faster than the trace's own time.
    Factor(f64),
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.strip_suffix('x').unwrap_or(text).parse::<f64>() {
            Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(Self::Factor(factor)),
            _ => Err("must be `max` or a number above zero, such as 1 (as it happened), 60 or 0.5".into()),
        }
    }
}

/// What a first look at a trace's times tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Survey {
    /// Rows in the file.
    pub(super) rows: u64,
    /// The earliest event time.
    pub(super) first: TimeMs,
    /// The latest event time.
    pub(super) last: TimeMs,
    /// Whether rows come in the order of their times.
    pub(super) in_order: bool,
}

impl Survey {
    /// How far one repetition moves event times unless the map says otherwise: the
    /// time from the first to the last event and one millisecond more, rounded up to
    /// a whole minute. So repetitions never overlap, and every minute of one pass is
    /// a whole minute of the next.
    pub(super) fn span_ms(&self) -> i64 {
        let length_ms = self.length_ms();
        length_ms + (-length_ms).rem_euclid(MINUTE_MS)
    }

    /// From the first event to just after the last one.
    pub(super) fn length_ms(&self) -> i64 {
        self.last.0 - self.first.0 + 1
    }
}

/// Maps event times to moments of this run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// When the replay began.
    pub(super) start: Instant,
    /// The event time that is due then.
    pub(super) first: TimeMs,
    /// Trace seconds per second.
    pub(super) factor: f64,
}

impl Schedule {
    /// When an event of `time` is due.
    pub(super) fn due(&self, time: TimeMs) -> Instant {
        let trace_ms = (time.0 - self.first.0).max(0);
        // Pacing needs no exactness: f64 is exact to a millisecond for 285,000 years.
        #[expect(clippy::cast_precision_loss, reason = "a due time off by a fraction of a millisecond is harmless")]
        let seconds = trace_ms as f64 / 1000.0 / self.factor;
        let wait = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        self.start.checked_add(wait).unwrap_or(self.start + FAR)
    }
}

/// Stands for a due time that no clock holds: a year.
const FAR: Duration = Duration::from_secs(365 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_max_or_positive_numbers() {
        for (text, expected) in [("max", Speed::Max), ("1", Speed::Factor(1.0)), ("60x", Speed::Factor(60.0))] {
            assert_eq!(text.parse(), Ok(expected));
        }
        for text in ["", "0", "-1", "nan", "inf", "fast", "x"] {
            assert!(text.parse::<Speed>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_span_is_the_length_in_whole_minutes() {
        let span = |first, last| Survey { rows: 2, first: TimeMs(first), last: TimeMs(last), in_order: true }.span_ms();
        assert_eq!(span(5, 5), 60_000);
        assert_eq!(span(0, 59_999), 60_000);
        assert_eq!(span(0, 60_000), 120_000);
        assert_eq!(span(1_700_158_623_979, 1_700_162_059_928), 58 * 60_000);
    }

    #[test]
    fn a_due_time_is_trace_time_divided_by_the_factor() {
        let start = Instant::now();
        let schedule = Schedule { start, first: TimeMs(1_000), factor: 2.0 };
        assert_eq!(schedule.due(TimeMs(5_000)), start + Duration::from_secs(2));
        assert_eq!(schedule.due(TimeMs(0)), start);
        let slow = Schedule { start, first: TimeMs(0), factor: f64::MIN_POSITIVE };
        assert!(slow.due(TimeMs(1)) > start);
    }
}
