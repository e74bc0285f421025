//! What every log must keep, as one test body for all implementations.
//!
//! An implementation wraps itself as [`LogUnderTest`] and calls [`check`]; each rule
//! starts with a new, empty log. A broken rule panics and names itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use odometer_schemas::limits::ENVELOPE_BYTES_MAX;
use odometer_schemas::log::LogEntry;
use odometer_schemas::time::TimeMs;

use super::{AppendError, Appended, Bounds, LogAppender, LogError, LogReader, PendingAppend};

/// What a rule needs of its log.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Partitions of the log.
    pub partitions: u32,
    /// Envelopes that may wait before appends are `Busy`.
    pub queue_envelopes: usize,
}

/// A log that a rule is tried on.
pub trait LogUnderTest {
    /// The writing half.
    fn appender(&self) -> Arc<dyn LogAppender>;
    /// A new reading half.
    fn reader(&self) -> Box<dyn LogReader>;
    /// Removes what is below `below_offset`, as retention would.
    fn retain(&self, partition: u32, below_offset: u64);
    /// Closes the log; appenders stay with whoever has them.
    fn close(&mut self);
    /// Closes the log when it is open, and opens it again where it was.
    ///
    /// # Errors
    /// What opening it answered; the log is closed then.
    fn reopen(&mut self, partitions: u32) -> Result<(), LogError>;
}

/// Makes a new, empty log.
pub type Make<'a> = dyn Fn(Setup) -> Box<dyn LogUnderTest> + 'a;

type Rule = (&'static str, fn(&Make<'_>));

/// Tries every rule on logs from `make`.
///
/// # Panics
/// When a rule is broken.
pub fn check(make: &Make<'_>) {
    let rules: [Rule; 12] = [
        ("an empty log has nothing to read", empty),
        ("a partition gives back what it took, in order", order),
        ("reads start anywhere and honour their size", partial_reads),
        ("append time never goes back within a partition", append_time),
        ("whatever many threads were told is stored is there once", many_threads),
        ("a full queue is busy and loses nothing", busy),
        ("what is too large or goes nowhere is refused", size_limit),
        ("retention removes the old and says so", retention),
        ("a reader is woken by an append", waiting),
        ("what is appended unflushed is there as well, and in its order", unflushed),
        ("a closed log answers what it took and takes nothing more", closing),
        ("a log is the same after it was opened again", reopening),
    ];
    for (name, rule) in rules {
        // Shown by the test harness when the rule below panics.
        println!("log contract: {name}");
        rule(make);
    }
}

const SMALL: Setup = Setup { partitions: 3, queue_envelopes: 64 };

/// Enough for any entry, and for many.
const READ_BYTES: usize = 1 << 20;

/// Bytes that tell envelopes apart; `n` makes both content and length.
fn envelope(n: u64) -> Vec<u8> {
    let mut bytes = n.to_le_bytes().to_vec();
    let length = 8 + usize::try_from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54).expect("ten bits fit");
    bytes.resize(length, n.to_le_bytes()[0]);
    bytes
}

fn append(log: &dyn LogAppender, partition: u32, bytes: Vec<u8>) -> Appended {
    log.append(partition, bytes).wait_blocking().expect("the log takes an envelope")
}

/// Everything in `partition`, read in as many calls as it takes.
fn read_all(reader: &mut dyn LogReader, partition: u32) -> Vec<LogEntry> {
    let mut from_offset = reader.bounds(partition).expect("bounds can be asked").start_offset;
    let mut all = Vec::new();
    loop {
        let entries = reader.read(partition, from_offset, READ_BYTES).expect("the log can be read");
        let Some(last) = entries.last() else { return all };
        from_offset = last.offset + 1;
        all.extend(entries);
    }
}

fn assert_ascending(entries: &[LogEntry]) {
    for pair in entries.windows(2) {
        assert!(pair[0].offset < pair[1].offset, "offset {} is followed by {}", pair[0].offset, pair[1].offset);
        assert!(pair[0].append_time <= pair[1].append_time, "time goes back after offset {}", pair[0].offset);
    }
}

