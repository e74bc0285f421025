//! One envelope: every record judged in order, accepted ones counted.
//!
//! Two passes. The first resolves what records share and hashes every key, so that
//! the memory a record needs is on its way while earlier ones are judged. The second
//! judges. Order of judgement: rejected, duplicate or conflict, late, accepted.

use std::sync::Arc;

use odometer_schemas::accumulator::{Observation, unique_hash};
use odometer_schemas::commit::ExceptionsRow;
use odometer_schemas::digest::{Content, Fingerprint, Hasher, RecordHash, ScopeHash, TextHash};
use odometer_schemas::envelope::{RecordRef, Usage};
use odometer_schemas::log::Position;
use odometer_schemas::meter::Aggregation;
use odometer_schemas::partition::partition_of;
use odometer_schemas::record::IdRef;
use odometer_schemas::time::TimeMs;
use odometer_schemas::verdict::{RejectReason, Verdict, VerdictCounts, pack};

use crate::cells::Cell;
use crate::dedupe::{Ids, Marks, Seen};
use crate::quota::{Entry, Layers, QuotaBook};
use crate::rules::Rules;
use crate::totals::{Counting, SeriesId, SeriesKey, Target, Totals};

/// The dimension that names a record's API key, for limits per key.
const KEY_DIMENSION: &str = "key";

/// How much of event time counts as recent for the live minutes.
const RECENT_MS: i64 = crate::cells::RECENT_MINUTES as i64 * odometer_schemas::time::MINUTE_MS;

/// Buffers that live as long as the processor, so that an envelope allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    texts: Vec<TextHash>,
    dimensions: Vec<TextHash>,
    scopes: Vec<Scope>,
    hashed: Vec<Hashed>,
    verdicts: Vec<Verdict>,
}

#[derive(Clone, Copy, Debug)]
struct Scope {
    hash: ScopeHash,
    series: Result<SeriesId, RejectReason>,
}

/// A record with its hashes, and what judging needs of it close together.
#[derive(Clone, Copy, Debug)]
struct Hashed {
    fingerprint: Fingerprint,
    hash: RecordHash,
    quantity: i64,
    time: TimeMs,
    scope: u32,
    emitted: bool,
    /// It carries a reservation.
    is_governed: bool,
}

/// Where and when an envelope stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) partition: u32,
    pub(crate) partitions: u32,
    pub(crate) offset: u64,
    pub(crate) append_time: TimeMs,
    pub(crate) log_time: TimeMs,
}

impl Place {
    fn entry(&self) -> Entry {
        Entry { offset: self.offset, append_time: self.append_time }
    }
}

/// The partition's state that judging reads and changes.
pub(crate) struct Bench<'a> {
    pub(crate) hasher: Hasher,
    pub(crate) rules: &'a Rules,
    pub(crate) ids: &'a mut Ids,
    pub(crate) marks: &'a mut Marks,
    pub(crate) totals: &'a mut Totals,
    pub(crate) counts: &'a mut VerdictCounts,
    pub(crate) quota: &'a mut QuotaBook,
}

