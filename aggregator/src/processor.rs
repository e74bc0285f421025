//! The life of one partition.
//!
//! Call order: [`Processor::restore`] with what the totals book holds and the newest
//! snapshot; [`learn`](Processor::learn) for every log entry from
//! [`learn_from`](Processor::learn_from) up to the book's cursor; then
//! [`handle`](Processor::handle) for every entry from there on, in order. Whenever it
//! suits, [`poll_commit`](Processor::poll_commit) hands over what changed, and
//! [`snapshot`](Processor::snapshot) writes the ids down.

use odometer_schemas::accumulator::Accumulator;
use odometer_schemas::commit::{DefinitionsAt, ExceptionsRow, PartitionCommit, PartitionState};
use odometer_schemas::control::Control;
use odometer_schemas::definitions::{DedupeRule, Definitions, RULES_VERSION};
use odometer_schemas::digest::Hasher;
use odometer_schemas::envelope::{Decoded, Usage, decode};
use odometer_schemas::limits::ENVELOPE_RECORDS_MAX;
use odometer_schemas::log::LogEntry;
use odometer_schemas::quota::{Plan, PlanOrigin};
use odometer_schemas::time::TimeMs;
use odometer_schemas::verdict::{Verdict, VerdictCounts, pack, unpack};

use crate::cells::{Cell, LiveCells};
use crate::dedupe::{Ids, Marks};
use crate::judge::{Bench, Place, Scratch};
use crate::quota::{LiveQuota, QuotaBook};
use crate::rules::Rules;
use crate::snapshot::Snapshot;
use crate::totals::{SeriesKey, Totals};

/// What a processor needs to know besides the log.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The partition that it owns.
    pub partition: u32,
    /// Partitions of the log.
    pub partitions: u32,
    /// The installation's hash seed.
    pub hash_seed: u64,
    /// Ids remembered at most; with 28 bytes each this bounds the memory. When it is
    /// reached the partition pauses: forgetting early would count twice.
    pub ids_max: usize,
    /// Open totals at most, at 256 bytes each.
    pub totals_max: usize,
    /// Spreads ids over the tables; any value, best a secret one. Changes no verdict.
    pub placement_seed: u64,
}

impl Options {
    /// 100 million ids: 2.8 GB when frozen.
    pub const IDS_MAX_DEFAULT: usize = 100_000_000;
    /// 4 million totals: a gigabyte.
    pub const TOTALS_MAX_DEFAULT: usize = 4_000_000;
}

/// What a partition shows while it is counted: shared with whoever answers.
#[derive(Clone, Debug)]
pub struct LiveState {
    /// Its live counters.
    pub cells: LiveCells,
    /// Its decisions.
    pub quota: LiveQuota,
}

impl Default for LiveState {
    fn default() -> Self {
        let cells = LiveCells::default();
        Self { quota: LiveQuota::new(cells.clone()), cells }
    }
}

/// Why an entry was not taken. Nothing has changed; the same entry may be offered
/// again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The dedupe window holds as many ids as memory allows.
    #[error("partition remembers {ids} ids, as many as allowed; raise the limit or shorten the dedupe window")]
    IdsFull {
        /// Ids remembered.
        ids: usize,
    },
    /// There are as many open totals as memory allows.
    #[error("partition holds {totals} open totals, as many as allowed; raise the limit or close periods")]
    TotalsFull {
        /// Totals held.
        totals: usize,
    },
    /// The definitions were written by a newer build.
    #[error("rules version {found} is newer than this build's {RULES_VERSION}; upgrade this node")]
    RulesVersion {
        /// The version found.
        found: u32,
    },
}

/// The totals book holds something that this build cannot have written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the totals book's {what} cannot be read")]
pub struct RestoreError {
    /// What is wrong, with its key.
    pub what: String,
}

/// The owner of one partition's state.
#[derive(Debug)]
pub struct Processor {
    options: Options,
    hasher: Hasher,
    rules: Rules,
    rules_changed: bool,
    log_time: TimeMs,
    next_offset: u64,
    committed_offset: u64,
    learn_from: u64,
    counts: VerdictCounts,
    ids: Ids,
    marks: Marks,
    totals: Totals,
    quota: QuotaBook,
    exceptions: Vec<ExceptionsRow>,
    definitions: Vec<DefinitionsAt>,
    scratch: Scratch,
}

