//! One partition's place in a reader: what was fetched and not yet asked for.
//! Entries enter in the order of their offsets and leave in the same order; whatever
//! does not continue where the slot stands is dropped. Knows no client.

use std::collections::VecDeque;

use odometer_schemas::log::LogEntry;

/// Bytes that may wait in one slot before its partition is no longer fetched. Holds
/// a few fetches, and keeps a reader of 64 partitions below 512 MiB at worst.
pub(super) const SLOT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// One partition's place.
#[derive(Debug, Default)]
pub(super) struct Slot {
    entries: VecDeque<LogEntry>,
    bytes: usize,
    /// Where the next read goes on without a jump; `None` when nothing is known.
    next_read: Option<u64>,
    /// Where fetching goes on.
    next_fetch: u64,
    /// Entries below this offset exist and are on their way; beyond, nothing is known.
    awaited_end: u64,
    /// Whether the client fetches the partition.
    pub(super) is_fetching: bool,
}

impl Slot {
    /// Stands at `offset` with nothing fetched; entries up to `awaited_end` exist.
    pub(super) fn place(&mut self, offset: u64, awaited_end: u64) {
        let is_fetching = self.is_fetching;
        *self = Self { next_read: Some(offset), next_fetch: offset, awaited_end, is_fetching, ..Self::default() };
    }

    /// Forgets everything, so that the next read looks the place up again.
    pub(super) fn unplace(&mut self) {
        let is_fetching = self.is_fetching;
        *self = Self { is_fetching, ..Self::default() };
    }

    pub(super) fn is_placed(&self) -> bool {
        self.next_read.is_some()
    }

    pub(super) fn next_fetch(&self) -> u64 {
        self.next_fetch
    }

    /// Moves to `offset` if that needs no new fetch.
    pub(super) fn move_to(&mut self, offset: u64) -> bool {
        let Some(next_read) = self.next_read else { return false };
        if next_read == offset {
            return true;
        }
        if offset < next_read || offset > self.next_fetch {
            return false;
        }
        while self.entries.front().is_some_and(|entry| entry.offset < offset) {
            self.pop();
        }
        self.next_read = Some(offset);
        true
    }

    /// Takes a fetched entry; whether it was wanted.
    pub(super) fn push(&mut self, entry: LogEntry) -> bool {
        if !self.is_fetching || !self.is_placed() || entry.offset < self.next_fetch {
            return false;
        }
        self.next_fetch = entry.offset + 1;
        self.bytes += entry.bytes.len();
        self.entries.push_back(entry);
        true
    }

    /// Nothing more is on its way.
    pub(super) fn reach_end(&mut self) {
        self.awaited_end = 0;
    }

    /// Whether an entry exists that has not come yet.
    pub(super) fn is_awaiting(&self) -> bool {
        self.entries.is_empty() && self.next_fetch < self.awaited_end
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= SLOT_BYTES_MAX
    }

    /// Whether a partition that is no longer fetched should be fetched again.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < SLOT_BYTES_MAX / 2
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// As many entries as fit into `bytes_max`, but at least one when there is one.
    pub(super) fn take(&mut self, bytes_max: usize) -> Vec<LogEntry> {
        let mut taken = Vec::new();
        let mut bytes_total = 0;
        while let Some(next) = self.entries.front() {
            bytes_total += next.bytes.len();
            if bytes_total > bytes_max && !taken.is_empty() {
                break;
            }
            let entry = self.pop().expect("the front was there");
            self.next_read = Some(entry.offset + 1);
            taken.push(entry);
        }
        taken
    }

    fn pop(&mut self) -> Option<LogEntry> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.bytes.len();
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use odometer_schemas::time::TimeMs;

    use super::*;

    fn entry(offset: u64) -> LogEntry {
        LogEntry { partition: 0, offset, append_time: TimeMs(0), bytes: vec![0; 100].into() }
    }

    fn slot(offset: u64, end: u64) -> Slot {
        let mut slot = Slot { is_fetching: true, ..Slot::default() };
        slot.place(offset, end);
        slot
    }

    fn offsets(entries: &[LogEntry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.offset).collect()
    }

    #[test]
    fn entries_leave_in_order_and_by_size() {
        let mut slot = slot(5, 9);
        assert!(slot.is_awaiting());
        assert!([5, 6, 7, 8].into_iter().all(|offset| slot.push(entry(offset))));
        assert!(!slot.is_awaiting());
        assert_eq!(offsets(&slot.take(250)), [5, 6]);
        assert!(slot.move_to(7));
        assert_eq!(offsets(&slot.take(0)), [7]);
        assert_eq!(offsets(&slot.take(usize::MAX)), [8]);
        assert!(slot.is_empty() && !slot.is_awaiting());
        assert_eq!(slot.bytes(), 0);
    }

    #[test]
    fn what_came_before_is_dropped_and_gaps_are_kept() {
        let mut slot = slot(5, 20);
        assert!(!slot.push(entry(4)));
        assert!(slot.push(entry(9)));
        assert!(!slot.push(entry(9)));
        assert_eq!(offsets(&slot.take(1000)), [9]);
        assert!(slot.is_awaiting());
        slot.reach_end();
        assert!(!slot.is_awaiting());
    }

    #[test]
    fn a_move_within_what_is_there_needs_no_fetch() {
        let mut slot = slot(0, 10);
        for offset in [0, 1, 5, 6] {
            slot.push(entry(offset));
        }
        assert!(slot.move_to(3));
        assert_eq!(offsets(&slot.take(100)), [5]);
        assert!(!slot.move_to(5), "it has left");
        assert!(slot.move_to(7), "the next to come");
        assert!(slot.is_empty());
        assert!(!slot.move_to(8), "beyond what was fetched");
    }

    #[test]
    fn a_slot_without_a_place_takes_nothing() {
        let mut slot = slot(0, 10);
        slot.unplace();
        assert!(slot.is_fetching && !slot.push(entry(0)) && !slot.move_to(0));
    }
}
