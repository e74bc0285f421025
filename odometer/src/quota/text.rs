//! Numbers and times as answers show them, written without the formatting machinery:
//! every answer has some ten of them.

use std::cell::RefCell;

use odometer_schemas::time::TimeMs;
use serde::{Serialize, Serializer};

/// Seconds whose text a thread keeps: that of now, and of the ends of a few periods.
const SECONDS_KEPT: usize = 8;

/// A number that JSON shows as a text.
pub(super) struct Digits(pub(super) i64);

/// A time, as [`TimeMs`] shows itself.
pub(super) struct Moment(pub(super) TimeMs);

impl Serialize for Digits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(itoa::Buffer::new().format(self.0))
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        thread_local! {
            static LAST: RefCell<String> = const { RefCell::new(String::new()) };
        }
        LAST.with_borrow_mut(|text| {
            text.clear();
            write_moment(self.0, text);
            serializer.serialize_str(text)
        })
    }
}

fn write_moment(time: TimeMs, text: &mut String) {
    thread_local! {
        static KEPT: RefCell<[(Option<i64>, String); SECONDS_KEPT]> = RefCell::default();
    }
    let (second, ms) = (time.0.div_euclid(1_000), time.0.rem_euclid(1_000));
    let place = usize::try_from(second.rem_euclid(SECONDS_KEPT as i64)).unwrap_or(0);
    KEPT.with_borrow_mut(|kept| {
        let (known, of_second) = &mut kept[place];
        if *known != Some(second) {
            *of_second = TimeMs(second.saturating_mul(1_000)).to_string();
            *known = Some(second);
        }
        match of_second.strip_suffix('Z') {
            Some(start) => {
                text.push_str(start);
                write_fraction(ms, text);
                text.push('Z');
            }
            // Beyond what a calendar has.
            None => text.push_str(&time.to_string()),
        }
    });
}

/// Milliseconds behind a second, without zeros at the end.
fn write_fraction(ms: i64, text: &mut String) {
    if ms == 0 {
        return;
    }
    let before = text.len() + 1;
    // Four digits, of which the first gives way to the point.
    text.push_str(itoa::Buffer::new().format(1_000 + ms));
    text.replace_range(before - 1..before, ".");
    text.truncate(text.trim_end_matches('0').len());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_are_written_as_they_show_themselves(
            ms in prop_oneof![any::<i64>(), -4_102_444_800_000_i64..4_102_444_800_000],
            step in prop_oneof![Just(1), Just(10), Just(100), Just(1_000)],
        ) {
            for at in [ms, ms / step * step, ms.saturating_add(8_000), i64::MAX, i64::MIN] {
                let mut text = String::new();
                write_moment(TimeMs(at), &mut text);
                prop_assert_eq!(text, TimeMs(at).to_string());
            }
        }
    }

    #[test]
    fn both_are_texts_in_json() {
        let shown = serde_json::to_string(&(Digits(i64::MIN), Moment(TimeMs(1_500)))).unwrap();
        assert_eq!(shown, r#"["-9223372036854775808","1970-01-01T00:00:01.5Z"]"#);
    }
}
