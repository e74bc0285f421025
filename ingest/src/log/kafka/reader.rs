//! The reading half: positions in, envelopes out. One consumer fetches every
//! partition that is being read into one bounded queue; what belongs to another
//! partition than the one asked for waits in that partition's slot. Never joins a
//! group and never commits an offset.

use std::time::{Duration, Instant};

use bytes::Bytes;
use odometer_schemas::log::LogEntry;
use odometer_schemas::time::TimeMs;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, Timestamp, TopicPartitionList};

use super::client::{KafkaOptions, Quiet, REQUEST_TIMEOUT, failed, failed_with, is_passing, mismatch, native, unspun};
use super::closing::Closing;
use super::slot::Slot;
use crate::log::{Bounds, LogError, LogReader};

/// How long a read waits for entries that exist. A fetch takes milliseconds; only a
/// partition without a leader takes longer, and the caller may try again.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest single wait inside the client.
const WAIT_STEP: Duration = Duration::from_secs(1);
/// How long a broker holds a fetch that finds nothing. A partition that is added to
/// the reader waits for the fetch under way, so this bounds that delay.
const FETCH_WAIT_MS: &str = "100";
/// Bytes of one fetch of one partition: some thirty of the largest envelopes, so that
/// partitions take turns and requests stay few.
const FETCH_PARTITION_BYTES: &str = "2097152";
/// Bytes of one fetch over all partitions of a broker.
const FETCH_BYTES: &str = "16777216";
/// KiB that wait in the client's queue before fetching pauses.
const QUEUE_KIB: &str = "16384";
/// How long fetching pauses then. The client's default of a second would leave the
/// reader idle most of the time.
const QUEUE_BACKOFF_MS: &str = "2";

const READING: &str = "reading envelopes";

/// Reads the log by position. At the end of a partition it reads nothing, also while
/// no broker answers; [`LogReader::bounds`] tells the difference.
pub struct KafkaReader {
    consumer: Closing<Quiet>,
    topic: String,
    slots: Vec<Slot>,
    /// Whether entries came since the last wait.
    has_news: bool,
    /// The newest trouble that the client reported, for the error of a read that
    /// waited in vain.
    trouble: Option<LogError>,
}

impl KafkaReader {
    pub(super) fn open(options: &KafkaOptions, partitions: u32) -> Result<Self, LogError> {
        let defaults = [
            // The client wants one for assigning; no coordinator ever hears of offsets.
            ("group.id", "odometer-reader"),
            ("fetch.wait.max.ms", FETCH_WAIT_MS),
            ("max.partition.fetch.bytes", FETCH_PARTITION_BYTES),
            ("fetch.max.bytes", FETCH_BYTES),
            ("queued.max.messages.kbytes", QUEUE_KIB),
            ("fetch.queue.backoff.ms", QUEUE_BACKOFF_MS),
        ];
        let fixed = [
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("enable.partition.eof", "true"),
            ("auto.offset.reset", "error"),
        ];
        let config = options.config(&defaults, &fixed)?;
        let consumer = config.create_with_context(Quiet).map_err(failed("opening a consumer"))?;
        let slots = (0..partitions).map(|_| Slot::default()).collect();
        Ok(Self {
            consumer: Closing::new(consumer),
            topic: options.topic.clone(),
            slots,
            has_news: false,
            trouble: None,
        })
    }

    fn slot(&mut self, partition: u32) -> &mut Slot {
        let partitions = self.slots.len();
        let slot = self.slots.get_mut(partition as usize);
        slot.unwrap_or_else(|| panic!("partition {partition} of a log with {partitions} partitions"))
    }

    /// Goes to `from_offset`, where nothing has been fetched yet.
    fn jump(&mut self, partition: u32, from_offset: u64) -> Result<(), LogError> {
        let Bounds { start_offset, end_offset } = self.bounds(partition)?;
        if from_offset < start_offset {
            return Err(LogError::Truncated { partition, start_offset, wanted: from_offset });
        }
        if from_offset > end_offset {
            let what = format!("ends at offset {end_offset} in partition {partition}, but {from_offset} was asked for");
            return Err(mismatch(what));
        }
        self.stop(partition)?;
        self.slot(partition).unplace();
        // Entries from before the jump are dropped on their way, so that none of them
        // looks like a gap behind it.
        self.drain(partition, 0);
        self.slot(partition).place(from_offset, end_offset);
        self.start(partition)
    }

