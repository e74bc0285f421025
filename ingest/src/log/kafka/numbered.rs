//! A topic of numbered messages: each number once and in order, whoever writes and
//! however often. A partition's messages go out in transactions of a producer whose name
//! belongs to the partition: who opens it ends what an earlier writer had under way and
//! shuts that one out, then reads which number is the last.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{KafkaOptions, Quiet, REQUEST_TIMEOUT, failed, failed_with, native};
use super::closing::Closing;
use super::topic::{TopicOptions, create_unless_there};
use crate::log::LogError;

/// The header that carries a message's number, in decimal digits.
pub const NUMBER_HEADER: &str = "odometer-number";
/// How far before its end a partition is read for its last number at first. What a
/// transaction adds to it and what was given up takes places too.
const LOOK_BACK: i64 = 64;
/// How long one transaction may take, and how long a writer waits for one that an
/// earlier writer left: brokers answer within milliseconds.
const TRANSACTION_MAX: Duration = Duration::from_secs(20);
/// Longest silence while the end of a partition is read.
const READ_MAX: Duration = Duration::from_secs(10);
/// Messages of one transaction: what the client's queue takes easily.
const AT_ONCE: usize = 1_000;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// Ascending within a partition.
    pub number: u64,
    /// The message's key.
    pub key: String,
    /// The message itself.
    pub payload: Vec<u8>,
    /// What the payload is.
    pub content_type: &'static str,
}

/// The header that says whose numbers these are.
const OWNER_HEADER: &str = "odometer-numbered-by";

/// The writing side of such a topic. One handle serves one thread, and holds a producer
/// for every partition that it wrote to.
pub struct NumberedTopic {
    options: KafkaOptions,
    owner: String,
    writers: BTreeMap<u32, Writer>,
}

struct Writer {
    producer: BaseProducer<Quiet>,
    /// The number of the partition's last message.
    last: Option<u64>,
}

impl NumberedTopic {
    /// Creates the topic unless it is there; whether it was created.
    ///
    /// # Errors
    /// [`LogError::Storage`] when the brokers cannot be asked or refuse.
    pub fn create(options: &KafkaOptions, topic: &TopicOptions) -> Result<bool, LogError> {
        create_unless_there(options, topic, &[])
    }

    /// A handle that connects once there is something to write. `owner` says whose
    /// numbers these are: messages of others are left alone and count for nothing.
    #[must_use]
    pub fn new(options: KafkaOptions, owner: impl Into<String>) -> Self {
        Self { options, owner: owner.into(), writers: BTreeMap::new() }
    }

    /// Writes what of `messages` is not in `partition` yet, and returns once all of it
    /// is.
    ///
    /// # Errors
    /// [`LogError::Storage`]: what of it was written is not known; offer it again. Another
    /// writer may have taken the partition over, so look first whether it is still yours.
    pub fn publish(&mut self, partition: u32, messages: &[Numbered]) -> Result<(), LogError> {
        let written = self.try_publish(partition, messages);
        if written.is_err() {
            // Whatever became of it, the next writer finds out.
            self.writers.remove(&partition);
        }
        written
    }

    /// Lets go of a partition that others write to from now on.
    pub fn leave(&mut self, partition: u32) {
        self.writers.remove(&partition);
    }

    fn try_publish(&mut self, partition: u32, messages: &[Numbered]) -> Result<(), LogError> {
        let Self { options, owner, writers } = self;
        let place = Place { options, owner, partition };
        let writer = match writers.entry(partition) {
            std::collections::btree_map::Entry::Occupied(found) => found.into_mut(),
            std::collections::btree_map::Entry::Vacant(vacant) => vacant.insert(Writer::open(place)?),
        };
        let last = writer.last;
        let new: Vec<&Numbered> =
            messages.iter().filter(|message| last.is_none_or(|last| message.number > last)).collect();
        new.chunks(AT_ONCE).try_for_each(|chunk| writer.write(place, chunk))
    }
}

/// A partition of the topic, and whose numbers are meant.
#[derive(Clone, Copy)]
struct Place<'a> {
    options: &'a KafkaOptions,
    owner: &'a str,
    partition: u32,
}

