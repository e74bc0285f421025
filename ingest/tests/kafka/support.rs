//! Topics of their own for tests that share a broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use odometer_ingest::bridge::rejects::{Reject, Rejects};
use odometer_ingest::bridge::{Bridge, BridgeOptions};
use odometer_ingest::gateway::SharedDefinitions;
use odometer_ingest::log::kafka::{KafkaLog, KafkaOptions, TopicOptions};
use odometer_ingest::log::{Appended, Bounds, LogAppender, LogReader};
use odometer_schemas::definitions::Definitions;
use odometer_schemas::envelope::{Decoded, decode};
use odometer_schemas::log::LogEntry;
use odometer_schemas::record::Record;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

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

/// Asks until it is so.
pub(crate) fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A message as a foreign producer writes it.
#[derive(Clone)]
pub(crate) struct Message {
    key: Option<String>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Option<Vec<u8>>,
}

impl Message {
    pub(crate) fn new(body: impl Into<Vec<u8>>) -> Self {
        Self { key: None, headers: Vec::new(), body: Some(body.into()) }
    }

    pub(crate) fn tombstone() -> Self {
        Self { body: None, ..Self::new("") }
    }

    pub(crate) fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// An ingress topic, its dead letters and the log behind them.
pub(crate) struct Ingress {
    pub(crate) options: BridgeOptions,
    fresh: Fresh,
}

impl std::ops::Deref for Ingress {
    type Target = Fresh;

    fn deref(&self) -> &Fresh {
        &self.fresh
    }
}

impl Ingress {
    pub(crate) fn new(partitions: u32) -> Self {
        let kafka = new_options();
        let dead_letter_topic = format!("{}-dead", kafka.topic);
        let options = BridgeOptions { kafka, group: "bridge".to_owned(), dead_letter_topic };
        Bridge::create_topics(&options, &topic_options(partitions)).expect("the topics are created");
        Self { options, fresh: Fresh::new(3) }
    }

    pub(crate) fn bridge(&self) -> Bridge {
        self.bridge_with(&SharedDefinitions::new(Definitions::built_in()), self.log.appender())
    }

    pub(crate) fn bridge_with(&self, definitions: &SharedDefinitions, log: Arc<dyn LogAppender>) -> Bridge {
        Bridge::start(self.options.clone(), definitions.clone(), log).expect("the bridge starts")
    }

    /// Produces as a foreign producer does, by whatever partitioner.
    pub(crate) fn produce_all(&self, messages: &[Message]) {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", brokers()).create().expect("a producer");
        for message in messages {
            let headers = message
                .headers
                .iter()
                .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
            let mut record: BaseRecord<'_, str, [u8]> = BaseRecord::to(&self.options.kafka.topic).headers(headers);
            record.key = message.key.as_deref();
            record.payload = message.body.as_deref();
            producer.send(record).map_err(|(error, _)| error).expect("the queue has room");
        }
        producer.flush(PATIENCE).expect("everything is produced");
    }

    /// Every dead letter, in order.
    pub(crate) fn rejects(&self) -> Vec<Reject> {
        let mut found = Vec::new();
        let reader = Rejects::open(&self.options.dead_letters()).expect("the dead letters open");
        let mut keep = |reject| {
            found.push(reject);
            true
        };
        reader.list(&mut keep).expect("the dead letters can be read");
        found
    }

    /// Every record in the log, partition by partition.
    pub(crate) fn records(&self) -> Vec<Record> {
        let mut reader = self.log.reader().expect("a reader");
        let mut records = Vec::new();
        for partition in 0..reader.partitions() {
            let Bounds { start_offset, end_offset } = reader.bounds(partition).expect("bounds");
            let count = usize::try_from(end_offset - start_offset).expect("small");
            for entry in read_count(&mut reader, partition, start_offset, count) {
                let Decoded::Usage(usage) = decode(&entry.bytes).expect("an envelope") else {
                    panic!("not usage");
                };
                records.extend((0..usage.len()).map(|index| usage.to_owned_record(index)));
            }
        }
        records
    }
}

impl Drop for Ingress {
    fn drop(&mut self) {
        delete_topic(&self.options.kafka.topic);
        delete_topic(&self.options.dead_letter_topic);
    }
}