fn empty(make: &Make<'_>) {
    let log = make(SMALL);
    let mut reader = log.reader();
    assert_eq!((log.appender().partitions(), reader.partitions()), (3, 3));
    for partition in 0..3 {
        let Bounds { start_offset, end_offset } = reader.bounds(partition).expect("bounds can be asked");
        assert_eq!(start_offset, end_offset);
        assert_eq!(reader.read(partition, end_offset, READ_BYTES).expect("the end can be read"), []);
    }
}

fn order(make: &Make<'_>) {
    let log = make(SMALL);
    let appender = log.appender();
    let mut expected: BTreeMap<u32, Vec<(Appended, Vec<u8>)>> = BTreeMap::new();
    let pending: Vec<(u32, u64, PendingAppend)> = (0..50)
        .map(|n| {
            let partition = u32::try_from(n % 3).expect("small");
            (partition, n, appender.append(partition, envelope(n)))
        })
        .collect();
    for (partition, n, pending) in pending {
        let appended = pending.wait_blocking().expect("the queue holds them all");
        expected.entry(partition).or_default().push((appended, envelope(n)));
    }
    let mut reader = log.reader();
    for (partition, expected) in expected {
        let entries = read_all(&mut *reader, partition);
        assert_ascending(&entries);
        let expected: Vec<LogEntry> = expected
            .into_iter()
            .map(|(Appended { offset, append_time }, bytes)| LogEntry {
                partition,
                offset,
                append_time,
                bytes: bytes.into(),
            })
            .collect();
        assert_eq!(entries, expected, "partition {partition}");
        let end_offset = reader.bounds(partition).expect("bounds can be asked").end_offset;
        assert!(end_offset > entries.last().expect("not empty").offset);
    }
}

fn partial_reads(make: &Make<'_>) {
    let log = make(SMALL);
    let appender = log.appender();
    let offsets: Vec<u64> = (0..10).map(|_| append(&*appender, 1, vec![7; 100]).offset).collect();
    let mut reader = log.reader();
    for (from, bytes_max, count) in [(0, 1000, 10), (0, 999, 9), (4, 300, 3), (4, 350, 3), (4, 1, 1), (9, 0, 1)] {
        let entries = reader.read(1, offsets[from], bytes_max).expect("the log can be read");
        let got: Vec<u64> = entries.iter().map(|e| e.offset).collect();
        assert_eq!(got, offsets[from..from + count], "from {from}, at most {bytes_max} bytes");
    }
    let beyond = reader.bounds(1).expect("bounds can be asked").end_offset + 1;
    assert!(reader.read(1, beyond, READ_BYTES).is_err(), "an offset that never was must not look like the end");
}

fn append_time(make: &Make<'_>) {
    let log = make(SMALL);
    let appender = log.appender();
    let mut newest = [TimeMs(i64::MIN); 3];
    for n in 0..60 {
        let partition = n as usize % 3;
        let appended = append(&*appender, u32::try_from(partition).expect("small"), envelope(n));
        assert!(newest[partition] <= appended.append_time, "{:?} after {:?}", appended.append_time, newest[partition]);
        newest[partition] = appended.append_time;
    }
}

/// What one thread was told is stored: number and place.
type Stored = Vec<(u64, u32, u64)>;

/// Appends `numbers`, a few at a time, and tries again while the log is busy.
fn append_numbers(appender: &dyn LogAppender, numbers: std::ops::Range<u64>) -> Stored {
    const IN_FLIGHT: usize = 4;
    let mut todo: VecDeque<u64> = numbers.collect();
    let mut stored = Vec::new();
    while !todo.is_empty() {
        let few: Vec<u64> = todo.drain(..todo.len().min(IN_FLIGHT)).collect();
        let sent = few.into_iter().map(|n| {
            let partition = u32::try_from(n % u64::from(appender.partitions())).expect("a partition");
            (n, partition, appender.append(partition, envelope(n)))
        });
        for (n, partition, pending) in sent.collect::<Vec<_>>() {
            match pending.wait_blocking() {
                Ok(appended) => stored.push((n, partition, appended.offset)),
                Err(AppendError::Busy) => todo.push_back(n),
                Err(error) => panic!("envelope {n} was not taken: {error}"),
            }
        }
    }
    stored
}

