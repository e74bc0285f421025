//! A row's time text in, Unix milliseconds out, rounded towards the past. No zone
//! means UTC.

use jiff::Timestamp;
use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::tz::TimeZone;
use odometer_schemas::quantity::Quantity;
use odometer_schemas::time::{TimeError, TimeMs};

pub(super) use super::map::TimeUnit;

/// The name that stands for RFC 3339 instead of a pattern.
const RFC3339: &str = "rfc3339";

/// How a time's text is read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TimeReading {
    /// A `strptime` pattern.
    Pattern(String),
    /// RFC 3339 with its zone.
    Rfc3339,
    /// A number of units since an origin.
    Number {
        /// What one is.
        unit: TimeUnit,
        /// What zero is.
        origin: TimeMs,
    },
}

impl TimeReading {
    /// A reading by `format`: a `strptime` pattern, or `rfc3339`.
    ///
    /// # Errors
    /// When the pattern cannot be read back to the same date and second: it lacks a
    /// part, or has a directive that there is not.
    pub(super) fn text(format: &str) -> Result<Self, String> {
        if format == RFC3339 {
            return Ok(Self::Rfc3339);
        }
        let fix = "use a strptime pattern such as \"%Y-%m-%d %H:%M:%S%.f\", or \"rfc3339\"";
        // 2023-11-16T18:17:03Z: no two of its parts are equal.
        let sample = Timestamp::from_second(1_700_158_623).map_err(|e| e.to_string())?;
        let text = strtime::format(format, &sample.to_zoned(TimeZone::UTC))
            .map_err(|error| format!("is not a pattern ({error}); {fix}"))?;
        let day_of_sample =
            |time: TimeMs| time.0.div_euclid(86_400_000) == sample.as_millisecond().div_euclid(86_400_000);
        match by_pattern(format, &text) {
            Some(time) if day_of_sample(time) => Ok(Self::Pattern(format.into())),
            _ => Err(format!("must hold the whole date, with its year; {fix}")),
        }
    }

    /// A reading by numbers of `unit` since `origin`.
    pub(super) const fn number(unit: TimeUnit, origin: TimeMs) -> Self {
        Self::Number { unit, origin }
    }

    /// Reads one text.
    ///
    /// # Errors
    /// Says what is wrong, and what the map expects.
    pub(super) fn read(&self, text: &str) -> Result<TimeMs, String> {
        let time = match self {
            Self::Pattern(pattern) => {
                by_pattern(pattern, text).ok_or_else(|| format!("`{text}` does not match the pattern `{pattern}`"))?
            }
            Self::Rfc3339 => TimeMs::parse_rfc3339(text).map_err(|error| format!("`{text}` is {error}"))?,
            Self::Number { unit, origin } => {
                let relative_ms =
                    by_number(text, *unit).ok_or_else(|| format!("`{text}` is not a number of `{}`", unit.name()))?;
                origin.plus_ms(relative_ms)
            }
        };
        time.checked().map_err(|error: TimeError| match self {
            Self::Number { .. } => format!("`{text}` {error}; check the map's `unit` and `origin`"),
            _ => format!("`{text}` {error}"),
        })
    }
}

fn by_pattern(pattern: &str, text: &str) -> Option<TimeMs> {
    let parts = BrokenDownTime::parse(pattern, text).ok()?;
    let timestamp = match parts.to_timestamp() {
        Ok(timestamp) => timestamp,
        Err(_) => parts.to_datetime().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp(),
    };
    Some(TimeMs::floor(timestamp))
}

/// Milliseconds in a decimal number of units, rounded towards the past.
fn by_number(text: &str, unit: TimeUnit) -> Option<i64> {
    // Digits after the point that reach down to a nanosecond.
    let scale: u8 = match unit {
        TimeUnit::S => 9,
        TimeUnit::Ms => 6,
    };
    let (kept, cut) = cut_fraction(text, usize::from(scale));
    let Ok(Quantity(nanoseconds)) = Quantity::parse_decimal(kept, scale) else { return None };
    let below = i64::from(cut && text.starts_with('-'));
    Some((nanoseconds - below).div_euclid(1_000_000))
}

/// The text with at most `digits` after the point, and whether any that was cut off
/// counted. Programs that compute in floats print up to seventeen.
fn cut_fraction(text: &str, digits: usize) -> (&str, bool) {
    let Some((kept, rest)) = text.find('.').and_then(|point| text.split_at_checked(point + 1 + digits)) else {
        return (text, false);
    };
    if rest.bytes().all(|b| b.is_ascii_digit()) { (kept, rest.bytes().any(|b| b != b'0')) } else { (text, false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_millisecond_towards_the_past() {
        let azure = TimeReading::text("%Y-%m-%d %H:%M:%S%.f").unwrap();
        let zoned = TimeReading::text("%d/%b/%Y:%H:%M:%S %z").unwrap();
        let day = TimeReading::text("%Y%m%d").unwrap();
        let rfc = TimeReading::text("rfc3339").unwrap();
        let epoch = TimeReading::text("%s").unwrap();
        let seconds = TimeReading::number(TimeUnit::S, TimeMs(1_700_000_000_000));
        let ms = TimeReading::number(TimeUnit::Ms, TimeMs(0));
        let cases = [
            (&azure, "2023-11-16 18:17:03.9799600", Some(1_700_158_623_979)),
            (&azure, "2023-11-16 18:17:03", Some(1_700_158_623_000)),
            (&azure, "2023-11-16", None),
            (&azure, "", None),
            (&zoned, "16/Nov/2023:19:17:03 +0100", Some(1_700_158_623_000)),
            (&day, "20231116", Some(1_700_092_800_000)),
            (&rfc, "2023-11-16T18:17:03.9799600Z", Some(1_700_158_623_979)),
            (&rfc, "2023-11-16T18:17:03", None),
            (&epoch, "1700158623", Some(1_700_158_623_000)),
            (&seconds, "1.0019999", Some(1_700_000_001_001)),
            (&seconds, "0.30000000000000004", Some(1_700_000_000_300)),
            (&seconds, "-0.00000000001", Some(1_699_999_999_999)),
            (&seconds, "-1", Some(1_699_999_999_000)),
            (&seconds, "NaN", None),
            (&ms, "1700158623979.99", Some(1_700_158_623_979)),
            (&ms, "1700158623", None),
        ];
        for (reading, text, expected) in cases {
            assert_eq!(reading.read(text).ok(), expected.map(TimeMs), "{reading:?} {text}");
        }
    }

    #[test]
    fn a_pattern_that_loses_the_date_is_refused() {
        for format in ["%H:%M:%S", "%m-%d", "%Q", "%Y-%m", "%y"] {
            assert!(TimeReading::text(format).is_err(), "{format}");
        }
    }
}
