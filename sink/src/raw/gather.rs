//! The pure raw writer: log entries and their exceptions in, batches for the raw
//! book out. It reads no log and no book, and decides nothing: the verdicts are the
//! totals book's.
//!
//! Call order per partition: [`RawGatherer::open`] with the raw book's cursor; then
//! [`RawGatherer::feed`] from the offset that it answers, in order, never past the
//! totals book's cursor; [`RawGatherer::advance`] to that cursor where the log has no
//! entry left below it. [`RawGatherer::take`] whenever it is full or a moment has
//! passed; write that batch before the next one is written.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use odometer_schemas::accumulator::{Observation, unique_hash};
use odometer_schemas::commit::ExceptionsRow;
use odometer_schemas::control::Control;
use odometer_schemas::definitions::Definitions;
use odometer_schemas::digest::Hasher;
use odometer_schemas::envelope::{RecordRef, Scope, Usage};
use odometer_schemas::log::{LogEntry, Position};
use odometer_schemas::meter::{Aggregation, Meter};
use odometer_schemas::record::IdRef;
use odometer_schemas::row::dimensions_json;
use odometer_schemas::verdict::Verdict;

use super::RejectedEnvelope;
use super::batch::{BatchEnvelope, BatchRow, CursorMove, RawBatch, Text};
use super::intern::NumberMap;
use super::judged::{Judged, judge};
use super::rollup::{AggregationChanged, RangeRollups, range_start};

/// Rows after which a batch should be taken: large enough that the engine's cost per
/// transaction vanishes and that rollups of minutes still open, which every batch
/// writes again, do not outweigh it (one for four rows with ten thousand tenants); small
/// enough for a hundred megabytes.
pub const BATCH_ROWS_MAX: usize = 500_000;
/// Bytes after which a batch should be taken, whatever its rows: one envelope adds a
/// few MiB at most, so a batch stays far below the 4 GiB that its texts may have.
pub const BATCH_BYTES_MAX: usize = 64 << 20;

/// Why an entry cannot become rows. Never retryable: the books and the log do not
/// belong together, or were fed out of order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GatherError {
    /// The partition was not opened.
    #[error("partition {partition} was not opened")]
    NotOpen {
        /// The partition.
        partition: u32,
    },
    /// An entry below one that was fed before.
    #[error("partition {partition}: offset {offset} came after everything below {next_offset}")]
    OutOfOrder {
        /// The partition.
        partition: u32,
        /// The entry's offset.
        offset: u64,
        /// The lowest that may come.
        next_offset: u64,
    },
    /// The log and the totals book contradict each other.
    #[error("partition {partition}, offset {offset}: {problem}")]
    Contradiction {
        /// The partition.
        partition: u32,
        /// The entry's offset.
        offset: u64,
        /// What does not fit.
        problem: String,
    },
}

/// Gathers judged records of any number of partitions.
#[derive(Debug)]
pub struct RawGatherer {
    hasher: Hasher,
    partitions: BTreeMap<u32, Partition>,
    batch: RawBatch,
    scratch: Scratch,
}

#[derive(Debug)]
struct Partition {
    definitions: Option<Definitions>,
    /// Where the batch being gathered starts.
    from_offset: u64,
    next_offset: u64,
    /// What is fed was written before, and only rebuilds the open range's rollups.
    is_rebuilding: bool,
    rollups: RangeRollups,
}

/// What one envelope's records share, resolved once per envelope.
#[derive(Debug, Default)]
struct Scratch {
    strings: Vec<Text>,
    sets: Vec<Text>,
    scopes: Vec<ScopeInfo>,
    slots: NumberMap<(u32, u32), usize>,
    /// Where a meter of this name stands among the definitions, by index of the string.
    meters: Vec<OnceCell<Option<usize>>>,
    /// Kept dimensions by index of the meter and of the dimensions.
    kept: NumberMap<(u32, u32), u32>,
    checksum: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct ScopeInfo {
    names: Scope,
    series: u32,
    batch_series: u32,
    source: Text,
    /// Index among the definitions' meters.
    meter: Option<usize>,
}

impl RawGatherer {
    /// An empty gatherer that makes the installation's hashes.
    #[must_use]
    pub fn new(hasher: Hasher) -> Self {
        Self { hasher, partitions: BTreeMap::new(), batch: RawBatch::default(), scratch: Scratch::default() }
    }