/// Every stored number stands where it was said to, whole, and nothing else does.
fn assert_exactly(log: &dyn LogUnderTest, stored: &Stored) {
    let mut reader = log.reader();
    let mut found = BTreeMap::new();
    for partition in 0..reader.partitions() {
        let entries = read_all(&mut *reader, partition);
        assert_ascending(&entries);
        found.extend(entries.into_iter().map(|e| ((partition, e.offset), e.bytes)));
    }
    for (n, partition, offset) in stored {
        let bytes = found.remove(&(*partition, *offset));
        assert_eq!(bytes.as_deref(), Some(&*envelope(*n)), "envelope {n} at {partition}/{offset}");
    }
    assert!(found.is_empty(), "{} envelopes are there that nobody was told of", found.len());
}

fn many_threads(make: &Make<'_>) {
    const THREADS: u64 = 8;
    const EACH: u64 = 60;
    let log = make(Setup { partitions: 3, queue_envelopes: 16 });
    let stored: Stored = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let appender = log.appender();
                scope.spawn(move || append_numbers(&*appender, thread * EACH..(thread + 1) * EACH))
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("appending does not panic")).collect()
    });
    assert_eq!(stored.len() as u64, THREADS * EACH);
    assert_exactly(&*log, &stored);
}

fn busy(make: &Make<'_>) {
    // Far more than a log can store while they are being handed over.
    const ATTEMPTS: u64 = 100_000;
    let log = make(Setup { partitions: 1, queue_envelopes: 2 });
    let appender = log.appender();
    let mut pending = Vec::new();
    let mut is_busy = false;
    for n in 0..ATTEMPTS {
        let mut sent = appender.append(0, envelope(n));
        if let Some(Err(error)) = sent.try_wait() {
            assert_eq!(error, AppendError::Busy);
            assert!(error.is_retryable());
            is_busy = true;
            break;
        }
        pending.push((n, sent));
    }
    assert!(is_busy, "{ATTEMPTS} envelopes fitted into a queue of two");
    let stored = pending.into_iter().map(|(n, sent)| (n, 0, sent.wait_blocking().expect("it was taken").offset));
    assert_exactly(&*log, &stored.collect());
}

fn size_limit(make: &Make<'_>) {
    let log = make(SMALL);
    let appender = log.appender();
    let bytes = ENVELOPE_BYTES_MAX + 1;
    let refused = appender.append(0, vec![1; bytes]).wait_blocking();
    assert_eq!(refused, Err(AppendError::TooLarge { bytes }));
    let nowhere = appender.append(3, vec![1]).wait_blocking();
    assert!(matches!(nowhere, Err(AppendError::Refused(_))), "a partition that is not there answered {nowhere:?}");
    append(&*appender, 0, vec![2; ENVELOPE_BYTES_MAX]);
    let entries = read_all(&mut *log.reader(), 0);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].bytes, vec![2; ENVELOPE_BYTES_MAX]);
}

