//! The header fields `RateLimit-Policy` and `RateLimit` of the IETF draft
//! draft-ietf-httpapi-ratelimit-headers-10: lists of structured fields (RFC 9651), one
//! member per limit. Unlimited ones are left out, since a policy needs a quota.

use std::cell::Cell;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use odometer_schemas::quota::LimitState;
use odometer_schemas::time::TimeMs;

/// Largest integer of a structured field (RFC 9651, section 3.3.1).
const INTEGER_MAX: i64 = 999_999_999_999_999;
const SECOND_MS: i64 = 1_000;
/// What a list of one limit takes, and most of two.
const LIST_BYTES: usize = 128;

/// `"pro/agent_minute/tenant";q=600000000;w=2592000`: what is granted, and per which
/// time. A concurrency limit has no window.
pub(crate) fn policies(limits: &[LimitState]) -> String {
    let mut list = String::with_capacity(LIST_BYTES);
    for limit in limits {
        if let Some(granted) = limit.limit {
            member(&mut list, &limit.policy);
            parameter(&mut list, "q", granted);
            if let Some(resets_at) = limit.resets_at {
                parameter(&mut list, "w", window_s(resets_at));
            }
        }
    }
    list
}

/// `"pro/agent_minute/tenant";r=1200;t=86400`: what is left, and for how long.
pub(crate) fn standing(limits: &[LimitState], now: TimeMs) -> String {
    let mut list = String::with_capacity(LIST_BYTES);
    for limit in limits {
        if let (Some(_), Some(remaining)) = (limit.limit, limit.remaining) {
            member(&mut list, &limit.policy);
            parameter(&mut list, "r", remaining);
            if let Some(resets_at) = limit.resets_at {
                parameter(&mut list, "t", seconds_until(resets_at, now));
            }
        }
    }
    list
}

/// Seconds from `now` to `at`, rounded up; zero for the past.
pub(crate) fn seconds_until(at: TimeMs, now: TimeMs) -> i64 {
    let ms = at.0.saturating_sub(now.0).max(0);
    ms / SECOND_MS + i64::from(ms % SECOND_MS > 0)
}

/// A list member whose value is a string.
fn member(list: &mut String, policy: &str) {
    if !list.is_empty() {
        list.push_str(", ");
    }
    list.push('"');
    if policy.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        list.push_str(policy);
    } else {
        list.extend(
            policy
                .chars()
                .flat_map(|letter| match letter {
                    '"' | '\\' => [Some('\\'), Some(letter)],
                    ' '..='~' => [None, Some(letter)],
                    // A string holds printable ASCII only.
                    _ => [None, Some('?')],
                })
                .flatten(),
        );
    }
    list.push('"');
}

fn parameter(list: &mut String, name: &str, value: i64) {
    list.extend([";", name, "=", itoa::Buffer::new().format(value.clamp(0, INTEGER_MAX))]);
}

/// The length of the month that ends at `end`, in seconds: periods are months, of the
/// calendar or of a subscription.
fn window_s(end: TimeMs) -> i64 {
    thread_local! {
        // Answers in a row are mostly about one and the same period.
        static LAST: Cell<(TimeMs, i64)> = const { Cell::new((TimeMs(0), 0)) };
    }
    let (known, length_s) = LAST.get();
    if known == end {
        return length_s;
    }
    let length_s = month_before(end).unwrap_or(0);
    LAST.set((end, length_s));
    length_s
}

fn month_before(end: TimeMs) -> Option<i64> {
    let end = Timestamp::from_millisecond(end.0).ok()?.to_zoned(TimeZone::UTC);
    let start = end.checked_sub(1.month()).ok()?;
    Some(end.timestamp().as_second() - start.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use odometer_schemas::quota::Scope;

    use super::*;

    fn limit(policy: &str, limit: Option<i64>, resets_at: Option<&str>) -> LimitState {
        LimitState {
            policy: policy.into(),
            scope: Scope::Tenant,
            meter: "m".into(),
            limit,
            hard_limit: limit,
            used: 1,
            reserved: 0,
            remaining: limit.map(|limit| limit - 1),
            resets_at: resets_at.map(|text| TimeMs::parse_rfc3339(text).unwrap()),
        }
    }

    #[test]
    fn fields_name_every_limit_that_there_is() {
        let limits = [
            limit("free/agents/tenant", Some(1), None),
            limit("free/agent_minute/tenant", Some(6_000_000), Some("2026-12-01T00:00:00Z")),
            limit("enterprise/m/tenant", None, Some("2026-12-01T00:00:00Z")),
        ];
        let now = TimeMs::parse_rfc3339("2026-11-30T23:59:58.500Z").unwrap();
        assert_eq!(policies(&limits), "\"free/agents/tenant\";q=1, \"free/agent_minute/tenant\";q=6000000;w=2592000");
        assert_eq!(standing(&limits, now), "\"free/agents/tenant\";r=0, \"free/agent_minute/tenant\";r=5999999;t=2");
    }

    #[test]
    fn nothing_leaves_the_grammar() {
        let limits = [limit("a\"b\\c\nü", Some(i64::MAX), None)];
        assert_eq!(policies(&limits), "\"a\\\"b\\\\c??\";q=999999999999999");
        assert_eq!(policies(&[]), "");
        assert_eq!(seconds_until(TimeMs(1), TimeMs(5_000)), 0);
    }
}