    /// Starts a partition at the raw book's `cursor`. Entries must be fed from the
    /// offset that this answers: those below the cursor only rebuild the rollups of
    /// the open range, so the log must be kept back to there. `definitions` are those
    /// in force at that offset ([`range_start`] of the cursor).
    pub fn open(&mut self, partition: u32, cursor: u64, definitions: Option<Definitions>) -> u64 {
        let start = range_start(cursor);
        let state = Partition {
            definitions,
            from_offset: cursor,
            next_offset: start,
            is_rebuilding: start < cursor,
            rollups: RangeRollups::new(start),
        };
        self.partitions.insert(partition, state);
        start
    }

    /// The next offset that a partition wants to be fed; `None` unless it is open.
    #[must_use]
    pub fn next_offset(&self, partition: u32) -> Option<u64> {
        self.partitions.get(&partition).map(|state| state.next_offset)
    }

    /// Takes one entry and the totals book's exceptions of it.
    ///
    /// # Errors
    /// [`GatherError`]; the gatherer must be made anew from the book's cursors.
    pub fn feed(&mut self, entry: &LogEntry, exceptions: Option<&ExceptionsRow>) -> Result<(), GatherError> {
        let Self { hasher, partitions, batch, scratch } = self;
        let LogEntry { partition, offset, .. } = *entry;
        let state = partitions.get_mut(&partition).ok_or(GatherError::NotOpen { partition })?;
        let next_offset = state.next_offset;
        if offset < next_offset {
            return Err(GatherError::OutOfOrder { partition, offset, next_offset });
        }
        let contradiction = |problem| GatherError::Contradiction { partition, offset, problem };
        state.move_to(partition, offset, batch).map_err(|e| contradiction(e.to_string()))?;
        match judge(entry, exceptions).map_err(contradiction)? {
            Judged::Control(control) => {
                if let Control::Definitions(definitions) = *control {
                    state.definitions = Some(definitions);
                }
            }
            Judged::Rejected(verdict) if offset >= state.from_offset => batch.rejected.push(RejectedEnvelope {
                partition,
                offset,
                append_time: entry.append_time,
                verdict,
                bytes: entry.bytes.to_vec(),
            }),
            Judged::Rejected(_) | Judged::Quota => {}
            Judged::Usage(usage, verdicts) => {
                let mut feed = Feed { hasher: *hasher, entry, usage: &usage, state, batch, scratch };
                feed.records(verdicts.as_deref()).map_err(contradiction)?;
            }
        }
        state.rollups.saw(offset);
        state.next_offset = offset + 1;
        Ok(())
    }

    /// Moves a partition on where the log has no entries up to `next_offset`.
    pub fn advance(&mut self, partition: u32, next_offset: u64) {
        if let Some(state) = self.partitions.get_mut(&partition) {
            state.next_offset = state.next_offset.max(next_offset);
        }
    }

    /// Whether the batch should be taken now.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.batch.rows.len() >= BATCH_ROWS_MAX || self.batch.bytes() >= BATCH_BYTES_MAX
    }

    /// Rows gathered so far.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.batch.rows.len()
    }

    /// What was gathered since the last call; `None` when no cursor would move.
    ///
    /// # Errors
    /// As [`RawGatherer::feed`].
    pub fn take(&mut self) -> Result<Option<RawBatch>, GatherError> {
        let next = RawBatch::with_room_of(&self.batch);
        let mut batch = std::mem::replace(&mut self.batch, next);
        for (&partition, state) in &mut self.partitions {
            if state.next_offset <= state.from_offset {
                continue;
            }
            let offset = state.next_offset;
            state.settle(partition, &mut batch).map_err(|e| GatherError::Contradiction {
                partition,
                offset,
                problem: e.to_string(),
            })?;
            batch.cursors.push(CursorMove { partition, from_offset: state.from_offset, next_offset: offset });
            state.from_offset = offset;
            state.rollups.batch_taken();
        }
        if batch.cursors.is_empty() {
            return Ok(None);
        }
        let RawBatch { rows, envelopes, .. } = &mut batch;
        // Stable, so each partition's rows stay in the log's order.
        rows.sort_by_key(|row| envelopes[row.envelope as usize].partition);
        Ok(Some(batch))
    }
}

