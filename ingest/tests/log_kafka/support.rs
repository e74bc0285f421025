//! Topics of their own for tests that share a broker.

use std::time::{Duration, Instant};

use odometer_ingest::log::kafka::{KafkaLog, KafkaOptions, TopicOptions};
use odometer_ingest::log::{Appended, LogReader};
use odometer_schemas::log::LogEntry;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

/// Longer than anything here takes, so that a hang becomes a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn brokers() -> String {
    std::env::var("ODOMETER_TEST_KAFKA").unwrap_or_else(|_| {
        panic!("ODOMETER_TEST_KAFKA is not set: run `eval \"$(dev/services env)\"` after `dev/services up`")
    })
}

pub(crate) fn options_for(topic: &str) -> KafkaOptions {
    KafkaOptions {
        brokers: brokers(),
        topic: topic.to_owned(),
        client_id: "odometer-test".to_owned(),
        properties: Vec::new(),
    }
}

pub(crate) fn topic_options(partitions: u32) -> TopicOptions {
    TopicOptions { partitions, replication: 1, retention: None }
}

/// Options for a topic that nobody else uses.
pub(crate) fn new_options() -> KafkaOptions {
    options_for(&format!("test-{:016x}", rand::random::<u64>()))
}

/// A new topic of its own and its log; the topic goes when this does.
pub(crate) struct Fresh {
    pub(crate) options: KafkaOptions,
    pub(crate) log: KafkaLog,
}

impl Fresh {
    pub(crate) fn new(partitions: u32) -> Self {
        let options = new_options();
        assert!(KafkaLog::create_topic(&options, &topic_options(partitions)).expect("the topic is created"));
        let log = KafkaLog::open(&options).expect("the log opens");
        Self { options, log }
    }

    pub(crate) fn append(&self, partition: u32, bytes: &[u8]) -> Appended {
        self.log.appender().append(partition, bytes.to_vec()).wait_blocking().expect("the log takes an envelope")
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        delete_topic(&self.options.topic);
    }
}

pub(crate) fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers()).create().expect("an admin client")
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

pub(crate) fn delete_topic(topic: &str) {
    // Best effort: a topic that stays behind disturbs nobody.
    let _ = block_on(admin().delete_topics(&[topic], &AdminOptions::new()));
}

/// Reads `count` entries from `from_offset` on, waiting for them.
pub(crate) fn read_count(reader: &mut dyn LogReader, partition: u32, from_offset: u64, count: usize) -> Vec<LogEntry> {
    let started = Instant::now();
    let mut entries: Vec<LogEntry> = Vec::new();
    while entries.len() < count {
        assert!(started.elapsed() < PATIENCE, "{} of {count} entries came", entries.len());
        let next = entries.last().map_or(from_offset, |last| last.offset + 1);
        let read = reader.read(partition, next, 1 << 20).expect("the log can be read");
        if read.is_empty() {
            reader.wait(Duration::from_millis(100));
        }
        entries.extend(read);
    }
    entries
}
