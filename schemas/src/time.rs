//! Millisecond UTC time and the tumbling windows on it.

use bincode::{Decode, Encode};
use std::fmt;

use jiff::Timestamp;

use crate::limits::{TIME_MS_MAX, TIME_MS_MIN};

/// Milliseconds of a minute, an hour, a day.
pub const MINUTE_MS: i64 = 60_000;
/// Milliseconds of an hour.
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
/// Milliseconds of a day. UTC here has no leap seconds, as POSIX defines it.
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// A point in time: Unix milliseconds, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct TimeMs(pub i64);

/// Why a text or number is not an event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Not RFC 3339, or without a zone.
    #[error("not an RFC 3339 time such as 2026-01-31T12:00:00Z")]
    NotATime,
    /// Outside the years 2000 to 2199.
    #[error("is outside the years 2000 to 2199")]
    OutOfRange,
}

impl TimeMs {
    /// Reads an RFC 3339 time with its zone. Digits below a millisecond are cut
    /// off, towards the past.
    ///
    /// # Errors
    /// When the text is no such time, or outside the years 2000 to 2199.
    pub fn parse_rfc3339(text: &str) -> Result<Self, TimeError> {
        // RFC 3339 has exactly one shape; jiff also reads other ISO 8601 ones.
        let bytes = text.as_bytes();
        let shaped =
            bytes.len() >= 20 && bytes[4] == b'-' && bytes[7] == b'-' && matches!(bytes[10], b'T' | b't' | b' ');
        if !shaped || text.contains('[') {
            return Err(TimeError::NotATime);
        }
        let timestamp: Timestamp = text.parse().map_err(|_| TimeError::NotATime)?;
        Self::floor(timestamp).checked()
    }

    /// A timestamp's millisecond, rounded towards the past.
    #[must_use]
    pub fn floor(timestamp: Timestamp) -> Self {
        let nanoseconds = timestamp.as_nanosecond().div_euclid(1_000_000);
        // jiff's range is years -9999 to 9999, far inside 64-bit milliseconds.
        Self(i64::try_from(nanoseconds).unwrap_or(i64::MAX))
    }

    /// `self` when it lies in the years that event times may have.
    ///
    /// # Errors
    /// [`TimeError::OutOfRange`] outside the years 2000 to 2199.
    pub fn checked(self) -> Result<Self, TimeError> {
        if (TIME_MS_MIN..TIME_MS_MAX).contains(&self.0) { Ok(self) } else { Err(TimeError::OutOfRange) }
    }

    /// `self` moved by `ms` milliseconds, saturating at the ends of the range.
    #[must_use]
    pub fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

impl fmt::Display for TimeMs {
    /// RFC 3339 in UTC, with milliseconds only where there are any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_millisecond(self.0) {
            Ok(timestamp) => timestamp.fmt(f),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

/// The width of a tumbling window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WindowKind {
    /// Sixty seconds.
    Minute,
    /// Sixty minutes.
    Hour,
    /// A UTC day.
    Day,
}

impl WindowKind {
    /// The window's width in milliseconds.
    #[must_use]
    pub const fn width_ms(self) -> i64 {
        match self {
            Self::Minute => MINUTE_MS,
            Self::Hour => HOUR_MS,
            Self::Day => DAY_MS,
        }
    }

    /// The start of the window that holds `time`.
    #[must_use]
    pub const fn start_of(self, time: TimeMs) -> TimeMs {
        TimeMs(time.0 - time.0.rem_euclid(self.width_ms()))
    }
}

/// A half-open interval `[start, end)` of event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    /// First millisecond inside.
    pub start: TimeMs,
    /// First millisecond after.
    pub end: TimeMs,
}

impl Interval {
    /// Whether `time` lies inside.
    #[must_use]
    pub fn contains(&self, time: TimeMs) -> bool {
        self.start <= time && time < self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_is_read_to_the_millisecond_and_nothing_else_is() {
        let cases = [
            ("2023-11-16T18:17:03.9799600Z", Ok(1_700_158_623_979)),
            ("2023-11-16T19:17:03.979+01:00", Ok(1_700_158_623_979)),
            ("2023-11-16 18:17:03Z", Ok(1_700_158_623_000)),
            ("2023-11-16T18:17:03", Err(TimeError::NotATime)),
            ("2023-11-16", Err(TimeError::NotATime)),
            ("1700158623", Err(TimeError::NotATime)),
            ("yesterday", Err(TimeError::NotATime)),
            ("1999-12-31T23:59:59Z", Err(TimeError::OutOfRange)),
            ("2200-01-01T00:00:00Z", Err(TimeError::OutOfRange)),
            ("2023-13-16T18:17:03Z", Err(TimeError::NotATime)),
        ];
        for (text, expected) in cases {
            assert_eq!(TimeMs::parse_rfc3339(text), expected.map(TimeMs), "{text}");
        }
    }

    #[test]
    fn windows_start_on_their_own_grid_before_and_after_1970() {
        assert_eq!(WindowKind::Minute.start_of(TimeMs(-1)), TimeMs(-MINUTE_MS));
        assert_eq!(WindowKind::Hour.start_of(TimeMs(1_700_158_623_979)), TimeMs(1_700_157_600_000));
        assert_eq!(WindowKind::Day.start_of(TimeMs(DAY_MS)), TimeMs(DAY_MS));
    }
}