impl std::fmt::Display for AggregationChanged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "meter {} changed its aggregation, which its definitions may not", self.meter)
    }
}

impl Partition {
    /// Makes the range that holds `offset` the open one.
    fn move_to(&mut self, partition: u32, offset: u64, batch: &mut RawBatch) -> Result<(), AggregationChanged> {
        if offset >= self.from_offset {
            self.end_rebuilding()?;
        }
        if !self.rollups.holds(offset) {
            self.settle(partition, batch)?;
            self.rollups.open(offset);
        }
        Ok(())
    }

    /// What was rebuilt is in the book already. Written again beside entries without
    /// records, it would have no append time by which it could be confirmed.
    fn end_rebuilding(&mut self) -> Result<(), AggregationChanged> {
        if std::mem::take(&mut self.is_rebuilding) {
            self.rollups.settle()?;
            self.rollups.are_written();
        }
        Ok(())
    }

    fn settle(&mut self, partition: u32, batch: &mut RawBatch) -> Result<(), AggregationChanged> {
        self.end_rebuilding()?;
        self.rollups.settle()?;
        self.rollups.take(partition, batch);
        Ok(())
    }
}

/// One usage envelope on its way into the batch.
struct Feed<'a, 'e> {
    hasher: Hasher,
    entry: &'a LogEntry,
    usage: &'a Usage<'e>,
    state: &'a mut Partition,
    batch: &'a mut RawBatch,
    scratch: &'a mut Scratch,
}

impl Feed<'_, '_> {
    fn records(&mut self, verdicts: Option<&[Verdict]>) -> Result<(), String> {
        // Below the cursor everything was written: only the open range's rollups are
        // rebuilt.
        let writes = self.entry.offset >= self.state.from_offset;
        self.tables(writes);
        let envelope = u32::try_from(self.batch.envelopes.len()).map_err(|e| e.to_string())?;
        if writes {
            self.batch.envelopes.push(BatchEnvelope {
                partition: self.entry.partition,
                offset: self.entry.offset,
                append_time_ms: self.entry.append_time.0,
                records: u16::try_from(self.usage.len()).map_err(|e| e.to_string())?,
            });
        }
        for (index, record) in self.usage.records().enumerate() {
            let verdict = verdicts.map_or(Verdict::Accepted, |verdicts| verdicts[index]);
            let index = u16::try_from(index).map_err(|e| e.to_string())?;
            if writes {
                self.row(envelope, index, &record, verdict);
            }
            if verdict == Verdict::Accepted {
                self.observe(index, &record)?;
            }
        }
        Ok(())
    }

    fn tables(&mut self, writes: bool) {
        let Self { usage, state, batch, scratch, .. } = self;
        let strings = usage.strings();
        scratch.strings.clear();
        scratch.strings.resize(strings.len(), Text::ABSENT);
        scratch.sets.clear();
        scratch.sets.resize(usage.dimension_sets() + 1, Text::ABSENT);
        scratch.meters.clear();
        scratch.meters.resize(strings.len(), OnceCell::new());
        scratch.scopes.clear();
        scratch.slots.clear();
        scratch.kept.clear();
        let meters = state.definitions.as_ref().map_or(&[][..], |definitions| &definitions.meters);
        let place_of = |meter: &str| meters.binary_search_by(|known| known.name.as_str().cmp(meter)).ok();
        for scope in usage.scopes() {
            let (tenant, meter) = (strings[scope.tenant], strings[scope.meter]);
            let series = state.rollups.names.series(tenant, meter);
            scratch.scopes.push(ScopeInfo {
                names: scope,
                series,
                batch_series: if writes { state.rollups.names.series_in(batch, series) } else { 0 },
                source: if writes { placed(&mut scratch.strings, scope.source, strings, batch) } else { Text::ABSENT },
                meter: *scratch.meters[scope.meter].get_or_init(|| place_of(meter)),
            });
        }
    }

