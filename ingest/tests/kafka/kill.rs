//! A broker of its own is killed and started again, under load: what was acknowledged
//! is there, readers go on where they were, members prove themselves again.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use odometer_ingest::log::kafka::{GroupOptions, KafkaLog, KafkaOptions, KafkaReader};
use odometer_ingest::log::{LogAppender, LogReader};

use crate::support::{PATIENCE, eventually, new_options, topic_options};

const PARTITIONS: u32 = 3;

/// A broker that no other test uses.
struct Broker {
    services: std::path::PathBuf,
    directory: std::path::PathBuf,
}

impl Broker {
    fn start() -> Self {
        let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/services");
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kafka-kill");
        let broker = Self { services, directory };
        broker.run("up");
        broker
    }

    fn run(&self, verb: &str) -> String {
        let output = Command::new(&self.services)
            .args([verb, "kafka"])
            .env("ODOMETER_SERVICES_DIR", &self.directory)
            .output()
            .expect("dev/services can be run");
        assert!(output.status.success(), "dev/services {verb}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    fn options(&self) -> KafkaOptions {
        let env = self.run("env");
        let (_, address) = env.trim().split_once('=').expect("export NAME=ADDRESS");
        let timeout = ("message.timeout.ms".to_owned(), "3000".to_owned());
        KafkaOptions { brokers: address.to_owned(), properties: vec![timeout], ..new_options() }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // What was installed stays for the next run.
        let _ =
            Command::new(&self.services).args(["down", "kafka"]).env("ODOMETER_SERVICES_DIR", &self.directory).output();
    }
}

/// Where each number was said to be stored.
type Ledger = Vec<(u64, u32, u64)>;

/// Appends number after number until `stop`; what fails is tried again.
fn append_until(stop: &AtomicBool, stored: &AtomicUsize, appender: &dyn LogAppender, thread: u64) -> Ledger {
    let mut ledger = Vec::new();
    let mut n = thread << 32;
    while !stop.load(Ordering::SeqCst) {
        let partition = u32::try_from(n % u64::from(PARTITIONS)).expect("small");
        match appender.append(partition, n.to_le_bytes().to_vec()).wait_blocking() {
            Ok(appended) => {
                ledger.push((n, partition, appended.offset));
                stored.fetch_add(1, Ordering::SeqCst);
                n += 1;
            }
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
    ledger
}

/// Follows all partitions until they end where `ends` says.
fn follow(reader: &mut KafkaReader, ends: impl Fn() -> Option<Vec<u64>>) -> BTreeMap<(u32, u64), Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut next = vec![0; PARTITIONS as usize];
    let started = Instant::now();
    while ends().is_none_or(|ends| next != ends) {
        assert!(started.elapsed() < 3 * PATIENCE, "the reader stands at {next:?}");
        for partition in 0..PARTITIONS {
            let at = &mut next[partition as usize];
            match reader.read(partition, *at, 1 << 20) {
                Ok(entries) => {
                    for entry in entries {
                        *at = entry.offset + 1;
                        assert!(found.insert((partition, entry.offset), entry.bytes.to_vec()).is_none());
                    }
                }
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
        }
        reader.wait(Duration::from_millis(20));
    }
    found
}

fn ends(log: &KafkaLog) -> Vec<u64> {
    let mut reader = log.reader().expect("a reader");
    (0..PARTITIONS).map(|partition| reader.bounds(partition).expect("bounds").end_offset).collect()
}

#[test]
fn a_killed_broker_loses_nothing_that_was_acknowledged() {
    let broker = Broker::start();
    let options = broker.options();
    KafkaLog::create_topic(&options, &topic_options(PARTITIONS)).expect("the topic is created");
    let log = KafkaLog::open(&options).expect("the log opens");
    let mut member = log.join(&GroupOptions::new("owners")).expect("the group is joined");
    let (stop, stored) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let final_ends = std::sync::Mutex::new(None);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|thread| {
                let (stop, stored, appender) = (stop.clone(), stored.clone(), log.appender());
                scope.spawn(move || append_until(&stop, &stored, &*appender, thread))
            })
            .collect();
        let reading = scope.spawn(|| {
            let mut reader = log.reader().expect("a reader");
            follow(&mut reader, || final_ends.lock().expect("not poisoned").clone())
        });
        let grows = |by: usize| {
            let before = stored.load(Ordering::SeqCst);
            eventually("appends go on", || stored.load(Ordering::SeqCst) >= before + by);
        };
        for _ in 0..2 {
            grows(300);
            broker.run("kill");
            let failures = log.health().failures;
            eventually("appends fail", || log.health().failures > failures);
            broker.run("start");
            grows(300);
        }
        stop.store(true, Ordering::SeqCst);
        let ledger: Ledger = writers.into_iter().flat_map(|writer| writer.join().expect("no panic")).collect();
        *final_ends.lock().expect("not poisoned") = Some(ends(&log));
        let found = reading.join().expect("no panic");
        for (n, partition, offset) in ledger {
            let bytes = n.to_le_bytes();
            assert_eq!(found.get(&(partition, offset)).map(Vec::as_slice), Some(&bytes[..]), "{n}");
        }
    });
    // The member comes back by itself, too.
    let started = Instant::now();
    while !(member.owned().len() == PARTITIONS as usize && member.prove().is_ok_and(|is_known| is_known)) {
        assert!(started.elapsed() < PATIENCE, "{member:?}");
        member.poll(Duration::from_millis(50)).expect("the group answers");
    }
    member.leave();
    log.close().expect("it closes");
}