impl Bench<'_> {
    /// Judges and counts a whole envelope; the exceptions when not all of it was
    /// accepted.
    pub(crate) fn judge(&mut self, usage: &Usage<'_>, place: Place, scratch: &mut Scratch) -> Option<ExceptionsRow> {
        let hasher = self.hasher;
        scratch.hash_tables(&hasher, usage);
        self.resolve(usage, place, scratch);
        scratch.hash_records(&hasher, usage, place.append_time, |hashed, scope| self.prefetch(hashed, scope));
        let time_ms_max =
            self.rules.definitions.as_ref().map_or(i64::MAX, |d| place.log_time.0.saturating_add(d.future_ms_max));
        let Scratch { scopes, hashed, verdicts, .. } = scratch;
        let sheet = Sheet { usage, place, time_ms_max };
        verdicts.clear();
        for (index, one) in hashed.iter().enumerate() {
            let scope = &scopes[one.scope as usize];
            let verdict = self.judge_one(&One { sheet: &sheet, hashed: one, index }, scope);
            self.counts.count(verdict);
            verdicts.push(verdict);
        }
        self.publish(place);
        let all_accepted = verdicts.iter().all(|verdict| *verdict == Verdict::Accepted);
        (!all_accepted).then(|| ExceptionsRow { offset: place.offset, verdicts: pack(verdicts) })
    }

    /// Finds the series of every distinct (tenant, source, meter) in the envelope.
    fn resolve(&mut self, usage: &Usage<'_>, place: Place, scratch: &mut Scratch) {
        let Scratch { texts, scopes, .. } = scratch;
        scopes.clear();
        let key = |scope: odometer_schemas::envelope::Scope| SeriesKey::new(texts[scope.tenant], texts[scope.meter]);
        for scope in usage.scopes() {
            self.totals.prefetch_series(key(scope));
        }
        for scope in usage.scopes() {
            let hash = self.hasher.scope(texts[scope.tenant], texts[scope.source], texts[scope.meter]);
            let series = match self.totals.find_series(key(scope)) {
                Some(series) => Ok(series),
                None => {
                    self.open_series(key(scope), usage.strings()[scope.tenant], usage.strings()[scope.meter], place)
                }
            };
            scopes.push(Scope { hash, series });
        }
    }

    #[cold]
    fn open_series(
        &mut self,
        key: SeriesKey,
        tenant: &str,
        meter: &str,
        place: Place,
    ) -> Result<SeriesId, RejectReason> {
        if partition_of(tenant, place.partitions) != place.partition {
            return Err(RejectReason::WrongPartition);
        }
        let definitions = self.rules.definitions.as_ref();
        let meter = definitions.and_then(|d| d.meter(meter)).ok_or(RejectReason::UnknownMeter)?;
        Ok(self.totals.add_series(key, tenant, &meter.name, meter.aggregation))
    }

    #[inline]
    fn prefetch(&self, hashed: &Hashed, scope: &Scope) {
        self.ids.prefetch(hashed.fingerprint);
        if let Ok(series) = scope.series {
            self.totals.prefetch_cell(series, hashed.time);
        }
    }

    #[inline]
    fn judge_one(&mut self, one: &One<'_>, scope: &Scope) -> Verdict {
        let (series, seen) = match self.check(one, scope) {
            Ok(checked) => checked,
            Err(reason) => {
                // The sequence was decided all the same; a gap would never be filled.
                let _ = self.first_sequence(one);
                return Verdict::Rejected(reason);
            }
        };
        match self.first_seen(one) {
            Ok(Seen::New) => {}
            Ok(Seen::Same) => return Verdict::Duplicate,
            Ok(Seen::Other) => return Verdict::Conflict,
            Err(reason) => return Verdict::Rejected(reason),
        }
        let time = TimeMs(seen.time_ms);
        let rules = self.rules;
        let mut target = self.totals.target(series, time, |tenant| rules.period_of(tenant, time));
        if rules.is_closed(target.period) {
            return Verdict::Late;
        }
        let is_recent = seen.time_ms > one.sheet.place.log_time.0 - RECENT_MS;
        let held_change = match one.hashed.is_governed || self.quota.entitlements().is_layered() {
            true => self.govern(one, series, &mut target, &seen),
            false => 0,
        };
        self.totals.add(target, &seen, Counting { hash: one.hashed.hash, is_recent, held_change });
        Verdict::Accepted
    }

    /// Shows what the entry changed, and tells what it crossed of its limits.
    fn publish(&mut self, place: Place) {
        let plans = self.quota.entitlements().version();
        while let Some((series, cell)) = self.totals.publish_next() {
            if cell.watch().is_due(cell.settled(), plans) {
                let cell = Arc::clone(cell);
                self.look(series, &cell, place);
            }
        }
    }

    /// Tells what a total crossed of its limit.
    #[cold]
    fn look(&mut self, series: SeriesId, cell: &Cell, place: Place) {
        let (tenant, meter) = self.totals.names(series);
        // Nothing else can be limited.
        let adds_up = matches!(self.totals.active(series), Some(Aggregation::Sum | Aggregation::Count));
        self.quota.look_at_total(place.entry(), (&tenant, &meter), cell, adds_up);
    }

    /// Draws a record's reservation down, and settles it for its subject and key; by
    /// how much the word of the record's own counter moves for that.
    #[cold]
    fn govern(&mut self, one: &One<'_>, series: SeriesId, target: &mut Target, seen: &Observation) -> i64 {
        let (tenant, meter) = self.totals.names(series);
        let quantity = match self.totals.active(series) {
            Some(Aggregation::Count) => 1,
            _ => seen.quantity,
        };
        let record = one.sheet.usage.record(one.index);
        let text = |at: usize| one.sheet.usage.strings()[at];
        let reservation = record.reservation.map(text);
        if self.quota.entitlements().is_layered() {
            let user = reservation.map_or((None, None), |id| self.quota.user_of(&tenant, id));
            let user = (user.0.map(str::to_owned), user.1.map(str::to_owned));
            let mut dimensions = record.dimensions.into_iter().flat_map(|set| one.sheet.usage.dimensions(set));
            let key = dimensions.find(|(name, _)| *name == KEY_DIMENSION).map(|(_, value)| value);
            let (subject, key) = (record.subject.map(text).or(user.0.as_deref()), key.or(user.1.as_deref()));
            let layers = Layers { tenant: &tenant, subject, key };
            self.quota.settle(one.sheet.place.entry(), layers, &meter, (target.period, quantity));
        }
        let cell = self.totals.cell(target);
        reservation.map_or(0, |id| self.quota.draw((&tenant, id), &meter, quantity, &cell))
    }

    /// The rules that a record breaks whatever was seen before.
    #[inline]
    fn check(&self, one: &One<'_>, scope: &Scope) -> Result<(SeriesId, Observation), RejectReason> {
        let series = scope.series?;
        let aggregation = self.totals.active(series).ok_or(RejectReason::UnknownMeter)?;
        let time = one.hashed.time;
        time.checked().map_err(|_| RejectReason::TimeOutOfRange)?;
        if time.0 > one.sheet.time_ms_max {
            return Err(RejectReason::TimeInFuture);
        }
        let unique = match aggregation {
            Aggregation::UniqueCount => one.unique(&self.hasher).ok_or(RejectReason::MissingUniqueValue)?,
            _ => 0,
        };
        #[expect(clippy::cast_possible_truncation, reason = "an envelope holds at most 512 records")]
        let index = one.index as u16;
        let position = Position { partition: one.sheet.place.partition, offset: one.sheet.place.offset, index };
        Ok((
            series,
            Observation { quantity: one.hashed.quantity, time_ms: time.0, ordinal: position.ordinal(), unique },
        ))
    }

    /// Whether the key is new, and remembers it if so. Late records are remembered
    /// too: another copy of one is a duplicate.
    #[inline]
    fn first_seen(&mut self, one: &One<'_>) -> Result<Seen, RejectReason> {
        if one.hashed.emitted {
            return self.first_sequence(one);
        }
        let Hashed { fingerprint, hash, .. } = *one.hashed;
        Ok(self.ids.note(fingerprint, hash))
    }

    /// The same for an emitter's own id; new for any other.
    fn first_sequence(&mut self, one: &One<'_>) -> Result<Seen, RejectReason> {
        if !one.hashed.emitted {
            return Ok(Seen::New);
        }
        let origin = one.sheet.usage.origin();
        let sequence = origin.first_sequence + one.index as u64;
        let new = self.marks.decide(origin.source, origin.epoch, sequence)?;
        Ok(if new { Seen::New } else { Seen::Same })
    }
}