impl Processor {
    /// Takes a partition up where the totals book left it.
    ///
    /// # Errors
    /// When the book holds what no build has written.
    pub fn restore(
        options: Options,
        state: &PartitionState,
        snapshot: Option<Snapshot>,
        live: LiveState,
    ) -> Result<Self, RestoreError> {
        let hasher = Hasher::new(options.hash_seed);
        let rules = match &state.rules {
            Some(bytes) => Rules::from_bytes(bytes).ok_or_else(|| unreadable("rules"))?,
            None => Rules::default(),
        };
        let usable = snapshot.filter(|s| s.partition == options.partition && s.next_offset <= state.next_offset);
        // Without a snapshot all is learned from the log's start; the rule that holds
        // there comes with the first definitions found; until then the one in force does.
        let window_ms = rules.definitions.as_ref().map_or(DedupeRule::WINDOW_MS_DEFAULT, |d| d.dedupe.window_ms);
        let first_rule = DedupeRule { window_ms };
        let (learn_from, log_time, ids) = match usable {
            Some(snapshot) => (snapshot.next_offset, snapshot.log_time, snapshot.into_ids(options.placement_seed)),
            None => (0, TimeMs(0), Ids::new(first_rule, options.placement_seed)),
        };
        let LiveState { cells, quota: live } = live;
        let mut totals = Totals::new(cells.clone());
        restore_totals(&mut totals, &hasher, state)?;
        for (tenant, anchors) in rules.anchors() {
            live.set_anchors(tenant, anchors.clone());
        }
        live.set_meters(rules.definitions.as_ref());
        let mut quota = QuotaBook::new(live, cells);
        quota.restore(&state.quota).map_err(|what| unreadable(&what))?;
        quota.remember(&state.alerts);
        let mut restored = Self {
            options,
            hasher,
            rules,
            rules_changed: false,
            log_time,
            next_offset: state.next_offset,
            committed_offset: state.next_offset,
            learn_from,
            counts: state.counts,
            ids,
            marks: Marks::restore(&state.marks),
            totals,
            quota,
            exceptions: Vec::new(),
            definitions: Vec::new(),
            scratch: Scratch::default(),
        };
        restored.activate();
        if restored.learn_from >= restored.next_offset {
            restored.log_time = restored.log_time.max(state.log_time());
        }
        Ok(restored)
    }

    /// The first offset whose ids must be learned again; nothing is to be learned
    /// when it is not below [`next_offset`](Self::next_offset).
    #[must_use]
    pub fn learn_from(&self) -> u64 {
        self.learn_from
    }

    /// Learns the ids of an entry below the book's cursor again. `packed` are its
    /// verdicts when it was not wholly accepted.
    ///
    /// # Panics
    /// When the entry is at or above the cursor, or below what was learned.
    pub fn learn(&mut self, entry: &LogEntry, packed: Option<&[u8]>) {
        assert!(
            (self.learn_from..self.next_offset).contains(&entry.offset),
            "offset {} learned outside {}..{}",
            entry.offset,
            self.learn_from,
            self.next_offset
        );
        self.learn_from = entry.offset + 1;
        self.move_log_time(entry.append_time);
        match decode(&entry.bytes) {
            Ok(Decoded::Usage(usage)) => self.learn_usage(&usage, packed),
            Ok(Decoded::Control(control)) => {
                if let Control::Definitions(definitions) = *control {
                    self.ids.set_rule(definitions.dedupe, self.log_time.0);
                }
            }
            Err(_) => {}
        }
    }

    fn learn_usage(&mut self, usage: &Usage<'_>, packed: Option<&[u8]>) {
        let verdicts = packed.and_then(unpack);
        let ids = &self.ids;
        let keys = self.scratch.keys(&self.hasher, usage, |fingerprint| ids.prefetch(fingerprint));
        for (index, (fingerprint, hash)) in keys.enumerate() {
            let verdict = verdicts.as_ref().map_or(Some(Verdict::Accepted), |v| v.get(index).copied());
            let emitted = matches!(usage.record(index).id, odometer_schemas::record::IdRef::Emitted(_));
            if !emitted && verdict.is_some_and(Verdict::is_remembered) {
                self.ids.note(fingerprint, hash);
            }
        }
    }

