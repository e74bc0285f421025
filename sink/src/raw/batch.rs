//! The edge from the raw writer to the raw book: rows, rollups and undecodable
//! entries of several partitions, and the cursors that they move. Texts stand in one
//! arena, so that a row costs no allocation.

use std::fmt::Write as _;
use std::sync::OnceLock;

use odometer_schemas::log::Position;
use odometer_schemas::meter::Aggregation;
use odometer_schemas::record::IdRef;
use odometer_schemas::row::RawRow;
use odometer_schemas::verdict::Verdict;

use super::{RejectedEnvelope, RollupRow};

/// A cursor's move. The book takes the batch only while it stands at `from_offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorMove {
    /// The partition.
    pub partition: u32,
    /// The first offset that the batch covers.
    pub from_offset: u64,
    /// The next offset that the book needs afterwards.
    pub next_offset: u64,
}

/// What the raw book writes in one step.
#[derive(Debug, Default)]
pub struct RawBatch {
    pub(super) texts: Arena,
    pub(super) series: Vec<BatchSeries>,
    pub(super) envelopes: Vec<BatchEnvelope>,
    pub(super) rows: Vec<BatchRow>,
    pub(super) rollups: Vec<BatchRollup>,
    pub(super) states: Vec<u8>,
    pub(super) rejected: Vec<RejectedEnvelope>,
    pub(super) cursors: Vec<CursorMove>,
    /// What rows and rollups are sorted by, once it was asked for.
    pub(super) ranks: OnceLock<Vec<u32>>,
}

/// One string that holds all texts of a batch.
#[derive(Debug, Default)]
pub(super) struct Arena(pub(super) String);

/// A text in an [`Arena`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Text {
    start: u32,
    end: u32,
}

impl Text {
    /// No text: no arena reaches that far.
    pub(super) const ABSENT: Self = Self { start: u32::MAX, end: u32::MAX };
}

impl Arena {
    pub(super) fn push(&mut self, text: &str) -> Text {
        let start = self.end();
        self.0.push_str(text);
        Text { start, end: self.end() }
    }

    /// The id as [`IdRef`] displays it; most are UUIDs, which formatting by hand makes
    /// several times faster.
    pub(super) fn push_id(&mut self, id: &IdRef<'_>) -> Text {
        let start = self.end();
        match id {
            IdRef::Text(text) => self.0.push_str(text),
            IdRef::Uuid(uuid) => {
                let mut text = *b"........-....-....-....-............";
                let digits = hex(&uuid.to_be_bytes());
                for (to, from) in [(0..8, 0..8), (9..13, 8..12), (14..18, 12..16), (19..23, 16..20), (24..36, 20..32)] {
                    text[to].copy_from_slice(&digits[from]);
                }
                self.push_ascii(&text);
            }
            IdRef::Emitted(emitted) => {
                self.push_ascii(&hex(&emitted.source.to_be_bytes()));
                write!(self.0, "-{}-{}", emitted.epoch, emitted.sequence).expect("writing to memory cannot fail");
            }
        }
        Text { start, end: self.end() }
    }

    fn push_ascii(&mut self, bytes: &[u8]) {
        self.0.push_str(std::str::from_utf8(bytes).expect("digits and hyphens are text"));
    }

    pub(super) fn get(&self, text: Text) -> &str {
        &self.0[text.start as usize..text.end as usize]
    }

    pub(super) fn optional(&self, text: Text) -> Option<&str> {
        (text != Text::ABSENT).then(|| self.get(text))
    }

    fn end(&self) -> u32 {
        // Batches are cut at a small fraction of this.
        u32::try_from(self.0.len()).expect("a batch's texts stay below 4 GiB")
    }
}

fn hex(bytes: &[u8; 16]) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    digits
}

/// One (tenant, meter).
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchSeries {
    pub(super) tenant: Text,
    pub(super) meter: Text,
}

