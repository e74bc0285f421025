//! The bridge: messages of an ingress topic, from any producer in any language, in;
//! envelopes in the usage log out. It reads exactly what the gateway reads, with the
//! gateway's own code; see [`crate::gateway`] for what an event must be. A message is
//! taken as the CloudEvents Kafka binding says: `ce_…` headers are an event in binary
//! mode, `content-type` names structured or batch mode; without either it is JSON,
//! native records or CloudEvents. Its key and partition mean nothing.
//!
//! A message of which something was refused goes whole to the dead letters, with the
//! reasons beside it; its other events count. The group's offset moves past a message
//! only once all of it is stored, so after a crash some are read again: ids make them
//! count once.

mod batch;
mod dead;
mod headers;
mod ingress;
mod raw_headers;
pub mod rejects;
mod shared;
mod worker;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

pub use dead::RefusedEvent;
pub use shared::BridgeHealth;

use crate::gateway::SharedDefinitions;
use crate::log::kafka::topic::{create_unless_there, partitions_of};
use crate::log::kafka::{KafkaOptions, TopicOptions};
use crate::log::{LogAppender, LogError};
use dead::{DeadLetters, LETTER_BYTES_MAX};
use shared::Shared;
use worker::Worker;

/// What a bridge stands between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeOptions {
    /// Where the ingress topic is.
    pub kafka: KafkaOptions,
    /// The consumer group; every bridge of an installation joins the same.
    pub group: String,
    /// Where refused messages go, at the same brokers.
    pub dead_letter_topic: String,
}

impl BridgeOptions {
    /// Where the dead-letter topic is.
    #[must_use]
    pub fn dead_letters(&self) -> KafkaOptions {
        KafkaOptions { topic: self.dead_letter_topic.clone(), ..self.kafka.clone() }
    }
}

/// Why a bridge does not start, or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// Two topics of a bridge are the same.
    #[error("bridge.dead_letter_topic must differ from the ingress topic, but both are `{0}`")]
    SameTopic(String),
    /// Kafka failed.
    #[error(transparent)]
    Kafka(#[from] LogError),
    /// The log takes nothing more.
    #[error("the log does not take what the bridge read: {reason}")]
    Stopped {
        /// The log's answer.
        reason: String,
    },
    /// Messages were not stored in time; they will be read again.
    #[error("{batches} batches of messages were not stored in time; they will be read again")]
    Unsettled {
        /// How many.
        batches: usize,
    },
    /// The thread could not be started, or has panicked.
    #[error("the bridge's thread {0}")]
    Thread(String),
}

impl BridgeError {
    /// Whether the bridge may go on by itself.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Kafka(error) => error.is_retryable(),
            Self::Unsettled { .. } => true,
            Self::SameTopic(_) | Self::Stopped { .. } | Self::Thread(_) => false,
        }
    }
}

/// A bridge at work. Dropping it drains it.
#[derive(Debug)]
pub struct Bridge {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<(), BridgeError>>>,
}

impl Bridge {
    /// Creates the ingress and dead-letter topics, each unless it is there: with how
    /// many partitions is up to its producers. Gives the names of those that it created.
    ///
    /// # Errors
    /// When the brokers cannot be asked or refuse.
    pub fn create_topics(options: &BridgeOptions, topic: &TopicOptions) -> Result<Vec<String>, BridgeError> {
        options.check()?;
        let dead_letters = options.dead_letters();
        let letters_config = [("max.message.bytes", LETTER_BYTES_MAX)];
        let wanted: [(&KafkaOptions, &[_]); 2] = [(&options.kafka, &[]), (&dead_letters, &letters_config)];
        let mut created = Vec::new();
        for (kafka, config) in wanted {
            if create_unless_there(kafka, topic, config)? {
                created.push(kafka.topic.clone());
            }
        }
        Ok(created)
    }

    /// Starts bridging into `log`. Both topics must be there.
    ///
    /// # Errors
    /// When a topic is missing or the brokers cannot be asked.
    pub fn start(
        options: BridgeOptions,
        definitions: SharedDefinitions,
        log: Arc<dyn LogAppender>,
    ) -> Result<Self, BridgeError> {
        options.check()?;
        partitions_of(&options.kafka)?;
        let dead_letters = options.dead_letters();
        let dead = DeadLetters::open(&dead_letters, partitions_of(&dead_letters)?)?;
        let shared = Arc::new(Shared::default());
        let worker = Worker {
            options,
            definitions,
            log,
            dead,
            shared: shared.clone(),
            under_way: VecDeque::new(),
            next_offsets: BTreeMap::new(),
            committed_at: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("bridge".to_owned()).spawn(move || worker.run());
        let thread = thread.map_err(|error| BridgeError::Thread(format!("could not be started: {error}")))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How it is doing.
    #[must_use]
    pub fn health(&self) -> BridgeHealth {
        self.shared.health(self.thread.as_ref().is_some_and(|thread| !thread.is_finished()))
    }

    /// Reads nothing more, has everything under way stored and committed, and leaves
    /// the group.
    ///
    /// # Errors
    /// When something could not be stored in time, so that it will be read again; or
    /// what stopped the bridge before.
    pub fn drain(mut self) -> Result<(), BridgeError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), BridgeError> {
        self.shared.drain();
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(BridgeError::Thread("has panicked".to_owned())))
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Err(error) = self.join() {
            tracing::error!(%error, "draining the bridge");
        }
    }
}

impl BridgeOptions {
    fn check(&self) -> Result<(), BridgeError> {
        if self.kafka.topic == self.dead_letter_topic {
            return Err(BridgeError::SameTopic(self.dead_letter_topic.clone()));
        }
        Ok(())
    }
}