    fn start(&mut self, partition: u32) -> Result<(), LogError> {
        const DOING: &str = "starting to fetch a partition";
        let offset = i64::try_from(self.slot(partition).next_fetch())
            .map_err(|_| mismatch(format!("has no such offset in partition {partition}")))?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, native(partition), Offset::Offset(offset)).map_err(failed(DOING))?;
        self.consumer.incremental_assign(&list).map_err(failed(DOING))?;
        self.slot(partition).is_fetching = true;
        Ok(())
    }

    fn stop(&mut self, partition: u32) -> Result<(), LogError> {
        if self.slot(partition).is_fetching {
            let mut list = TopicPartitionList::new();
            list.add_partition(&self.topic, native(partition));
            self.consumer.incremental_unassign(&list).map_err(failed("stopping to fetch a partition"))?;
            self.slot(partition).is_fetching = false;
        }
        Ok(())
    }

    /// Sees to it that the slot has entries, if there are any.
    fn fill(&mut self, partition: u32, bytes_max: usize) -> Result<(), LogError> {
        self.drain(partition, bytes_max);
        let started = Instant::now();
        while self.slot(partition).is_awaiting() {
            let left = READ_TIMEOUT.saturating_sub(started.elapsed());
            if left.is_zero() {
                // Whatever became of the fetch: the next read asks for the place anew.
                self.slot(partition).unplace();
                return Err(self.trouble.take().unwrap_or_else(|| failed_with(READING, "no envelope came in time")));
            }
            self.poll(left.min(WAIT_STEP));
            self.drain(partition, bytes_max);
        }
        if self.slot(partition).is_placed() {
            return Ok(());
        }
        Err(self.trouble.take().unwrap_or_else(|| failed_with(READING, "the place in the log was lost")))
    }

    /// Takes what the client has at hand, until `partition` has more than `bytes_max`.
    fn drain(&mut self, partition: u32, bytes_max: usize) {
        let mut has_more = true;
        while has_more && self.slot(partition).bytes() <= bytes_max && !self.slot(partition).is_full() {
            has_more = self.poll(Duration::ZERO);
        }
    }

    /// Takes one event; whether there was one.
    fn poll(&mut self, timeout: Duration) -> bool {
        let event = match self.consumer.poll(unspun(timeout)) {
            None => return false,
            Some(Ok(message)) => Event::Entry(entry(&message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => Event::End(partition),
            Some(Err(error)) => Event::Trouble(error),
        };
        match event {
            Event::Entry(Ok(entry)) => self.route(entry),
            Event::Entry(Err(error)) => self.lose_places(error),
            Event::End(partition) => {
                if let Some(slot) = usize::try_from(partition).ok().and_then(|at| self.slots.get_mut(at)) {
                    slot.reach_end();
                }
            }
            Event::Trouble(error) => match error.rdkafka_error_code() {
                Some(code) if is_passing(code) => self.trouble = Some(failed(READING)(error)),
                _ => self.lose_places(failed(READING)(error)),
            },
        }
        true
    }

    fn route(&mut self, entry: LogEntry) {
        let partition = entry.partition;
        let Some(slot) = self.slots.get_mut(partition as usize) else {
            let what = format!("has grown: partition {partition} was not there when it was opened");
            return self.lose_places(mismatch(what));
        };
        if !slot.push(entry) {
            return;
        }
        self.has_news = true;
        self.trouble = None;
        if slot.is_full()
            && let Err(error) = self.stop(partition)
        {
            self.lose_places(error);
        }
    }

    /// The client does not tell which partition an error is about, and may have left
    /// something out: every place is looked up again at its next read, which then
    /// says what is wrong with it.
    fn lose_places(&mut self, error: LogError) {
        self.slots.iter_mut().for_each(Slot::unplace);
        self.has_news = true;
        self.trouble = Some(error);
    }
}

/// What a poll gave, without its borrow of the client.
enum Event {
    Entry(Result<LogEntry, LogError>),
    End(i32),
    Trouble(KafkaError),
}

/// The one copy of an envelope on its way.
fn entry(message: &BorrowedMessage<'_>) -> Result<LogEntry, LogError> {
    let (Ok(partition), Ok(offset)) = (u32::try_from(message.partition()), u64::try_from(message.offset())) else {
        let place = format!("a message came from partition {} at {}", message.partition(), message.offset());
        return Err(failed_with(READING, place));
    };
    let Timestamp::LogAppendTime(append_ms) = message.timestamp() else {
        return Err(mismatch(format!(
            "has no append time at offset {offset} of partition {partition}: the topic was written without \
             message.timestamp.type=LogAppendTime"
        )));
    };
    let bytes = Bytes::copy_from_slice(message.payload().unwrap_or_default());
    Ok(LogEntry { partition, offset, append_time: TimeMs(append_ms), bytes })
}

impl LogReader for KafkaReader {
    fn partitions(&self) -> u32 {
        // The topic was checked to have at most PARTITIONS_MAX.
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    fn read(&mut self, partition: u32, from_offset: u64, bytes_max: usize) -> Result<Vec<LogEntry>, LogError> {
        if !self.slot(partition).move_to(from_offset) {
            self.jump(partition, from_offset)?;
        }
        if self.slot(partition).is_empty() {
            if !self.slot(partition).is_fetching {
                self.start(partition)?;
            }
            self.fill(partition, bytes_max)?;
        }
        let entries = self.slot(partition).take(bytes_max);
        if !self.slot(partition).is_fetching && self.slot(partition).has_room() {
            self.start(partition)?;
        }
        Ok(entries)
    }

    fn bounds(&mut self, partition: u32) -> Result<Bounds, LogError> {
        const DOING: &str = "asking for a partition's bounds";
        self.slot(partition);
        let watermarks = self.consumer.fetch_watermarks(&self.topic, native(partition), REQUEST_TIMEOUT);
        let (low, high) = watermarks.map_err(failed(DOING))?;
        match (u64::try_from(low), u64::try_from(high)) {
            (Ok(start_offset), Ok(end_offset)) => Ok(Bounds { start_offset, end_offset }),
            _ => Err(failed_with(DOING, format!("the broker answered {low} to {high}"))),
        }
    }

    fn wait(&mut self, timeout: Duration) {
        let started = Instant::now();
        while !self.has_news {
            let left = timeout.saturating_sub(started.elapsed());
            self.poll(left.min(WAIT_STEP));
            if left.is_zero() {
                break;
            }
        }
        self.has_news = false;
    }
}

impl std::fmt::Debug for KafkaReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaReader").field("topic", &self.topic).field("partitions", &self.slots.len()).finish()
    }
}