/// What the records of an envelope are judged by.
struct Sheet<'a> {
    usage: &'a Usage<'a>,
    place: Place,
    /// Event times above it lie too far in the future.
    time_ms_max: i64,
}

/// One record in its place.
struct One<'a> {
    sheet: &'a Sheet<'a>,
    hashed: &'a Hashed,
    index: usize,
}

impl One<'_> {
    fn unique(&self, hasher: &Hasher) -> Option<u64> {
        let usage = self.sheet.usage;
        let record = usage.record(self.index);
        let dimensions = record.dimensions.into_iter().flat_map(|set| usage.dimensions(set));
        unique_hash(hasher, dimensions, record.subject.map(|at| usage.strings()[at]))
    }
}

impl Scratch {
    /// Keys and contents only, for ids that are learned again from the log.
    pub(crate) fn keys(
        &mut self,
        hasher: &Hasher,
        usage: &Usage<'_>,
        ready: impl Fn(Fingerprint),
    ) -> impl Iterator<Item = (Fingerprint, RecordHash)> + '_ {
        self.hash_tables(hasher, usage);
        self.scopes.clear();
        self.scopes.extend(usage.scopes().map(|scope| Scope {
            hash: hasher.scope(self.texts[scope.tenant], self.texts[scope.source], self.texts[scope.meter]),
            series: Err(RejectReason::UnknownMeter),
        }));
        self.hash_records(hasher, usage, TimeMs::default(), |hashed, _| ready(hashed.fingerprint));
        self.hashed.iter().map(|hashed| (hashed.fingerprint, hashed.hash))
    }

    /// Hashes every record, and tells when one is ready: what it needs of memory can be on
    /// its way while the others are hashed.
    fn hash_records(
        &mut self,
        hasher: &Hasher,
        usage: &Usage<'_>,
        append_time: TimeMs,
        ready: impl Fn(&Hashed, &Scope),
    ) {
        self.hashed.clear();
        for record in usage.records() {
            let scope = &self.scopes[record.scope];
            let hashed = self.hash_record(hasher, scope.hash, &record, append_time);
            ready(&hashed, scope);
            self.hashed.push(hashed);
        }
    }

    fn hash_tables(&mut self, hasher: &Hasher, usage: &Usage<'_>) {
        self.texts.clear();
        self.texts.extend(usage.strings().iter().map(|text| hasher.text(text)));
        self.dimensions.clear();
        let sets = 0..usage.dimension_sets();
        self.dimensions.extend(sets.map(|set| hasher.dimensions(usage.dimensions(set))));
    }

    /// Part of its caller, so that nothing goes over the stack.
    #[inline(always)]
    fn hash_record(&self, hasher: &Hasher, scope: ScopeHash, record: &RecordRef<'_>, append_time: TimeMs) -> Hashed {
        let optional = |index: Option<usize>| index.map_or_else(TextHash::default, |at| self.texts[at]);
        let fingerprint = hasher.fingerprint(scope, &record.id);
        let content = Content {
            quantity: record.quantity.0,
            time_ms: record.time.map(|time| time.0),
            subject: optional(record.subject),
            dimensions: record.dimensions.map_or_else(TextHash::default, |set| self.dimensions[set]),
            reservation: optional(record.reservation),
        };
        #[expect(clippy::cast_possible_truncation, reason = "an envelope has at most 512 scopes")]
        let scope = record.scope as u32;
        Hashed {
            fingerprint,
            hash: hasher.record(fingerprint, &content),
            quantity: record.quantity.0,
            time: record.time.unwrap_or(append_time),
            scope,
            emitted: matches!(record.id, IdRef::Emitted(_)),
            is_governed: record.reservation.is_some(),
        }
    }
}
