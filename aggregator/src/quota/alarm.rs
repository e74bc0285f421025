//! When usage crosses a part of its limit. A total is looked at when an entry of the log
//! has been counted, the usage of a subject or key with every record, so that alerts are a
//! function of the log, wherever its commits are cut.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, Ordering::Relaxed};

use odometer_schemas::quota::{ALERT_PERCENTS, AlertRow, Scope, alert_at};
use odometer_schemas::time::{Interval, TimeMs};

/// What was told of a counter in its period, and when to look again. One writer.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Usage below it is of no interest.
    next: AtomicI64,
    /// The plans by which `next` was found; none are zero.
    plans: AtomicU32,
    /// A bit for each of [`ALERT_PERCENTS`] that was told.
    told: AtomicU8,
    /// Whether what is watched has changed since it was stored. Its owner's: it stands
    /// here because their cache line has no other byte left.
    pub(crate) is_dirty: AtomicBool,
}

const _: () = assert!(ALERT_PERCENTS.len() <= u8::BITS as usize);

impl Watch {
    /// Whether usage of `used` is to be looked at under these plans.
    #[inline]
    pub(crate) fn is_due(&self, used: i64, plans: u32) -> bool {
        used >= self.next.load(Relaxed) || plans != self.plans.load(Relaxed)
    }

    /// The tenant's own terms changed.
    pub(crate) fn wake(&self) {
        self.plans.store(0, Relaxed);
    }

    /// `percent` was told before.
    pub(crate) fn remember(&self, percent: u16) {
        if let Some(index) = ALERT_PERCENTS.iter().position(|known| *known == percent) {
            self.told.store(self.told.load(Relaxed) | 1 << index, Relaxed);
        }
    }

    /// Which parts of `limit` are crossed now and were not told; they are, from here on.
    fn crossed(&self, used: i64, limit: Option<i64>, plans: u32) -> impl Iterator<Item = u16> {
        let told = self.told.load(Relaxed);
        let at = |percent| limit.map_or(i64::MAX, |limit| alert_at(limit, percent));
        let untold = move |index: usize| told & (1 << index) == 0;
        let waiting = ALERT_PERCENTS.iter().enumerate().filter(|(index, _)| untold(*index));
        let (crossed, ahead): (Vec<_>, Vec<_>) =
            waiting.partition(|(_, percent)| limit.is_some() && used >= at(**percent));
        self.next.store(ahead.first().map_or(i64::MAX, |(_, percent)| at(**percent)), Relaxed);
        self.plans.store(plans, Relaxed);
        crossed.into_iter().map(|(_, percent)| {
            self.remember(*percent);
            *percent
        })
    }
}

/// A counter after a record was added.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) meter: &'a str,
    pub(crate) scope: Scope,
    /// The subject or key; empty for the tenant.
    pub(crate) name: &'a str,
    pub(crate) period: Interval,
    pub(crate) used: i64,
}

/// The log entry that is being counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) offset: u64,
    pub(crate) append_time: TimeMs,
}

/// The limit that bounds a counter, and the policy that it is from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound<'a> {
    /// The plan's name, or `override`.
    pub(crate) from: &'a str,
    pub(crate) limit: i64,
}

/// Alerts of one partition that are not handed over yet.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    alerts: Vec<AlertRow>,
}

impl Alarm {
    /// Tells what `counted` crossed of its limit, if it has one.
    pub(crate) fn look(&mut self, entry: Entry, counted: Counted<'_>, bound: Option<Bound<'_>>, watch: (&Watch, u32)) {
        let Counted { tenant, meter, scope, name, period, used } = counted;
        let (watch, plans) = watch;
        for percent in watch.crossed(used, bound.map(|bound| bound.limit), plans) {
            let Some(Bound { from, limit }) = bound else { return };
            self.alerts.push(AlertRow {
                sequence: self.next_sequence(entry.offset),
                at_ms: entry.append_time.0,
                tenant: tenant.to_owned(),
                meter: meter.to_owned(),
                scope,
                name: name.to_owned(),
                period_start_ms: period.start.0,
                period_end_ms: period.end.0,
                percent,
                policy: super::policy_name(from, meter, scope),
                limit,
                used,
            });
        }
    }

    /// An entry's alerts are handed over together, so the last one tells the next number.
    fn next_sequence(&self, offset: u64) -> u64 {
        let last = self.alerts.last().filter(|alert| alert.offset() == offset);
        last.map_or_else(|| AlertRow::sequence(offset, 0), |alert| alert.sequence + 1)
    }

    pub(crate) fn len(&self) -> usize {
        self.alerts.len()
    }

    pub(crate) fn take(&mut self) -> Vec<AlertRow> {
        std::mem::take(&mut self.alerts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crossed(watch: &Watch, used: i64, limit: Option<i64>, plans: u32) -> Vec<u16> {
        assert!(watch.is_due(used, plans));
        watch.crossed(used, limit, plans).collect()
    }

    #[test]
    fn each_part_is_told_once() {
        let watch = Watch::default();
        assert_eq!(crossed(&watch, 49, Some(100), 1), [0; 0]);
        assert!(!watch.is_due(49, 1));
        assert_eq!(crossed(&watch, 50, Some(100), 1), [50]);
        assert!(!watch.is_due(20, 1) && !watch.is_due(79, 1));
        assert_eq!(crossed(&watch, 109, Some(100), 1), [80, 100]);
        assert_eq!(crossed(&watch, 500, Some(100), 1), [110]);
        assert!(!watch.is_due(i64::MAX - 1, 1));
    }

    #[test]
    fn another_limit_is_looked_at_with_the_next_record() {
        let watch = Watch::default();
        assert_eq!(crossed(&watch, 85, Some(100), 1), [50, 80]);
        assert_eq!(crossed(&watch, 85, Some(1_000), 2), [0; 0]);
        assert!(!watch.is_due(900, 2));
        assert_eq!(crossed(&watch, 86, Some(86), 3), [100]);
        assert_eq!(crossed(&watch, 87, None, 4), [0; 0]);
        assert!(!watch.is_due(i64::MAX - 1, 4));
        watch.wake();
        assert_eq!(crossed(&watch, 100, Some(10), 4), [110]);
    }

    #[test]
    fn what_was_told_before_a_restart_is_not_told_again() {
        let watch = Watch::default();
        [50, 80].into_iter().for_each(|percent| watch.remember(percent));
        assert_eq!(crossed(&watch, 200, Some(100), 1), [100, 110]);
    }
}