fn retention(make: &Make<'_>) {
    let mut log = make(SMALL);
    let appender = log.appender();
    let offsets: Vec<u64> = (0..20).map(|n| append(&*appender, 2, envelope(n)).offset).collect();
    let other = append(&*appender, 1, envelope(99)).offset;
    log.retain(2, offsets[12]);
    let check_kept = |log: &dyn LogUnderTest| {
        let mut reader = log.reader();
        assert_eq!(reader.bounds(2).expect("bounds can be asked").start_offset, offsets[12]);
        match reader.read(2, offsets[11], READ_BYTES) {
            Err(LogError::Truncated { partition: 2, start_offset, wanted }) => {
                assert_eq!((start_offset, wanted), (offsets[12], offsets[11]));
            }
            other => panic!("reading what was removed answered {other:?}"),
        }
        let kept: Vec<u64> = read_all(&mut *reader, 2).iter().map(|e| e.offset).collect();
        assert_eq!(kept, offsets[12..]);
        assert_eq!(read_all(&mut *reader, 1)[0].offset, other);
    };
    check_kept(&*log);
    log.reopen(3).expect("the log opens again");
    check_kept(&*log);
    // Whatever retention is asked for, the next offset survives it.
    log.retain(2, u64::MAX);
    log.reopen(3).expect("the log opens again");
    let next = append(&*log.appender(), 2, envelope(20)).offset;
    assert!(next > offsets[19], "offset {next} was given out after {}", offsets[19]);
}

fn waiting(make: &Make<'_>) {
    let log = make(SMALL);
    let mut reader = log.reader();
    let appender = log.appender();
    for n in 0..20 {
        std::thread::scope(|scope| {
            let from_offset = reader.bounds(0).expect("bounds can be asked").end_offset;
            let thread = scope.spawn(|| append(&*appender, 0, envelope(n)));
            // A lost wake-up would hang here.
            while reader.read(0, from_offset, READ_BYTES).expect("the log can be read").is_empty() {
                reader.wait(Duration::MAX);
            }
            thread.join().expect("appending does not panic");
        });
    }
    // Without news, it still comes back.
    reader.wait(Duration::ZERO);
    reader.wait(Duration::from_millis(1));
}

/// Half of it with a durable one behind it, half with none.
fn unflushed(make: &Make<'_>) {
    let mut log = make(SMALL);
    let (mut reader, appender) = (log.reader(), log.appender());
    let mut stored = Stored::new();
    for n in 0..40 {
        let pending = match n % 4 {
            3 if n < 20 => appender.append(1, envelope(n)),
            _ => appender.append_unflushed(1, envelope(n)),
        };
        let offset = pending.wait_blocking().expect("the log takes an envelope").offset;
        stored.push((n, 1, offset));
        if n == 19 {
            assert_eq!(read_all(&mut *reader, 1).len(), 20, "the durable one brings those before it");
        }
    }
    while read_all(&mut *reader, 1).len() < stored.len() {
        reader.wait(Duration::MAX);
    }
    assert_exactly(&*log, &stored);
    let last = appender.append_unflushed(1, envelope(40)).wait_blocking().expect("the log takes an envelope");
    stored.push((40, 1, last.offset));
    log.close();
    log.reopen(3).expect("the log opens again");
    assert_exactly(&*log, &stored);
}

fn closing(make: &Make<'_>) {
    let mut log = make(SMALL);
    let appender = log.appender();
    let pending: Vec<PendingAppend> = (0..32).map(|n| appender.append(0, envelope(n))).collect();
    log.close();
    let stored = pending.into_iter().zip(0..).map(|(pending, n)| {
        let appended = pending.wait_blocking().expect("what was queued before closing is stored");
        (n, 0, appended.offset)
    });
    let stored: Stored = stored.collect();
    let refused = appender.append(0, envelope(99)).wait_blocking();
    assert_eq!(refused, Err(AppendError::Closed));
    assert!(!AppendError::Closed.is_retryable());
    log.reopen(3).expect("the log opens again");
    assert_exactly(&*log, &stored);
}

fn reopening(make: &Make<'_>) {
    let mut log = make(SMALL);
    let mut stored = append_numbers(&*log.appender(), 0..30);
    let refused = log.reopen(4).expect_err("another partition count is refused").to_string();
    assert!(refused.contains('3') && refused.contains('4'), "{refused:?} names both counts");
    log.reopen(3).expect("the log opens again");
    assert_exactly(&*log, &stored);
    stored.extend(append_numbers(&*log.appender(), 30..60));
    assert_exactly(&*log, &stored);
}