    /// Judges and counts one entry.
    ///
    /// # Errors
    /// [`Refusal`]: nothing has changed, and the partition must pause.
    ///
    /// # Panics
    /// When entries are offered out of order or before everything was learned: that
    /// would be our own bug, and counting on would be wrong.
    pub fn handle(&mut self, entry: &LogEntry) -> Result<(), Refusal> {
        assert!(
            entry.partition == self.options.partition && entry.offset >= self.next_offset,
            "entry {}/{} offered to partition {} at {}",
            entry.partition,
            entry.offset,
            self.options.partition,
            self.next_offset
        );
        self.check_room()?;
        let decoded = decode(&entry.bytes);
        if let Ok(Decoded::Control(control)) = &decoded {
            check_rules_version(control)?;
        }
        self.move_log_time(entry.append_time);
        match decoded {
            Ok(Decoded::Usage(usage)) => self.judge(entry, &usage),
            Ok(Decoded::Control(control)) => self.apply(entry.offset, *control),
            Err(error) => {
                let verdict = Verdict::Rejected(error.into());
                self.counts.count(verdict);
                self.exceptions.push(ExceptionsRow { offset: entry.offset, verdicts: pack(&[verdict]) });
            }
        }
        self.ids.freeze_one();
        self.next_offset = entry.offset + 1;
        Ok(())
    }

    fn check_room(&self) -> Result<(), Refusal> {
        let (ids, totals) = (self.ids.len(), self.totals.len());
        if ids + ENVELOPE_RECORDS_MAX > self.options.ids_max {
            return Err(Refusal::IdsFull { ids });
        }
        if totals + ENVELOPE_RECORDS_MAX > self.options.totals_max {
            return Err(Refusal::TotalsFull { totals });
        }
        Ok(())
    }

    fn judge(&mut self, entry: &LogEntry, usage: &Usage<'_>) {
        let place = Place {
            partition: self.options.partition,
            partitions: self.options.partitions,
            offset: entry.offset,
            append_time: entry.append_time,
            log_time: self.log_time,
        };
        let mut bench = Bench {
            hasher: self.hasher,
            rules: &self.rules,
            ids: &mut self.ids,
            marks: &mut self.marks,
            totals: &mut self.totals,
            counts: &mut self.counts,
            quota: &mut self.quota,
        };
        self.exceptions.extend(bench.judge(usage, place, &mut self.scratch));
    }

    fn apply(&mut self, offset: u64, control: Control<'_>) {
        match control {
            Control::Tick => return,
            Control::Definitions(definitions) => {
                self.ids.set_rule(definitions.dedupe, self.log_time.0);
                let adopted = self.rules.adopt(definitions).clone();
                self.quota.live().set_meters(Some(&adopted));
                self.definitions.push(DefinitionsAt { offset, definitions: adopted });
                self.activate();
            }
            Control::Anchor { tenant, anchor_ms } => {
                let ahead_ms = self.rules.definitions.as_ref().map_or(0, |d| d.future_ms_max);
                self.rules.set_anchor(tenant.clone(), anchor_ms, self.log_time.plus_ms(ahead_ms));
                self.quota.live().set_anchors(&tenant, self.rules.anchors_of(&tenant));
            }
            Control::Close { through_ms, .. } => {
                self.rules.close(through_ms);
                let rules = &self.rules;
                self.quota.close(|period| rules.is_closed(period));
            }
            Control::Owner { epoch } => return self.quota.own(epoch),
            Control::Plan { plan, origin } => return self.quota.plan(plan, origin),
            Control::Terms { tenant, terms } => return self.quota.terms(&tenant, terms),
            Control::Quota { epoch, operations } => return self.quota.operate(epoch, &operations),
        }
        self.rules_changed = true;
    }

    fn activate(&mut self) {
        let definitions = self.rules.definitions.as_ref();
        self.totals.set_active(|meter| definitions.is_some_and(|d| d.meter(meter).is_some()));
    }

    fn move_log_time(&mut self, append_time: TimeMs) {
        self.log_time = self.log_time.max(append_time);
        self.ids.advance(self.log_time.0);
        self.quota.advance(self.log_time.0);
    }

    /// What changed since the last call, absolute values; `None` when nothing did.
    pub fn poll_commit(&mut self) -> Option<PartitionCommit> {
        self.poll_commit_in_pieces(|| {})
    }

