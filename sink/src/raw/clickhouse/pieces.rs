//! A batch in, one Native block per table and table partition out, sorted by the
//! table's key, and beside each what the engine must answer once it has it.

use std::collections::BTreeMap;

use odometer_schemas::digest::Hasher;
use odometer_schemas::period::PeriodRule;
use odometer_schemas::row::RawRow;
use odometer_schemas::time::{Interval, TimeMs};

use super::super::batch::BatchRow;
use super::super::{CursorMove, RawBatch, RollupRow};
use super::block::{Block, Column, Dictionary, NativeBlock, Numbers, Strings};

/// `xxh3` of the engine is unkeyed.
const ENGINE_HASHER: Hasher = Hasher::new(0);

/// What the engine must hold of one partition of a piece: how many rows, and their checksums
/// added up, wrapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) rows: u64,
    pub(super) hash: u64,
}

impl Tally {
    pub(super) fn add(&mut self, hash: u64) {
        self.rows += 1;
        self.hash = self.hash.wrapping_add(hash);
    }
}

/// By partition of the log.
pub(super) type Tallies = BTreeMap<u32, Tally>;

/// Every row of the batch, one block per month of append time: the table is cut so.
pub(super) fn records(batch: &RawBatch) -> Vec<NativeBlock> {
    let mut months: Vec<(Interval, Records<'_>)> = Vec::new();
    let mut current = 0;
    for (row, hash) in batch.rows_by_key() {
        let time = TimeMs(row.append_time_ms);
        if !months.get(current).is_some_and(|(month, _)| month.contains(time)) {
            current = months.iter().position(|(month, _)| month.contains(time)).unwrap_or(months.len());
        }
        if current == months.len() {
            // Mostly there is but one.
            let room = if months.is_empty() { batch.len() } else { 0 };
            months.push((PeriodRule::CalendarMonth.period_of(time), Records::new(room)));
        }
        months[current].1.push(&row, hash);
    }
    months.into_iter().map(|(_, rows)| rows.block()).collect()
}

/// What `usage_records` must hold of the batch's ranges.
pub(super) fn records_tally(batch: &RawBatch) -> Tallies {
    let mut tallies = Tallies::new();
    // Rows stand by partition.
    let partition = |row: &BatchRow| batch.envelopes[row.envelope as usize].partition;
    for rows in batch.rows.chunk_by(|a, b| a.envelope == b.envelope || partition(a) == partition(b)) {
        let tally = tallies.entry(partition(&rows[0])).or_default();
        rows.iter().for_each(|row| tally.add(row.row_hash));
    }
    tallies
}

/// Smallest and largest append time of the batch's rows.
pub(super) fn append_times(batch: &RawBatch) -> (i64, i64) {
    let times = || batch.envelopes.iter().map(|envelope| envelope.append_time_ms);
    times().min().zip(times().max()).unwrap_or_default()
}

/// Columns of `usage_records`.
struct Records<'a> {
    texts: [Dictionary<'a>; 5],
    optional: [Dictionary<'a>; 3],
    id: Strings,
    id_emitted: Numbers<1>,
    quantity: Numbers<8>,
    time: Numbers<8>,
    time_given: Numbers<1>,
    partition: Numbers<4>,
    offset: Numbers<8>,
    idx: Numbers<2>,
    envelope_records: Numbers<2>,
    append_time: Numbers<8>,
    row_hash: Numbers<8>,
}

/// Bytes of a row in a block, roughly: its id, its numbers, and its places in dictionaries.
/// Room for them is made at once, since growing moves megabytes.
const ROW_BYTES: usize = ID_BYTES + 50 + 16;
/// Bytes of an id with its length, roughly: a UUID, or what an emitter makes.
const ID_BYTES: usize = 45;

impl<'a> Records<'a> {
    fn new(room: usize) -> Self {
        Self {
            texts: std::array::from_fn(|_| Dictionary::new(room)),
            optional: std::array::from_fn(|_| Dictionary::nullable(room)),
            id: Strings::new(ID_BYTES * room),
            id_emitted: Numbers::new("Bool", room),
            quantity: Numbers::new("Int64", room),
            time: Numbers::times(room),
            time_given: Numbers::new("Bool", room),
            partition: Numbers::new("UInt32", room),
            offset: Numbers::new("UInt64", room),
            idx: Numbers::new("UInt16", room),
            envelope_records: Numbers::new("UInt16", room),
            append_time: Numbers::times(room),
            row_hash: Numbers::new("UInt64", room),
        }
    }

    fn push(&mut self, row: &RawRow<'a>, hash: u64) {
        let texts = [row.tenant, row.meter, row.source, row.dimensions, row.verdict.name()];
        self.texts.iter_mut().zip(texts).for_each(|(column, text)| column.push(text));
        let optional = [row.subject, row.reservation, row.verdict.reason()];
        self.optional.iter_mut().zip(optional).for_each(|(column, text)| column.push_optional(text));
        self.id.push(row.id.as_bytes());
        self.id_emitted.push([u8::from(row.id_emitted)]);
        self.quantity.push(row.quantity.to_le_bytes());
        self.time.push(row.time_ms.to_le_bytes());
        self.time_given.push([u8::from(row.time_given)]);
        self.partition.push(row.position.partition.to_le_bytes());
        self.offset.push(row.position.offset.to_le_bytes());
        self.idx.push(row.position.index.to_le_bytes());
        self.envelope_records.push(row.envelope_records.to_le_bytes());
        self.append_time.push(row.append_time_ms.to_le_bytes());
        self.row_hash.push(hash.to_le_bytes());
    }

    fn block(&self) -> NativeBlock {
        let [tenant, meter, source, dimensions, verdict] = &self.texts;
        let [subject, reservation, reason] = &self.optional;
        Block::new(self.id.len(), ROW_BYTES * self.id.len())
            .column("tenant", tenant)
            .column("meter", meter)
            .column("source", source)
            .column("id", &self.id)
            .column("id_emitted", &self.id_emitted)
            .column("subject", subject)
            .column("quantity", &self.quantity)
            .column("time", &self.time)
            .column("time_given", &self.time_given)
            .column("dimensions", dimensions)
            .column("reservation", reservation)
            .column("partition", &self.partition)
            .column("offset", &self.offset)
            .column("idx", &self.idx)
            .column("envelope_records", &self.envelope_records)
            .column("verdict", verdict)
            .column("reason", reason)
            .column("append_time", &self.append_time)
            .column("row_hash", &self.row_hash)
            .finish()
    }
}

/// The batch's rollup rows as one block, and what the engine must hold.
///
/// Each row also carries the newest append time of its partition in the batch: rollups
/// have none of their own, and without one the engine would look for a batch's rows in
/// all that it has.
pub(super) fn rollups(batch: &RawBatch) -> (NativeBlock, Tallies) {
    let mut rows: Vec<RollupRow<'_>> = batch.rollups().collect();
    // They come by tenant, meter and minute; this is the rest of the table's key.
    let same_minute = |a: &RollupRow<'_>, b: &RollupRow<'_>| {
        (a.window_start_ms, a.meter, a.tenant) == (b.window_start_ms, b.meter, b.tenant)
    };
    for rows in rows.chunk_by_mut(same_minute) {
        rows.sort_unstable_by_key(|row| (row.dimensions, row.partition, row.range_start));
    }
    let mut newest: BTreeMap<u32, i64> = BTreeMap::new();
    for envelope in &batch.envelopes {
        let time = newest.entry(envelope.partition).or_insert(envelope.append_time_ms);
        *time = (*time).max(envelope.append_time_ms);
    }
    let mut tallies = Tallies::new();
    let mut columns = Rollups::new(rows.len());
    // One that the batch's rows are known by, in any case.
    let (_, newest_of_all) = append_times(batch);
    for row in &rows {
        columns.push(row, newest.get(&row.partition).copied().unwrap_or(newest_of_all));
        #[expect(clippy::cast_possible_truncation, reason = "a checksum; the engine takes the low half too")]
        let low = row.sum as u64;
        tallies.entry(row.partition).or_default().add(row.records.wrapping_add(low));
    }
    (columns.block(), tallies)
}

/// Columns of `usage_rollups`.
struct Rollups<'a> {
    window_start: Numbers<8>,
    texts: [Dictionary<'a>; 4],
    partition: Numbers<4>,
    offsets: [Numbers<8>; 2],
    sums: [Numbers<16>; 2],
    records: Numbers<8>,
    state: Strings,
    append_time: Numbers<8>,
}

/// Bytes of a rollup in a block without what its aggregation needs, roughly.
const ROLLUP_BYTES: usize = 92;

impl<'a> Rollups<'a> {
    fn new(room: usize) -> Self {
        Self {
            window_start: Numbers::times(room),
            texts: std::array::from_fn(|_| Dictionary::new(room)),
            partition: Numbers::new("UInt32", room),
            offsets: std::array::from_fn(|_| Numbers::new("UInt64", room)),
            sums: std::array::from_fn(|_| Numbers::new("Int128", room)),
            records: Numbers::new("UInt64", room),
            state: Strings::default(),
            append_time: Numbers::times(room),
        }
    }

    fn push(&mut self, row: &RollupRow<'a>, append_time_ms: i64) {
        self.window_start.push(row.window_start_ms.to_le_bytes());
        let texts = [row.tenant, row.meter, row.dimensions, row.aggregation.name()];
        self.texts.iter_mut().zip(texts).for_each(|(column, text)| column.push(text));
        self.partition.push(row.partition.to_le_bytes());
        let offsets = [row.range_start, row.last_offset];
        self.offsets.iter_mut().zip(offsets).for_each(|(column, offset)| column.push(offset.to_le_bytes()));
        let sums = [row.quantity, row.sum];
        self.sums.iter_mut().zip(sums).for_each(|(column, sum)| column.push(sum.to_le_bytes()));
        self.records.push(row.records.to_le_bytes());
        self.state.push(row.state);
        self.append_time.push(append_time_ms.to_le_bytes());
    }

    fn block(&self) -> NativeBlock {
        let [tenant, meter, dimensions, aggregation] = &self.texts;
        let [range_start, last_offset] = &self.offsets;
        let [quantity, sum] = &self.sums;
        Block::new(self.records.len(), ROLLUP_BYTES * self.records.len())
            .column("window_start", &self.window_start)
            .column("tenant", tenant)
            .column("meter", meter)
            .column("dimensions", dimensions)
            .column("partition", &self.partition)
            .column("range_start", range_start)
            .column("last_offset", last_offset)
            .column("aggregation", aggregation)
            .column("quantity", quantity)
            .column("sum", sum)
            .column("records", &self.records)
            .column("state", &self.state)
            .column("append_time", &self.append_time)
            .finish()
    }
}

/// The batch's undecodable entries as one block, and what the engine must hold.
pub(super) fn rejected(batch: &RawBatch) -> (NativeBlock, Tallies) {
    let room = batch.rejected().len();
    let (mut partition, mut offset) = (Numbers::new("UInt32", room), Numbers::new("UInt64", room));
    let (mut append_time, mut reason) = (Numbers::times(room), Dictionary::new(room));
    let (mut bytes, mut tallies) = (Strings::default(), Tallies::new());
    for entry in batch.rejected() {
        partition.push(entry.partition.to_le_bytes());
        offset.push(entry.offset.to_le_bytes());
        append_time.push(entry.append_time.0.to_le_bytes());
        reason.push(entry.verdict.reason().unwrap_or_default());
        bytes.push(&entry.bytes);
        tallies.entry(entry.partition).or_default().add(ENGINE_HASHER.bytes64(&entry.bytes));
    }
    let block = Block::new(room, 0)
        .column("partition", &partition)
        .column("offset", &offset)
        .column("append_time", &append_time)
        .column("reason", &reason)
        .column("bytes", &bytes)
        .finish();
    (block, tallies)
}

/// Where the cursors stand after the batch.
pub(super) fn cursors(moves: &[CursorMove]) -> NativeBlock {
    let room = moves.len();
    let (mut partition, mut next_offset) = (Numbers::new("UInt32", room), Numbers::new("UInt64", room));
    for cursor in moves {
        partition.push(cursor.partition.to_le_bytes());
        next_offset.push(cursor.next_offset.to_le_bytes());
    }
    Block::new(room, 0).column("partition", &partition).column("next_offset", &next_offset).finish()
}