    fn row(&mut self, envelope: u32, index: u16, record: &RecordRef<'_>, verdict: Verdict) {
        let Self { usage, batch, scratch, .. } = self;
        let strings = usage.strings();
        let scope = scratch.scopes[record.scope];
        let subject = record.subject.map(|string| placed(&mut scratch.strings, string, strings, batch));
        let reservation = record.reservation.map(|string| placed(&mut scratch.strings, string, strings, batch));
        let set = record.dimensions.map_or(0, |set| set + 1);
        if scratch.sets[set] == Text::ABSENT {
            let pairs = record.dimensions.into_iter().flat_map(|set| usage.dimensions(set));
            scratch.sets[set] = batch.texts.push(&dimensions_json(pairs));
        }
        let id = batch.texts.push_id(&record.id);
        let mut row = BatchRow {
            envelope,
            series: scope.batch_series,
            source: scope.source,
            id,
            subject: subject.unwrap_or(Text::ABSENT),
            dimensions: scratch.sets[set],
            reservation: reservation.unwrap_or(Text::ABSENT),
            quantity: record.quantity.0,
            time_ms: record.time.unwrap_or(self.entry.append_time).0,
            row_hash: 0,
            index,
            verdict,
            time_given: record.time.is_some(),
            id_emitted: matches!(record.id, IdRef::Emitted(_)),
        };
        // Read in the envelope: the batch has these two wherever they came first.
        let (tenant, meter) = (strings[scope.names.tenant], strings[scope.names.meter]);
        row.row_hash = batch.row_of(tenant, meter, &row).checksum(&self.hasher, &mut scratch.checksum);
        batch.rows.push(row);
    }

    fn observe(&mut self, index: u16, record: &RecordRef<'_>) -> Result<(), String> {
        let scope = self.scratch.scopes[record.scope];
        let definitions = self.state.definitions.as_ref();
        let at = scope.meter.ok_or("an accepted record's meter is not defined")?;
        let meter = definitions.and_then(|definitions| definitions.meters.get(at));
        let meter = meter.ok_or("an accepted record's meter is not defined")?;
        let time = record.time.unwrap_or(self.entry.append_time);
        let set = record.dimensions.map_or(0, |set| set + 1);
        // Scopes and sets are 16-bit indices of the envelope.
        #[expect(clippy::cast_possible_truncation, reason = "an envelope's tables have 16-bit indices")]
        let shared = (record.scope as u32, set as u32);
        let known = self.scratch.slots.get(&shared).copied();
        let slot = match known.filter(|slot| self.state.rollups.is_minute_of(*slot, time)) {
            Some(slot) => slot,
            None => {
                let names = &mut self.state.rollups.names;
                #[expect(clippy::cast_possible_truncation, reason = "meters and sets are far fewer than 2^32")]
                let shared_kept = (at as u32, set as u32);
                let project = || names.kept(&kept_dimensions(self.usage, record, meter));
                let kept = *self.scratch.kept.entry(shared_kept).or_insert_with(project);
                let slot = self.state.rollups.slot(scope.series, kept, time, meter.aggregation);
                self.scratch.slots.insert(shared, slot);
                slot
            }
        };
        let position = Position { partition: self.entry.partition, offset: self.entry.offset, index };
        let unique = self.unique(record, meter).ok_or("an accepted record has nothing that its meter counts")?;
        let seen = Observation { quantity: record.quantity.0, time_ms: time.0, ordinal: position.ordinal(), unique };
        self.state.rollups.add(slot, &seen);
        Ok(())
    }

    fn unique(&self, record: &RecordRef<'_>, meter: &Meter) -> Option<u64> {
        if meter.aggregation != Aggregation::UniqueCount {
            return Some(0);
        }
        let pairs = record.dimensions.into_iter().flat_map(|set| self.usage.dimensions(set));
        unique_hash(&self.hasher, pairs, record.subject.map(|string| self.usage.strings()[string]))
    }
}

/// The place of an envelope's string in the batch; it enters once.
fn placed(places: &mut [Text], string: usize, strings: &[&str], batch: &mut RawBatch) -> Text {
    if places[string] == Text::ABSENT {
        places[string] = batch.texts.push(strings[string]);
    }
    places[string]
}

/// The projection of a record's dimensions on those that its meter keeps.
fn kept_dimensions(usage: &Usage<'_>, record: &RecordRef<'_>, meter: &Meter) -> String {
    let pairs = record.dimensions.into_iter().flat_map(|set| usage.dimensions(set));
    dimensions_json(pairs.filter(|(name, _)| meter.dimensions.iter().any(|kept| kept.name == *name)))
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
