//! Made-up usage of agent workers, and what it must add up to.
//!
//! One event is one model call of one tenant: it feeds three meters, so it makes three
//! records with one id. Half of all events name a user. Nothing here reads a clock.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use odometer_schemas::envelope::{EnvelopeBuilder, EnvelopeFull, Origin};
use odometer_schemas::log::LogEntry;
use odometer_schemas::partition::partition_of;
use odometer_schemas::quantity::Quantity;
use odometer_schemas::record::Record;
use odometer_schemas::time::TimeMs;

use crate::random::Random;

/// Tenants unless told otherwise.
pub const TENANTS_DEFAULT: u64 = 10_000;
/// The meters that each event feeds, in this order.
pub const METERS: [&str; 3] = ["llm.prompt_tokens", "llm.generated_tokens", "api_call"];

const MODELS: [&str; 4] = ["large", "medium", "small", "embedding"];
/// How far before the present events happened at most, in milliseconds.
const AGE_MS_MAX: u64 = 1000;
/// Largest quantity of tokens of one event.
const TOKENS_MAX: u64 = 5000;

/// Who makes the ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// The caller, random UUIDs.
    Uuid,
    /// The emitter, from its sequence.
    Emitted,
}

/// Which tenants events are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Spread {
    /// All equally often: for caches and books the hardest.
    #[default]
    Uniform,
    /// As popularity falls in practice: the tenant of rank r is as frequent as 1/r.
    Zipf,
    /// Each in turn, so that as many events as tenants touch every one.
    InTurn,
}

/// A stream of records.
#[derive(Clone, Debug)]
pub struct Traffic {
    random: Random,
    tenants: Arc<[String]>,
    ids: Ids,
    spread: Spread,
    event: Event,
    /// The meter of the next record.
    step: usize,
    tally: Vec<[Sum; METERS.len()]>,
}

/// What the records of one event share.
#[derive(Clone, Debug, Default)]
struct Event {
    id: Option<String>,
    tenant: usize,
    subject: Option<String>,
    model: &'static str,
    age_ms: i64,
}

/// Quantities and how many they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// The sum of quantities.
    pub quantity: i128,
    /// The number of records.
    pub records: u64,
}

/// Sums by tenant and meter.
pub type Tally = BTreeMap<(String, String), Sum>;

impl Traffic {
    /// The stream that `seed` begins. Streams with different seeds have different
    /// ids.
    #[must_use]
    pub fn new(seed: u64, tenants: u64, ids: Ids) -> Self {
        Self::of_tenants(seed, (0..tenants).map(|tenant| format!("tenant-{tenant}")).collect(), ids)
    }

    /// The stream of those tenants alone whose partition is `partition`.
    #[must_use]
    pub fn of_partition(seed: u64, tenants: u64, ids: Ids, (partition, partitions): (u32, u32)) -> Self {
        let names = (0..tenants).map(|tenant| format!("tenant-{tenant}"));
        Self::of_tenants(seed, names.filter(|name| partition_of(name, partitions) == partition).collect(), ids)
    }

    fn of_tenants(seed: u64, tenants: Vec<String>, ids: Ids) -> Self {
        assert!(!tenants.is_empty(), "traffic needs a tenant");
        let mut seeds = Random::new(seed);
        Self {
            // Neighbouring seeds must not give overlapping sequences.
            random: Random::new(seeds.number()),
            tally: vec![Default::default(); tenants.len()],
            tenants: tenants.into(),
            ids,
            spread: Spread::Uniform,
            event: Event::default(),
            step: 0,
        }
    }

    /// The same stream over tenants that are chosen otherwise.
    #[must_use]
    pub fn spread(self, spread: Spread) -> Self {
        Self { spread, ..self }
    }

    /// The next record, which happened shortly before `now`.
    pub fn record(&mut self, now: TimeMs) -> Record {
        let meter = self.step;
        if meter == 0 {
            self.next_event();
        }
        self.step = (meter + 1) % METERS.len();
        let tokens = 1 + self.random.below(TOKENS_MAX).cast_signed();
        let quantity = if METERS[meter] == "api_call" { 1 } else { tokens };
        let event = &self.event;
        let sum = &mut self.tally[event.tenant][meter];
        sum.quantity += i128::from(quantity);
        sum.records += 1;
        Record {
            tenant: self.tenants[event.tenant].clone(),
            source: "agent-worker".into(),
            id: event.id.clone(),
            meter: METERS[meter].into(),
            quantity: Quantity(quantity),
            time: Some(now.plus_ms(-event.age_ms)),
            subject: event.subject.clone(),
            dimensions: vec![("model".into(), event.model.into())],
            reservation: None,
        }
    }

    fn next_event(&mut self) {
        let tenant = self.next_tenant();
        let random = &mut self.random;
        self.event = Event {
            id: (self.ids == Ids::Uuid).then(|| random.uuid()),
            tenant,
            subject: (random.below(2) == 0).then(|| format!("user-{}", random.below(50))),
            model: MODELS[usize::try_from(random.below(4)).unwrap_or_default()],
            age_ms: random.below(AGE_MS_MAX).cast_signed(),
        };
    }

