//! Logs for the emitter to write to, and the reader that checks what came of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use odometer_ingest::log::{AppendError, Appended, LogAppender, PendingAppend};
use odometer_schemas::envelope::{Decoded, decode};
use odometer_schemas::log::{LogEntry, Position};
use odometer_schemas::quantity::Quantity;
use odometer_schemas::record::{IdRef, Record};
use odometer_schemas::time::TimeMs;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A log in memory that answers at once.
#[derive(Debug)]
pub(crate) struct MemoryLog {
    partitions: u32,
    entries: Mutex<Vec<LogEntry>>,
    /// While set, nothing is taken and nothing answered.
    pub(crate) is_hung: AtomicBool,
    /// While set, nothing is taken.
    pub(crate) is_down: AtomicBool,
}

impl MemoryLog {
    pub(crate) fn new(partitions: u32) -> Arc<Self> {
        Arc::new(Self { partitions, entries: Mutex::default(), is_hung: false.into(), is_down: false.into() })
    }

    pub(crate) fn entries(&self) -> Vec<LogEntry> {
        self.entries.lock().expect("not poisoned").clone()
    }

    /// All records in the log, as often as they are there.
    pub(crate) fn records(&self) -> Vec<Record> {
        self.entries().iter().flat_map(|entry| records_of(&entry.bytes)).collect()
    }
}

impl LogAppender for MemoryLog {
    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn append(&self, partition: u32, bytes: Vec<u8>) -> PendingAppend {
        if self.is_hung.load(Ordering::SeqCst) {
            let (answer, pending) = PendingAppend::channel();
            // Held for ever: a dropped one would be an answer.
            std::mem::forget(answer);
            return pending;
        }
        if self.is_down.load(Ordering::SeqCst) {
            return PendingAppend::ready(Err(AppendError::Unavailable("down for the test".into())));
        }
        let mut entries = self.entries.lock().expect("not poisoned");
        let (offset, append_time) = (entries.len() as u64, TimeMs(1_700_000_000_000));
        entries.push(LogEntry { partition, offset, append_time, bytes: bytes.into() });
        PendingAppend::ready(Ok(Appended { offset, append_time }))
    }
}

/// Before a log: refuses, loses answers, delays and repeats, by a seeded choice.
pub(crate) struct Flaky {
    pub(crate) log: Arc<dyn LogAppender>,
    pub(crate) rng: Mutex<StdRng>,
}

impl Flaky {
    pub(crate) fn new(log: Arc<dyn LogAppender>, seed: u64) -> Arc<Self> {
        Arc::new(Self { log, rng: Mutex::new(StdRng::seed_from_u64(seed)) })
    }
}

impl LogAppender for Flaky {
    fn partitions(&self) -> u32 {
        self.log.partitions()
    }

    fn append(&self, partition: u32, envelope: Vec<u8>) -> PendingAppend {
        let (choice, delay_ms) = {
            let mut rng = self.rng.lock().expect("not poisoned");
            (rng.random_range(0..100), rng.random_range(1..60))
        };
        let unavailable = || PendingAppend::ready(Err(AppendError::Unavailable("flaky".into())));
        match choice {
            0..10 => PendingAppend::ready(Err(AppendError::Busy)),
            10..20 => unavailable(),
            20..35 => {
                let lost = self.log.append(partition, envelope);
                tokio::spawn(async { lost.wait().await });
                unavailable()
            }
            35..50 => {
                let (answer, pending) = PendingAppend::channel();
                let log = Arc::clone(&self.log);
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                    let _ = answer.send(log.append(partition, envelope).wait().await);
                });
                pending
            }
            50..60 => {
                let first = self.log.append(partition, envelope.clone());
                tokio::spawn(async { first.wait().await });
                self.log.append(partition, envelope)
            }
            _ => self.log.append(partition, envelope),
        }
    }
}

pub(crate) fn records_of(envelope: &[u8]) -> Vec<Record> {
    match decode(envelope).expect("the log holds envelopes") {
        Decoded::Usage(usage) => (0..usage.len()).map(|index| usage.to_owned_record(index)).collect(),
        Decoded::Control(_) => panic!("emitters send usage only"),
    }
}

/// What a reader that counts every record once makes of the log: records by their
/// first position.
///
/// Holds the emitter to its word on the way: an emitter's sequences are contiguous
/// from zero, never beyond what a reader remembers above a gap, and mean the same
/// bytes whenever they come.
pub(crate) fn counted(entries: &[LogEntry]) -> BTreeMap<Position, Record> {
    let mut marks: HashMap<(u32, u128), Mark> = HashMap::new();
    let mut keys = BTreeSet::new();
    let mut counted = BTreeMap::new();
    for LogEntry { partition, offset, bytes, .. } in entries {
        let Decoded::Usage(usage) = decode(bytes).expect("the log holds envelopes") else { panic!("a control record") };
        let origin = usage.origin();
        let mark = marks.entry((*partition, origin.source)).or_default();
        let same = mark.envelopes.entry(origin.first_sequence).or_insert_with(|| bytes.to_vec());
        assert!(*same == **bytes, "two envelopes start at sequence {}", origin.first_sequence);
        for index in 0..usage.len() {
            let record = usage.to_owned_record(index);
            let is_new = match usage.record(index).id {
                IdRef::Emitted(id) => mark.decide(id.sequence),
                id => keys.insert((record.tenant.clone(), record.source.clone(), id.to_string(), record.meter.clone())),
            };
            if is_new {
                let index = u16::try_from(index).expect("at most 512");
                counted.insert(Position { partition: *partition, offset: *offset, index }, record);
            }
        }
    }
    for mark in marks.values() {
        let mut next = 0;
        for (first, bytes) in &mark.envelopes {
            assert_eq!(*first, next, "envelopes overlap or leave a gap");
            next = first + records_of(bytes).len() as u64;
        }
        assert!(mark.above.is_empty(), "sequences are missing below {:?}", mark.above);
    }
    counted
}

#[derive(Default)]
struct Mark {
    envelopes: BTreeMap<u64, Vec<u8>>,
    low_water: u64,
    above: BTreeSet<u64>,
}

impl Mark {
    fn decide(&mut self, sequence: u64) -> bool {
        assert!(sequence < self.low_water + 4096, "sequence {sequence} is too far above {}", self.low_water);
        let is_new = sequence >= self.low_water && self.above.insert(sequence);
        while self.above.remove(&self.low_water) {
            self.low_water += 1;
        }
        is_new
    }
}

/// A record that no other number makes.
pub(crate) fn record(n: i64) -> Record {
    Record {
        tenant: format!("tenant-{}", n % 17),
        source: "test".into(),
        id: None,
        meter: ["api_call", "llm.prompt_tokens"][usize::from(n % 3 == 0)].into(),
        quantity: Quantity(n),
        time: (n % 5 != 0).then_some(TimeMs(1_700_000_000_000 + n)),
        subject: (n % 2 == 0).then(|| format!("user-{}", n % 7)),
        dimensions: if n % 4 == 0 { vec![("model".into(), format!("m{}", n % 3))] } else { vec![] },
        reservation: None,
    }
}

/// One with an id of its caller's.
pub(crate) fn record_with_id(n: i64) -> Record {
    Record { id: Some(format!("id-{n}")), ..record(n) }
}

pub(crate) fn sorted(records: impl IntoIterator<Item = Record>) -> Vec<Record> {
    let mut records: Vec<Record> = records.into_iter().collect();
    records.sort_by_key(|record| (record.quantity.0, record.id.is_some()));
    records
}
