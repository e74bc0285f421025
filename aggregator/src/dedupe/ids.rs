//! Lane B: every caller-made id, for the dedupe window of log time.

use odometer_schemas::definitions::DedupeRule;
use odometer_schemas::digest::{Fingerprint, RecordHash};

use super::bucket::Bucket;
use super::table::Entry;

/// What lane B knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Never within the window.
    New,
    /// With the same content.
    Same,
    /// With other content.
    Other,
}

/// The ids of the dedupe window, in buckets of log time.
#[derive(Debug)]
pub(crate) struct Ids {
    /// The bucket that ids go into; none before log time was first set.
    open: Option<Bucket>,
    /// Buckets of the past, oldest first.
    past: Vec<Bucket>,
    rule: DedupeRule,
    placement: u64,
    len: usize,
}

impl Ids {
    pub(crate) fn new(rule: DedupeRule, placement: u64) -> Self {
        Self { open: None, past: Vec::new(), rule, placement, len: 0 }
    }

    /// Ids remembered.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Log time since which every id is remembered, if any is.
    pub(crate) fn oldest_ms(&self) -> Option<i64> {
        self.buckets().next().map(|bucket| bucket.start_ms)
    }

    pub(crate) fn rule(&self) -> DedupeRule {
        self.rule
    }

    /// All buckets, oldest first.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.past.iter().chain(&self.open)
    }

    /// Puts back a bucket from a snapshot, oldest first.
    pub(crate) fn restore(&mut self, bucket: Bucket) {
        self.len += bucket.len();
        self.past.extend(self.open.replace(bucket));
    }

    /// A new rule: the open bucket ends where it is, so that ids already remembered
    /// keep the bounds that they were put under.
    pub(crate) fn set_rule(&mut self, rule: DedupeRule, log_time_ms: i64) {
        if rule != self.rule {
            self.rule = rule;
            if let Some(open) = &mut self.open {
                open.end_ms = open.end_ms.min(log_time_ms);
            }
            self.advance(log_time_ms);
        }
    }

    /// Log time moved: opens the bucket that it falls into, and forgets buckets that
    /// ended a whole window ago.
    pub(crate) fn advance(&mut self, log_time_ms: i64) {
        if self.open.as_ref().is_none_or(|open| log_time_ms >= open.end_ms) {
            let bucket_ms = self.rule.bucket_ms();
            let end_ms = (self.rule.bucket_of(log_time_ms) + 1) * bucket_ms;
            self.past.extend(self.open.replace(Bucket::new(log_time_ms, end_ms)));
        }
        let forget_ms = log_time_ms.saturating_sub(self.rule.window_ms);
        let over = self.past.iter().take_while(|bucket| bucket.end_ms <= forget_ms).count();
        self.len -= self.past.drain(..over).map(|bucket| bucket.len()).sum::<usize>();
    }

    /// Freezes one shard of the oldest bucket that is still hot and no longer open.
    pub(crate) fn freeze_one(&mut self) {
        let _ = self.past.iter_mut().any(Bucket::freeze_one);
    }

    #[inline]
    pub(crate) fn prefetch(&self, fingerprint: Fingerprint) {
        let entry = Entry::new(fingerprint.0, 0);
        if let Some(open) = &self.open {
            open.prefetch(&entry, self.placement);
        }
        for bucket in &self.past {
            bucket.prefetch(&entry, self.placement);
        }
    }

    /// What is known of a key; a new one is remembered.
    ///
    /// # Panics
    /// Before the first [`advance`](Self::advance): log time was never set.
    #[inline]
    pub(crate) fn note(&mut self, fingerprint: Fingerprint, hash: RecordHash) -> Seen {
        let entry = Entry::new(fingerprint.0, hash.tag());
        let past = self.past.iter().rev().find_map(|bucket| bucket.find(&entry, self.placement));
        let open = self.open.as_mut().expect("log time has been set");
        match past.or_else(|| open.find_or_insert(entry, self.placement)) {
            None => {
                self.len += 1;
                Seen::New
            }
            Some(tag) if tag == entry.tag => Seen::Same,
            Some(_) => Seen::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: i64 = 800;

    fn ids() -> Ids {
        let mut ids = Ids::new(DedupeRule { window_ms: WINDOW }, 7);
        ids.advance(0);
        ids
    }

    fn key(i: u128) -> Fingerprint {
        Fingerprint((i << 122) ^ i.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    #[test]
    fn an_id_is_remembered_for_the_window_and_at_most_an_eighth_more() {
        for at in [0, 50, 99, 100, 777] {
            let mut ids = ids();
            ids.advance(at);
            assert_eq!(ids.note(key(1), RecordHash(5)), Seen::New);
            ids.advance(at + WINDOW);
            assert_eq!(ids.note(key(1), RecordHash(5)), Seen::Same, "put at {at}");
            assert_eq!(ids.note(key(1), RecordHash(6)), Seen::Other);
            ids.advance(at + WINDOW + WINDOW / 8 + 1);
            assert_eq!(ids.len(), 0);
            assert_eq!(ids.note(key(1), RecordHash(5)), Seen::New);
        }
    }

    #[test]
    fn freezing_changes_no_answer() {
        let mut ids = ids();
        for i in 0..5000 {
            assert_eq!(ids.note(key(i), RecordHash(i)), Seen::New);
        }
        ids.advance(100);
        for step in 0..70 {
            assert_eq!(ids.note(key(step * 7), RecordHash(step * 7)), Seen::Same);
            assert_eq!(ids.note(key(9000 + step), RecordHash(0)), Seen::New);
            ids.freeze_one();
        }
        assert_eq!(ids.len(), 5070);
        assert!((0..5000).all(|i| ids.note(key(i), RecordHash(i)) == Seen::Same));
    }

    #[test]
    fn a_shorter_window_forgets_and_a_longer_one_keeps() {
        let mut ids = ids();
        assert_eq!(ids.note(key(1), RecordHash(1)), Seen::New);
        ids.advance(500);
        ids.set_rule(DedupeRule { window_ms: 8000 }, 500);
        ids.advance(4000);
        assert_eq!(ids.note(key(1), RecordHash(1)), Seen::Same);
        ids.set_rule(DedupeRule { window_ms: 80 }, 4000);
        assert_eq!(ids.note(key(1), RecordHash(1)), Seen::New);
    }
}