impl Writer {
    fn open(place: Place<'_>) -> Result<Self, LogError> {
        const DOING: &str = "taking a partition of numbered messages over";
        let Place { options, owner, partition } = place;
        let name = format!("{}/{owner}/{partition}", options.topic);
        let timeout = super::client::millis(TRANSACTION_MAX);
        let fixed = [
            ("transactional.id", name.as_str()),
            ("transaction.timeout.ms", timeout.as_str()),
            ("delivery.timeout.ms", timeout.as_str()),
            ("acks", "all"),
            ("enable.idempotence", "true"),
        ];
        let producer: BaseProducer<Quiet> =
            options.config(&[("linger.ms", "0")], &fixed)?.create_with_context(Quiet).map_err(failed(DOING))?;
        producer.init_transactions(TRANSACTION_MAX).map_err(failed(DOING))?;
        Ok(Self { producer, last: last_number(place)? })
    }

    /// All of `messages`, or none.
    fn write(&mut self, place: Place<'_>, messages: &[&Numbered]) -> Result<(), LogError> {
        const DOING: &str = "writing numbered messages";
        self.producer.begin_transaction().map_err(failed(DOING))?;
        for message in messages {
            let number = message.number.to_string();
            let headers = OwnedHeaders::new()
                .insert(Header { key: "content-type", value: Some(message.content_type) })
                .insert(Header { key: OWNER_HEADER, value: Some(place.owner) })
                .insert(Header { key: NUMBER_HEADER, value: Some(&number) });
            let record = BaseRecord::to(&place.options.topic)
                .partition(native(place.partition))
                .key(&message.key)
                .payload(&message.payload)
                .headers(headers);
            self.producer.send(record).map_err(|(error, _)| failed(DOING)(error))?;
        }
        self.producer.commit_transaction(TRANSACTION_MAX).map_err(failed(DOING))?;
        self.last = messages.last().map(|message| message.number).or(self.last);
        Ok(())
    }
}

/// The number of the last message of a partition, of those that count.
fn last_number(place: Place<'_>) -> Result<Option<u64>, LogError> {
    const DOING: &str = "reading the last number";
    let Place { options, partition, .. } = place;
    let fixed = [
        ("group.id", "odometer-numbered"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("enable.partition.eof", "true"),
        ("isolation.level", "read_committed"),
        ("auto.offset.reset", "earliest"),
    ];
    let consumer = Closing::new(options.config(&[], &fixed)?.create_with_context(Quiet).map_err(failed(DOING))?);
    let (start, end) =
        consumer.fetch_watermarks(&options.topic, native(partition), REQUEST_TIMEOUT).map_err(failed(DOING))?;
    let mut back = LOOK_BACK;
    loop {
        let from = (end - back).max(start);
        if let Some(number) = last_after(&consumer, place, from)? {
            return Ok(Some(number));
        }
        if from <= start {
            return Ok(None);
        }
        back = back.saturating_mul(16);
    }
}

fn last_after(consumer: &BaseConsumer<Quiet>, place: Place<'_>, from: i64) -> Result<Option<u64>, LogError> {
    const DOING: &str = "reading the last number";
    let Place { options, owner, partition } = place;
    let mut from_there = TopicPartitionList::new();
    from_there.add_partition_offset(&options.topic, native(partition), Offset::Offset(from)).map_err(failed(DOING))?;
    consumer.assign(&from_there).map_err(failed(DOING))?;
    let (mut last, mut heard) = (None, Instant::now());
    loop {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                last = number_of(&message, owner).max(last);
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(last),
            Some(Err(error)) if heard.elapsed() > READ_MAX => return Err(failed(DOING)(error)),
            None if heard.elapsed() > READ_MAX => return Err(failed_with(DOING, "the brokers do not answer")),
            Some(Err(_)) | None => {}
        }
    }
}

/// The number of a message of `owner`.
fn number_of(message: &impl Message, owner: &str) -> Option<u64> {
    let headers = message.headers()?;
    let text = |key| {
        let found = headers.iter().find(|header| header.key == key)?.value?;
        std::str::from_utf8(found).ok()
    };
    text(OWNER_HEADER).filter(|found| *found == owner)?;
    text(NUMBER_HEADER)?.parse().ok()
}