    fn next_tenant(&mut self) -> usize {
        let tenants = self.tenants.len();
        match self.spread {
            Spread::Uniform => usize::try_from(self.random.below(tenants as u64)).unwrap_or_default(),
            Spread::Zipf => {
                // The inverse of the continuous distribution, whose density is 1/r: no
                // table, and for many tenants hardly different.
                let rank = (tenants as f64 + 1.0).powf(self.random.fraction());
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1.0 to tenants + 1")]
                let rank = rank as usize;
                rank.clamp(1, tenants) - 1
            }
            Spread::InTurn => (self.event.tenant + 1) % tenants,
        }
    }

    /// A log entry of `records` records at `offset` of `partition`. With traffic of
    /// one partition it is what the log would hold.
    ///
    /// # Errors
    /// When so many records do not fit into an envelope.
    pub fn entry(&mut self, place: (u32, u64), now: TimeMs, records: usize) -> Result<LogEntry, EnvelopeFull> {
        let mut builder = EnvelopeBuilder::new();
        for _ in 0..records {
            builder.push(&self.record(now))?;
        }
        let (partition, offset) = place;
        let origin = Origin { source: 7, epoch: 1, first_sequence: offset * records as u64 };
        Ok(LogEntry { partition, offset, append_time: now, bytes: builder.seal(origin).into() })
    }

    /// What all records so far add up to.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::new();
        for (tenant, sums) in self.tenants.iter().zip(&self.tally) {
            for (meter, sum) in METERS.iter().zip(sums).filter(|(_, sum)| sum.records > 0) {
                tally.insert((tenant.clone(), (*meter).to_owned()), *sum);
            }
        }
        tally
    }
}

/// Appends `record` as one line of native NDJSON. The texts of [`Traffic`] need no
/// escapes.
///
/// # Panics
/// Never: writing to memory does not fail.
pub fn write_ndjson(record: &Record, out: &mut Vec<u8>) {
    let Record { tenant, source, meter, quantity, .. } = record;
    let quantity = quantity.0;
    write!(out, r#"{{"tenant":"{tenant}","source":"{source}","meter":"{meter}","quantity":{quantity}"#)
        .expect("memory takes it");
    for (name, text) in [("id", &record.id), ("subject", &record.subject)] {
        if let Some(text) = text {
            write!(out, r#","{name}":"{text}""#).expect("memory takes it");
        }
    }
    if let Some(time) = record.time {
        write!(out, r#","time":"{time}""#).expect("memory takes it");
    }
    for (name, value) in &record.dimensions {
        write!(out, r#","dimensions":{{"{name}":"{value}"}}"#).expect("memory takes it");
    }
    out.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: TimeMs = TimeMs(1_768_435_200_000);

    #[test]
    fn the_same_seed_gives_the_same_records_and_another_seed_other_ids() {
        let take = |seed| {
            let mut traffic = Traffic::new(seed, 100, Ids::Uuid);
            (0..300).map(|_| traffic.record(NOW)).collect::<Vec<_>>()
        };
        assert_eq!(take(1), take(1));
        let (one, two) = (take(1), take(2));
        assert!(one.iter().all(|record| two.iter().all(|other| other.id != record.id)));
        assert!(one.iter().all(|record| record.validate().is_ok()));
    }

    #[test]
    fn the_tally_is_what_was_made() {
        let mut traffic = Traffic::of_partition(3, 100, Ids::Emitted, (1, 4));
        let mut expected = Tally::new();
        for _ in 0..1000 {
            let record = traffic.record(NOW);
            let sum = expected.entry((record.tenant, record.meter)).or_default();
            sum.quantity += i128::from(record.quantity.0);
            sum.records += 1;
        }
        assert_eq!(traffic.tally(), expected);
        assert!(expected.keys().all(|(tenant, _)| partition_of(tenant, 4) == 1));
    }

    #[test]
    fn tenants_come_as_they_are_spread() {
        let count = |spread| {
            let mut traffic = Traffic::new(3, 1000, Ids::Emitted).spread(spread);
            (0..3000 * METERS.len()).for_each(|_| drop(traffic.record(NOW)));
            let tally = traffic.tally();
            let of = |tenant: usize| {
                tally.get(&(format!("tenant-{tenant}"), "api_call".to_owned())).map_or(0, |sum| sum.records)
            };
            (0..1000).map(of).collect::<Vec<u64>>()
        };
        assert_eq!(count(Spread::InTurn), vec![3; 1000]);
        let zipf = count(Spread::Zipf);
        // ln 2 / ln 1001 of all are the first's.
        assert!((250..350).contains(&zipf[0]), "{}", zipf[0]);
        assert!(zipf[0] > 5 * zipf[10] && zipf[500..].iter().sum::<u64>() > 100);
        assert!(count(Spread::Uniform)[0] < 20);
    }

    #[test]
    fn a_line_is_json() {
        let mut traffic = Traffic::new(3, 10, Ids::Uuid);
        for _ in 0..20 {
            let (mut line, record) = (Vec::new(), traffic.record(NOW));
            write_ndjson(&record, &mut line);
            let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(value["quantity"], record.quantity.0);
            assert_eq!(value["dimensions"]["model"], record.dimensions[0].1);
        }
    }
}
