//! The newest envelopes, in memory: whoever reads on as they come needs no query for them.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use odometer_schemas::log::LogEntry;

use super::locked;

/// What is kept of all partitions together, in bytes, each partition its share: a hundred
/// thousand decisions a second, spread evenly, for more than the second that whoever follows a
/// book's commits is behind. Usage in bulk comes faster, and is read from the file.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// The newest envelopes of every partition, flushed ones only.
#[derive(Debug)]
pub(super) struct Recent {
    partitions: Vec<Mutex<Newest>>,
    /// Bytes of one partition.
    bytes_max: usize,
    /// The writer has ended: another one may follow, and what that commits is not here.
    is_closed: AtomicBool,
}

/// Those of one partition, without a gap.
#[derive(Debug, Default)]
struct Newest {
    entries: VecDeque<LogEntry>,
    bytes: usize,
}

impl Recent {
    pub(super) fn new(partitions: u32) -> Self {
        let bytes_max = BYTES_MAX / partitions.max(1) as usize;
        Self {
            partitions: (0..partitions).map(|_| Mutex::default()).collect(),
            bytes_max,
            is_closed: AtomicBool::new(false),
        }
    }

    /// Keeps one that was committed.
    pub(super) fn put(&self, entry: LogEntry) {
        let mut newest = locked(&self.partitions[entry.partition as usize]);
        if newest.end().is_some_and(|end| end != entry.offset) {
            *newest = Newest::default();
        }
        newest.bytes += bytes_of(&entry);
        newest.entries.push_back(entry);
        while newest.bytes > self.bytes_max {
            newest.drop_oldest();
        }
    }

    /// As [`LogReader::read`](crate::log::LogReader::read); none for what is not all here.
    pub(super) fn read(&self, partition: u32, from_offset: u64, bytes_max: usize) -> Option<Vec<LogEntry>> {
        if self.is_closed.load(Ordering::Acquire) {
            return None;
        }
        let newest = locked(&self.partitions[partition as usize]);
        let skipped = from_offset.checked_sub(newest.entries.front()?.offset)?;
        let skipped = usize::try_from(skipped).ok().filter(|skipped| *skipped <= newest.entries.len())?;
        let mut bytes = 0;
        let fits = |(nth, entry): &(usize, &LogEntry)| {
            bytes += entry.bytes.len();
            *nth == 0 || bytes <= bytes_max
        };
        let all = newest.entries.range(skipped..).enumerate();
        Some(all.take_while(fits).map(|(_, entry)| entry.clone()).collect())
    }

    /// From here on nothing is here.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.clear();
    }

    /// Lets go of everything, once it is not certain what the log holds.
    pub(super) fn clear(&self) {
        self.partitions.iter().for_each(|newest| *locked(newest) = Newest::default());
    }

    /// Lets go of what is removed from the log.
    pub(super) fn remove(&self, partition: u32, below_offset: u64) {
        let mut newest = locked(&self.partitions[partition as usize]);
        while newest.entries.front().is_some_and(|oldest| oldest.offset < below_offset) {
            newest.drop_oldest();
        }
    }
}

/// What keeping one takes.
fn bytes_of(entry: &LogEntry) -> usize {
    size_of::<LogEntry>() + entry.bytes.len()
}

impl Newest {
    /// The offset behind the newest.
    fn end(&self) -> Option<u64> {
        self.entries.back().map(|newest| newest.offset + 1)
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.entries.pop_front() {
            self.bytes -= bytes_of(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use odometer_schemas::time::TimeMs;

    use super::*;

    /// Envelopes of so many bytes from an offset on.
    fn filled(lengths: &[usize], from: u64) -> Recent {
        let recent = Recent::new(2);
        put(&recent, lengths, from);
        recent
    }

    fn put(recent: &Recent, lengths: &[usize], from: u64) {
        for (offset, length) in (from..).zip(lengths) {
            recent.put(LogEntry { partition: 1, offset, append_time: TimeMs(0), bytes: vec![7; *length].into() });
        }
    }

    fn offsets(recent: &Recent, from: u64, bytes_max: usize) -> Option<Vec<u64>> {
        let entries = recent.read(1, from, bytes_max)?;
        Some(entries.iter().map(|entry| entry.offset).collect())
    }

    #[test]
    fn what_is_all_here_is_read_as_far_as_it_fits() {
        let recent = filled(&[10, 10, 10], 5);
        let cases = [
            (4, 100, None),
            (5, 100, Some(vec![5, 6, 7])),
            (5, 25, Some(vec![5, 6])),
            (6, 1, Some(vec![6])),
            (8, 100, Some(vec![])),
            (9, 100, None),
            (u64::MAX, 100, None),
        ];
        for (from, bytes_max, expected) in cases {
            assert_eq!(offsets(&recent, from, bytes_max), expected, "from {from}, {bytes_max} bytes");
        }
        assert!(recent.read(0, 0, 100).is_none(), "nothing is known of an untouched partition");
    }

    #[test]
    fn there_is_never_a_gap() {
        let recent = filled(&[10, 10], 5);
        put(&recent, &[10], 8);
        assert_eq!((offsets(&recent, 6, 100), offsets(&recent, 8, 100)), (None, Some(vec![8])));
    }

    #[test]
    fn what_is_old_or_removed_is_let_go() {
        let recent = filled(&[BYTES_MAX / 5; 3], 0);
        assert_eq!((offsets(&recent, 0, 1), offsets(&recent, 1, 1)), (None, Some(vec![1])));
        recent.remove(1, 2);
        assert_eq!((offsets(&recent, 1, 1), offsets(&recent, 2, 1)), (None, Some(vec![2])));
        recent.clear();
        assert_eq!(offsets(&recent, 2, 1), None);
        put(&recent, &[10], 3);
        recent.close();
        assert_eq!(offsets(&recent, 3, 1), None);
    }
}
