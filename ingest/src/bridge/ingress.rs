//! The consuming side of the bridge: messages of the ingress topic in the order of
//! their partitions, and the group's offsets, which move only when told to. Begins
//! where the group's offsets stand, else at the oldest message.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Offset, TopicPartitionList};

use crate::log::LogError;
use crate::log::kafka::KafkaOptions;
use crate::log::kafka::client::{REQUEST_TIMEOUT, failed, failed_with, is_passing, millis, native, unspun};
use crate::log::kafka::closing::Closing;
use crate::log::kafka::commit::commit_within;
use crate::log::kafka::rebalances::{Rebalance, Rebalances};

/// After this without a heartbeat the group goes on without this member.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a member asks for rebalances.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long the worker may be busy with one thing: settling what is under way when
/// partitions move takes no longer than an append does.
const POLL_INTERVAL_MAX: Duration = Duration::from_secs(120);
/// KiB that wait in the client. Messages are small, and nothing is gained by more.
const QUEUE_KIB: &str = "16384";
/// How long fetching pauses when they do; the client's default is a second.
const QUEUE_BACKOFF_MS: &str = "5";
/// How long a broker holds a fetch that finds nothing.
const FETCH_WAIT_MS: &str = "100";

/// How often the client tells how far it is behind.
const STATISTICS_MS: &str = "1000";

const COMMITTING: &str = "committing ingress offsets";

pub(super) struct Ingress {
    consumer: Closing<Rebalances>,
    topic: String,
    is_paused: bool,
}

