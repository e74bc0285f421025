//! Rebalances of a group in, a queue of them out, and the member's lag as its client
//! knows it: nothing is decided, and nothing waits, inside the client's callback. Whoever takes one from the queue has to answer
//! it, or the group waits for this member. Made for cooperative groups.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Partition;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Statistics, TopicPartitionList};

use super::client::{log_error, log_line};

/// What the group wants of a member.
#[derive(Debug)]
pub(crate) enum Rebalance {
    /// To be answered with `incremental_assign`.
    Assign(Vec<i32>),
    /// To be answered with `incremental_unassign`.
    Revoke {
        /// What is to be given back.
        partitions: Vec<i32>,
        /// Whether it may belong to somebody else already.
        is_lost: bool,
    },
}

/// Rebalances that wait for their answer. They come one after another: the group
/// sends the next when the last is answered.
#[derive(Default)]
pub(crate) struct Rebalances {
    queue: Mutex<VecDeque<Rebalance>>,
    /// Nobody will answer any more: give everything back at once.
    is_leaving: AtomicBool,
    /// Where reading began, of each partition that is read for its messages.
    began: Mutex<BTreeMap<i32, i64>>,
    lag: AtomicU64,
}

impl Rebalances {
    fn queue(&self) -> MutexGuard<'_, VecDeque<Rebalance>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next one, which its taker answers.
    pub(crate) fn pop(&self) -> Option<Rebalance> {
        self.queue().pop_front()
    }

    /// Partitions whose messages are read, and from where on.
    pub(crate) fn reading(&self) -> MutexGuard<'_, BTreeMap<i32, i64>> {
        self.began.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages of those partitions beyond what is committed; zero unless
    /// `statistics.interval.ms` is set, and as old as that.
    pub(crate) fn lag(&self) -> u64 {
        self.lag.load(Ordering::Relaxed)
    }

    /// Whether partitions were lost that nobody has heard of yet.
    pub(crate) fn has_loss(&self) -> bool {
        self.queue().iter().any(|rebalance| matches!(rebalance, Rebalance::Revoke { is_lost: true, .. }))
    }

    /// Answers whatever waits, so that dropping the consumer leaves the group.
    pub(crate) fn leave(consumer: &BaseConsumer<Self>, topic: &str) {
        let rebalances = consumer.context();
        rebalances.is_leaving.store(true, Ordering::SeqCst);
        while let Some(rebalance) = rebalances.pop() {
            let mut list = TopicPartitionList::new();
            let (Rebalance::Assign(partitions) | Rebalance::Revoke { partitions, .. }) = &rebalance;
            partitions.iter().for_each(|partition| {
                list.add_partition(topic, *partition);
            });
            let answered = match rebalance {
                Rebalance::Assign(_) => consumer.incremental_assign(&list),
                Rebalance::Revoke { .. } => consumer.incremental_unassign(&list),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "answering a rebalance while leaving the group");
            }
        }
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn stats(&self, statistics: Statistics) {
        let reading = self.reading();
        let partitions = statistics.topics.values().flat_map(|topic| topic.partitions.values());
        let lag = |found: &Partition| reading.get(&found.partition).map_or(0, |began| lag_of(found, *began));
        self.lag.store(partitions.map(lag).fold(0, u64::saturating_add), Ordering::Relaxed);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

/// Zero until the partition's end is known; what is not known is negative.
fn lag_of(partition: &Partition, began: i64) -> u64 {
    let behind = partition.hi_offset.saturating_sub(partition.committed_offset.max(began));
    u64::try_from(behind).unwrap_or(0)
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if self.is_leaving.load(Ordering::SeqCst) {
            if let Err(error) = consumer.incremental_unassign(list) {
                tracing::debug!(%error, "giving partitions back while leaving the group");
            }
            return;
        }
        let partitions = list.elements().iter().map(|element| element.partition()).collect();
        self.queue().push_back(if kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            Rebalance::Assign(partitions)
        } else {
            Rebalance::Revoke { partitions, is_lost: consumer.assignment_lost() }
        });
    }
}
