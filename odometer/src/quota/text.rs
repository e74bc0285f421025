//! Times as answers show them, written without the formatting machinery: every answer has
//! some of them.

use std::cell::RefCell;

use odometer_schemas::time::TimeMs;

/// Seconds whose text a thread keeps: that of now, and of the ends of a few periods.
const SECONDS_KEPT: usize = 8;

/// Appends a time as [`TimeMs`] shows itself.
pub(super) fn append_moment(time: TimeMs, text: &mut String) {
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
                append_fraction(ms, text);
                text.push('Z');
            }
            // Beyond what a calendar has.
            None => text.push_str(&time.to_string()),
        }
    });
}

/// Milliseconds behind a second, without zeros at the end.
fn append_fraction(ms: i64, text: &mut String) {
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
                append_moment(TimeMs(at), &mut text);
                prop_assert_eq!(text, TimeMs(at).to_string());
            }
        }
    }
}