impl Ingress {
    pub(super) fn join(options: &KafkaOptions, group: &str) -> Result<Self, LogError> {
        let (session_ms, heartbeat_ms) = (millis(SESSION_TIMEOUT), millis(HEARTBEAT));
        let poll_ms = millis(POLL_INTERVAL_MAX);
        let defaults = [
            ("queued.max.messages.kbytes", QUEUE_KIB),
            ("fetch.queue.backoff.ms", QUEUE_BACKOFF_MS),
            ("fetch.wait.max.ms", FETCH_WAIT_MS),
            ("statistics.interval.ms", STATISTICS_MS),
            ("session.timeout.ms", session_ms.as_str()),
            ("heartbeat.interval.ms", &heartbeat_ms),
        ];
        let fixed = [
            ("group.id", group),
            ("group.protocol", "classic"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("max.poll.interval.ms", &poll_ms),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("isolation.level", "read_committed"),
            // A place that is gone is looked up again, and what was lost is reported.
            ("auto.offset.reset", "error"),
        ];
        let config = options.config(&defaults, &fixed)?;
        let consumer: BaseConsumer<Rebalances> =
            config.create_with_context(Rebalances::default()).map_err(failed("opening the bridge's consumer"))?;
        consumer.subscribe(&[&options.topic]).map_err(failed("joining the bridge's group"))?;
        Ok(Self { consumer: Closing::new(consumer), topic: options.topic.clone(), is_paused: false })
    }

    /// The next message, if one comes in time.
    pub(super) fn poll(&self, timeout: Duration) -> Result<Option<BorrowedMessage<'_>>, LogError> {
        match self.consumer.poll(unspun(timeout)) {
            None => Ok(None),
            Some(Ok(message)) => Ok(Some(message)),
            Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_passing) => Ok(None),
            Some(Err(error)) => Err(failed("reading the ingress topic")(error)),
        }
    }

    /// Messages of this member's partitions beyond the group's offsets, about a second
    /// ago.
    pub(super) fn lag(&self) -> u64 {
        self.consumer.context().lag()
    }

    /// What the group wants next, if anything.
    pub(super) fn next_rebalance(&self) -> Option<Rebalance> {
        self.consumer.context().pop()
    }

    /// Starts reading partitions where the group stands. Gives how many messages
    /// retention has removed before they were read.
    pub(super) fn take(&self, partitions: &[i32]) -> Result<u64, LogError> {
        self.start(partitions).inspect_err(|_| {
            // The group waits for an answer, also from a member that is about to leave.
            if let Err(error) = self.consumer.incremental_assign(&TopicPartitionList::new()) {
                tracing::debug!(%error, "answering a rebalance");
            }
        })
    }

    fn start(&self, partitions: &[i32]) -> Result<u64, LogError> {
        const DOING: &str = "starting to read ingress partitions";
        let mut removed = 0;
        let mut list = TopicPartitionList::new();
        let committed =
            self.consumer.committed_offsets(self.list(partitions), REQUEST_TIMEOUT).map_err(failed(DOING))?;
        for element in committed.elements() {
            element.error().map_err(failed(DOING))?;
            let partition = element.partition();
            let (low, _) =
                self.consumer.fetch_watermarks(&self.topic, partition, REQUEST_TIMEOUT).map_err(failed(DOING))?;
            let from = match element.offset() {
                Offset::Offset(committed) if committed < low => {
                    removed += low.abs_diff(committed);
                    low
                }
                Offset::Offset(committed) => committed,
                _ => low,
            };
            list.add_partition_offset(&self.topic, partition, Offset::Offset(from)).map_err(failed(DOING))?;
            self.consumer.context().reading().insert(partition, from);
        }
        self.consumer.incremental_assign(&list).map_err(failed(DOING))?;
        if self.is_paused {
            self.consumer.pause(&list).map_err(failed(DOING))?;
        }
        Ok(removed)
    }

    /// Stops reading partitions, so that the group goes on.
    pub(super) fn give_back(&self, partitions: &[i32]) -> Result<(), LogError> {
        self.consumer.context().reading().retain(|partition, _| !partitions.contains(partition));
        let given = self.consumer.incremental_unassign(&self.list(partitions));
        given.map_err(failed("giving ingress partitions back"))
    }

    /// Fetches nothing while paused; polling goes on.
    pub(super) fn set_paused(&mut self, is_paused: bool) -> Result<(), LogError> {
        if self.is_paused == is_paused {
            return Ok(());
        }
        const DOING: &str = "pausing the ingress topic";
        let all = self.consumer.assignment().map_err(failed(DOING))?;
        let done = if is_paused { self.consumer.pause(&all) } else { self.consumer.resume(&all) };
        done.map_err(failed(DOING))?;
        self.is_paused = is_paused;
        Ok(())
    }

    /// Sends offsets to the group, and looks at no answer: the next commit will do.
    pub(super) fn commit(&self, next_offsets: &BTreeMap<u32, u64>) -> Result<(), LogError> {
        if next_offsets.is_empty() {
            return Ok(());
        }
        self.consumer.commit(&self.offsets(next_offsets)?, CommitMode::Async).map_err(failed(COMMITTING))
    }

    /// Commits and waits until the group has the offsets.
    pub(super) fn commit_surely(&self, next_offsets: &BTreeMap<u32, u64>) -> Result<(), LogError> {
        if next_offsets.is_empty() {
            return Ok(());
        }
        let committed = commit_within(&self.consumer, &self.offsets(next_offsets)?, REQUEST_TIMEOUT);
        committed.map_err(failed(COMMITTING))
    }

    fn offsets(&self, next_offsets: &BTreeMap<u32, u64>) -> Result<TopicPartitionList, LogError> {
        let mut list = TopicPartitionList::new();
        for (partition, next_offset) in next_offsets {
            let offset = i64::try_from(*next_offset);
            let offset = offset.map_err(|_| failed_with(COMMITTING, format!("offset {next_offset}")))?;
            let added = list.add_partition_offset(&self.topic, native(*partition), Offset::Offset(offset));
            added.map_err(failed(COMMITTING))?;
        }
        Ok(list)
    }

    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, *partition);
        }
        list
    }
}

impl Drop for Ingress {
    fn drop(&mut self) {
        Rebalances::leave(&self.consumer, &self.topic);
    }
}