    /// The same in pieces that are short, of what is stored in many bytes; `between` is
    /// called between them.
    pub fn poll_commit_in_pieces(&mut self, between: impl FnMut()) -> Option<PartitionCommit> {
        if self.next_offset == self.committed_offset {
            return None;
        }
        assert!(self.counts.is_conserved(), "conservation law broken: {:?}", self.counts);
        let rules_changed = std::mem::take(&mut self.rules_changed);
        let commit = PartitionCommit {
            partition: self.options.partition,
            from_offset: self.committed_offset,
            next_offset: self.next_offset,
            log_time_ms: self.log_time.0,
            counts: self.counts,
            totals: self.totals.take_dirty(),
            marks: self.marks.take_changed(),
            exceptions: std::mem::take(&mut self.exceptions),
            rules: rules_changed.then(|| self.rules.to_bytes()),
            definitions: std::mem::take(&mut self.definitions),
            quota: self.quota.take_dirty(between),
            alerts: self.quota.take_alerts(),
        };
        if rules_changed {
            let rules = &self.rules;
            self.totals.release(|period| rules.is_closed(period));
        }
        self.committed_offset = self.next_offset;
        Some(commit)
    }

    /// Rows that the next commit would hold: the shell's measure of what piles up
    /// while the totals book cannot be reached.
    #[must_use]
    pub fn pending_rows(&self) -> usize {
        self.totals.dirty() + self.exceptions.len() + self.quota.pending()
    }

    /// Those of them that need memory of their own until they are handed over.
    #[must_use]
    pub fn pending_exceptions(&self) -> usize {
        self.exceptions.len()
    }

    /// Writes down the ids as of [`next_offset`](Self::next_offset).
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        crate::snapshot::encode(self.options.partition, self.next_offset, self.log_time, &self.ids)
    }

    /// The next offset that it needs.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// The running maximum of append times.
    #[must_use]
    pub fn log_time(&self) -> TimeMs {
        self.log_time
    }

    /// Counts by verdict since the log's beginning.
    #[must_use]
    pub fn counts(&self) -> &VerdictCounts {
        &self.counts
    }

    /// The definitions in force.
    #[must_use]
    pub fn definitions(&self) -> Option<&Definitions> {
        self.rules.definitions.as_ref()
    }

    /// The first meter of `wanted` that would change what its old records mean.
    #[must_use]
    pub fn redefined<'a>(&self, wanted: &'a Definitions) -> Option<&'a str> {
        self.rules.redefined(wanted)
    }

    /// The plans in force, and where each is from.
    pub fn plans(&self) -> impl Iterator<Item = (&Plan, PlanOrigin)> {
        self.quota.entitlements().plans()
    }

    /// The newest owner that the log names.
    #[must_use]
    pub fn quota_epoch(&self) -> u64 {
        self.quota.epoch()
    }

    /// Ids remembered, and log time since which all of them are.
    #[must_use]
    pub fn dedupe_window(&self) -> (usize, Option<TimeMs>) {
        (self.ids.len(), self.ids.oldest_ms().map(TimeMs))
    }
}

fn restore_totals(totals: &mut Totals, hasher: &Hasher, state: &PartitionState) -> Result<(), RestoreError> {
    for row in &state.totals {
        let key = SeriesKey::new(hasher.text(&row.tenant), hasher.text(&row.meter));
        let series =
            totals.find_series(key).unwrap_or_else(|| totals.add_series(key, &row.tenant, &row.meter, row.aggregation));
        if !Cell::fits(row.period_start_ms, row.period_end_ms) {
            let key = (&row.tenant, &row.meter, row.period_start_ms);
            return Err(unreadable(&format!("end {} of the period of total {key:?}", row.period_end_ms)));
        }
        let total = Accumulator::restore(row.aggregation, row.records, row.sum, &row.state).map_err(|_| {
            unreadable(&format!("state of total ({}, {}, {})", row.tenant, row.meter, row.period_start_ms))
        })?;
        totals.restore(series, row, total);
    }
    Ok(())
}

fn check_rules_version(control: &Control) -> Result<(), Refusal> {
    match control {
        Control::Definitions(d) if d.rules_version > RULES_VERSION => {
            Err(Refusal::RulesVersion { found: d.rules_version })
        }
        _ => Ok(()),
    }
}

fn unreadable(what: &str) -> RestoreError {
    RestoreError { what: what.to_owned() }
}
