//! Durations as people write them (`35d`, `1h30m`, `500ms`) and back, exactly.

use std::time::Duration;

/// Units by their milliseconds, largest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a text is no duration; worded as the end of a sentence that starts with its
/// key.
pub(crate) const DURATION_SYNTAX: &str = "must be a duration such as `35d`, `12h`, `1h30m`, `5s` or `250ms`";

/// Reads `1d12h`, `5m`, `250ms`: whole numbers, each with its unit, largest first.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total_ms = 0_u64;
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let (_, unit_ms) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        if unit_ms >= smallest {
            return None;
        }
        smallest = unit_ms;
        total_ms = total_ms.checked_add(number.parse::<u64>().ok()?.checked_mul(unit_ms)?)?;
        rest = tail.trim_start();
    }
    (smallest != u64::MAX).then(|| Duration::from_millis(total_ms))
}

/// The text that [`parse_duration`] reads back as the same number of milliseconds.
pub(crate) fn display_duration(duration: Duration) -> String {
    let mut rest_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest_ms == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (name, unit_ms) in UNITS {
        if rest_ms >= unit_ms {
            text.push_str(&format!("{}{name}", rest_ms / unit_ms));
            rest_ms %= unit_ms;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_exactly_or_not_at_all() {
        let cases = [
            ("35d", Some(35 * 86_400_000)),
            ("1h30m", Some(5_400_000)),
            ("1h 30m", Some(5_400_000)),
            ("250ms", Some(250)),
            ("0s", Some(0)),
            ("", None),
            ("5", None),
            ("s", None),
            ("1.5h", None),
            ("-1s", None),
            ("30m1h", None),
            ("1h1h", None),
            ("1w", None),
            ("999999999999999999999s", None),
            ("99999999999999999d", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text), expected.map(Duration::from_millis), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_duration_survives_its_own_text(ms: u64) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&display_duration(duration)), Some(duration));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,20}") {
            let _ = parse_duration(&text);
        }
    }
}
