//! Billing periods: calendar months, or months anchored to a subscription.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::time::{Interval, TimeMs};

/// How a tenant's time is cut into billing periods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PeriodRule {
    /// UTC calendar months.
    #[default]
    CalendarMonth,
    /// Months counted from an anchor. A month without the anchor's day ends on its
    /// last day, and the day returns in the next month that has it (31 January →
    /// 28 February → 31 March), as Stripe's `billing_cycle_anchor` documents it.
    Anchored {
        /// The subscription's start.
        anchor: TimeMs,
    },
}

impl PeriodRule {
    /// The period that holds `time`.
    #[must_use]
    pub fn period_of(self, time: TimeMs) -> Interval {
        match self {
            Self::CalendarMonth => {
                let date = civil(time).date();
                let start = date.first_of_month();
                Interval { start: midnight(start), end: midnight(start.saturating_add(1.month())) }
            }
            Self::Anchored { anchor } => anchored(anchor, time),
        }
    }
}

/// The calendar month named by `YYYY-MM`.
#[must_use]
pub fn parse_month(text: &str) -> Option<Interval> {
    let (year, month) = text.split_once('-')?;
    if year.len() != 4 || month.len() != 2 {
        return None;
    }
    let start = Date::new(year.parse().ok()?, month.parse().ok()?, 1).ok()?;
    Some(PeriodRule::CalendarMonth.period_of(midnight(start)))
}

fn anchored(anchor: TimeMs, time: TimeMs) -> Interval {
    let (from, at) = (civil(anchor), civil(time));
    let mut months =
        (i32::from(at.year()) - i32::from(from.year())) * 12 + i32::from(at.month()) - i32::from(from.month());
    // Months are added to the anchor itself, never to the last start, so that the
    // anchor's day is not lost in a short month.
    let start_of = |months: i32| instant(from.saturating_add(months.months()));
    if start_of(months) > time {
        months -= 1;
    }
    Interval { start: start_of(months), end: start_of(months + 1) }
}

fn civil(time: TimeMs) -> DateTime {
    Timestamp::from_millisecond(time.0).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC).datetime()
}

fn midnight(date: Date) -> TimeMs {
    instant(date.to_datetime(jiff::civil::Time::midnight()))
}

fn instant(at: DateTime) -> TimeMs {
    TimeZone::UTC.to_timestamp(at).map_or(TimeMs(i64::MAX), TimeMs::floor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> TimeMs {
        TimeMs::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn calendar_months_are_utc() {
        let period = PeriodRule::CalendarMonth.period_of(at("2024-02-29T23:59:59.999Z"));
        assert_eq!((period.start, period.end), (at("2024-02-01T00:00:00Z"), at("2024-03-01T00:00:00Z")));
        assert_eq!(parse_month("2024-02"), Some(period));
        for bad in ["2024-13", "2024-2", "24-02", "2024", "2024-02-01"] {
            assert_eq!(parse_month(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_anchor_on_the_31st_survives_short_months() {
        let rule = PeriodRule::Anchored { anchor: at("2023-01-31T10:30:00Z") };
        let cases = [
            ("2023-02-10T00:00:00Z", "2023-01-31T10:30:00Z", "2023-02-28T10:30:00Z"),
            ("2023-02-28T10:30:00Z", "2023-02-28T10:30:00Z", "2023-03-31T10:30:00Z"),
            ("2024-02-29T10:29:59Z", "2024-01-31T10:30:00Z", "2024-02-29T10:30:00Z"),
            ("2022-12-31T10:29:59Z", "2022-11-30T10:30:00Z", "2022-12-31T10:30:00Z"),
        ];
        for (time, start, end) in cases {
            assert_eq!(rule.period_of(at(time)), Interval { start: at(start), end: at(end) }, "{time}");
        }
    }

    proptest! {
        #[test]
        fn periods_tile_time(anchor in 946_684_800_000_i64..4_000_000_000_000, time in 946_684_800_000_i64..4_000_000_000_000) {
            for rule in [PeriodRule::CalendarMonth, PeriodRule::Anchored { anchor: TimeMs(anchor) }] {
                let period = rule.period_of(TimeMs(time));
                prop_assert!(period.contains(TimeMs(time)));
                prop_assert_eq!(rule.period_of(period.end).start, period.end);
                prop_assert_eq!(rule.period_of(period.start), period);
            }
        }
    }
}
