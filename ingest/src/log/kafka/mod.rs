//! The log on Kafka: envelopes in through an idempotent producer (`acks=all`), out by
//! position, and a consumer group that only says which node owns which partition.
//! Offsets that Kafka keeps for the group are hints; the truth is in the totals book.
//! Nothing here looks into an envelope, and nothing changes a topic that is there.

mod appender;
pub(crate) mod client;
pub(crate) mod closing;
pub(crate) mod commit;
mod describe;
mod guard;
mod membership;
mod numbered;
pub(crate) mod outbox;
mod reader;
pub(crate) mod rebalances;
mod slot;
pub(crate) mod topic;

use std::sync::Arc;

pub use client::KafkaOptions;
pub use membership::{DRAIN_TIMEOUT_DEFAULT, GroupEvent, GroupOptions, Membership, SESSION_TIMEOUT_DEFAULT};
pub use numbered::{NUMBER_HEADER, Numbered, NumberedTopic};
pub use outbox::{AppenderHealth, DELIVERY_TIMEOUT, HealthWatch};
pub use reader::KafkaReader;
pub use topic::TopicOptions;

use super::{LogAppender, LogError};
use appender::Appender;

/// The log in one Kafka topic. Dropping it closes it.
#[derive(Debug)]
pub struct KafkaLog {
    options: KafkaOptions,
    log_id: String,
    partitions: u32,
    appender: Arc<Appender>,
}

impl KafkaLog {
    /// Creates the log's topic with the settings that the log needs. `Ok(false)` when
    /// the topic was there already with as many partitions; its other settings are
    /// checked by [`KafkaLog::open`].
    ///
    /// # Errors
    /// [`LogError::Mismatch`] when it is there with another partition count,
    /// [`LogError::Storage`] when the brokers cannot be asked or refuse.
    pub fn create_topic(options: &KafkaOptions, topic: &TopicOptions) -> Result<bool, LogError> {
        topic::create(options, topic, &topic::LOG_CONFIG)
    }

    /// Opens the log in the topic that `options` names.
    ///
    /// # Errors
    /// [`LogError::Mismatch`] when the topic is not there or not fit for a log, with
    /// the command that mends it; [`LogError::Storage`] when the brokers cannot be
    /// asked.
    pub fn open(options: &KafkaOptions) -> Result<Self, LogError> {
        let description = topic::check(options)?;
        let appender = Appender::open(options, description.partitions)?;
        Ok(Self { options: options.clone(), log_id: description.id, partitions: description.partitions, appender })
    }

    /// The topic's id, which no other topic has, also none of the same name.
    #[must_use]
    pub fn log_id(&self) -> &str {
        &self.log_id
    }

    /// How many partitions the log has.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// The writing half.
    #[must_use]
    pub fn appender(&self) -> Arc<dyn LogAppender> {
        self.appender.clone()
    }

    /// A new reading half with its own connections.
    ///
    /// # Errors
    /// When the client cannot be set up; brokers are asked at the first read.
    pub fn reader(&self) -> Result<KafkaReader, LogError> {
        KafkaReader::open(&self.options, self.partitions)
    }

    /// Becomes a member of a consumer group over the log's partitions.
    ///
    /// # Errors
    /// When the client cannot be set up; joining goes on in [`Membership::poll`].
    pub fn join(&self, group: &GroupOptions) -> Result<Membership, LogError> {
        Membership::join(&self.options, self.partitions, group)
    }

    /// How appending is doing.
    #[must_use]
    pub fn health(&self) -> AppenderHealth {
        self.appender.outbox.health()
    }

    /// Tells the same to whoever does not own the log.
    #[must_use]
    pub fn health_watch(&self) -> HealthWatch {
        HealthWatch::new(&self.appender.outbox)
    }

    /// Takes nothing more, and returns once everything taken has been answered: at
    /// the latest after [`DELIVERY_TIMEOUT`] and a little.
    ///
    /// # Errors
    /// When the appender's thread has panicked.
    pub fn close(self) -> Result<(), LogError> {
        self.appender.outbox.close()
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        if let Err(error) = self.appender.outbox.close() {
            tracing::error!(%error, "closing the log");
        }
    }
}