/// What the rows of one envelope share.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchEnvelope {
    pub(super) partition: u32,
    pub(super) offset: u64,
    pub(super) append_time_ms: i64,
    pub(super) records: u16,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct BatchRow {
    pub(super) envelope: u32,
    pub(super) series: u32,
    pub(super) source: Text,
    pub(super) id: Text,
    pub(super) subject: Text,
    pub(super) dimensions: Text,
    pub(super) reservation: Text,
    pub(super) quantity: i64,
    pub(super) time_ms: i64,
    pub(super) row_hash: u64,
    pub(super) index: u16,
    pub(super) verdict: Verdict,
    pub(super) time_given: bool,
    pub(super) id_emitted: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct BatchRollup {
    pub(super) window_start_ms: i64,
    pub(super) series: u32,
    pub(super) dimensions: Text,
    pub(super) partition: u32,
    pub(super) range_start: u64,
    pub(super) last_offset: u64,
    pub(super) aggregation: Aggregation,
    pub(super) quantity: i128,
    pub(super) sum: i128,
    pub(super) records: u64,
    pub(super) state_start: usize,
    pub(super) state_end: usize,
}

impl RawBatch {
    /// An empty one that holds as much as `other` without growing: growing moves
    /// megabytes, and the next batch mostly is as large as the one before.
    pub(super) fn with_room_of(other: &Self) -> Self {
        Self {
            texts: Arena(String::with_capacity(other.texts.0.len())),
            envelopes: Vec::with_capacity(other.envelopes.len()),
            rows: Vec::with_capacity(other.rows.len()),
            ..Self::default()
        }
    }

    /// How many rows it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it has no rows; cursors may move all the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The cursors that it moves, one per partition.
    #[must_use]
    pub fn cursors(&self) -> &[CursorMove] {
        &self.cursors
    }

    /// Entries that could not be decoded.
    #[must_use]
    pub fn rejected(&self) -> &[RejectedEnvelope] {
        &self.rejected
    }

    /// Rows and their checksums by position within each partition.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = (RawRow<'_>, u64)> {
        self.rows.iter().map(|row| (self.row(row), row.row_hash))
    }

    /// Rows and their checksums by the table's key: tenant, meter, time, position.
    /// Sorts each time it is called.
    pub fn rows_by_key(&self) -> impl ExactSizeIterator<Item = (RawRow<'_>, u64)> {
        let ranks = self.series_ranks();
        // Rows of one partition stand in order, and partitions too, so their places break
        // ties as their positions would. One number each: that sorts several times faster.
        let key = |(place, row): (usize, &BatchRow)| {
            let time = row.time_ms.cast_unsigned() ^ (1 << 63);
            (u128::from(ranks[row.series as usize]) << 96) | (u128::from(time) << 32) | place as u128
        };
        let mut order: Vec<u128> = self.rows.iter().enumerate().map(key).collect();
        order.sort_unstable();
        // Fetched before the first is looked at: the processor then waits for many at once.
        #[expect(clippy::cast_possible_truncation, reason = "a batch has far fewer than 2^32 rows")]
        let rows: Vec<BatchRow> = order.into_iter().map(|key| self.rows[key as u32 as usize]).collect();
        rows.into_iter().map(|row| (self.row(&row), row.row_hash))
    }

    /// The place of every series among all, by tenant and meter; equal ones share it.
    fn series_ranks(&self) -> &[u32] {
        self.ranks.get_or_init(|| self.ranked_series())
    }

    fn ranked_series(&self) -> Vec<u32> {
        let mut series: Vec<usize> = (0..self.series.len()).collect();
        let name = |index: usize| {
            let series = &self.series[index];
            (self.texts.get(series.tenant), self.texts.get(series.meter))
        };
        series.sort_unstable_by(|a, b| name(*a).cmp(&name(*b)));
        let mut ranks = vec![0; series.len()];
        for (rank, pair) in (0..).zip(series.chunk_by(|a, b| name(*a) == name(*b))) {
            pair.iter().for_each(|index| ranks[*index] = rank);
        }
        ranks
    }

    /// Rollup rows, absolute for their range, by the table's key: tenant, meter, minute.
    /// Sorts each time it is called.
    pub fn rollups(&self) -> impl ExactSizeIterator<Item = RollupRow<'_>> {
        let ranks = self.series_ranks();
        let mut order: Vec<(u32, i64, usize)> = self
            .rollups
            .iter()
            .enumerate()
            .map(|(place, rollup)| (ranks[rollup.series as usize], rollup.window_start_ms, place))
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(.., place)| {
            let rollup = &self.rollups[place];
            let series = &self.series[rollup.series as usize];
            RollupRow {
                window_start_ms: rollup.window_start_ms,
                tenant: self.texts.get(series.tenant),
                meter: self.texts.get(series.meter),
                dimensions: self.texts.get(rollup.dimensions),
                partition: rollup.partition,
                range_start: rollup.range_start,
                last_offset: rollup.last_offset,
                aggregation: rollup.aggregation,
                quantity: rollup.quantity,
                sum: rollup.sum,
                records: rollup.records,
                state: &self.states[rollup.state_start..rollup.state_end],
            }
        })
    }

    /// Bytes that it holds, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let rejected: usize = self.rejected.iter().map(|envelope| envelope.bytes.len()).sum();
        self.texts.0.len()
            + self.states.len()
            + rejected
            + self.rows.len() * size_of::<BatchRow>()
            + self.rollups.len() * size_of::<BatchRollup>()
    }

    fn row(&self, row: &BatchRow) -> RawRow<'_> {
        let series = &self.series[row.series as usize];
        self.row_of(self.texts.get(series.tenant), self.texts.get(series.meter), row)
    }

    /// The row of a series whose names are known.
    pub(super) fn row_of<'a>(&'a self, tenant: &'a str, meter: &'a str, row: &BatchRow) -> RawRow<'a> {
        let envelope = &self.envelopes[row.envelope as usize];
        RawRow {
            tenant,
            meter,
            source: self.texts.get(row.source),
            id: self.texts.get(row.id),
            id_emitted: row.id_emitted,
            subject: self.texts.optional(row.subject),
            quantity: row.quantity,
            time_ms: row.time_ms,
            time_given: row.time_given,
            dimensions: self.texts.get(row.dimensions),
            reservation: self.texts.optional(row.reservation),
            position: Position { partition: envelope.partition, offset: envelope.offset, index: row.index },
            envelope_records: envelope.records,
            verdict: row.verdict,
            append_time_ms: envelope.append_time_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use odometer_schemas::record::EmittedId;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_are_written_as_they_are_displayed(uuid: u128, source: u128, epoch: u32, sequence: u64) {
            let mut arena = Arena::default();
            for id in [IdRef::Uuid(uuid), IdRef::Emitted(EmittedId { source, epoch, sequence }), IdRef::Text("é")] {
                let text = arena.push_id(&id);
                prop_assert_eq!(arena.get(text), id.to_string());
            }
        }
    }
}
