//! The writing half: envelopes of the log's size and partitions go in, and out to the
//! topic. Takes nothing once the log is closed.

use std::sync::Arc;

use odometer_schemas::limits::ENVELOPE_BYTES_MAX;

use super::client::KafkaOptions;
use super::outbox::{Outbox, OutgoingTime};
use crate::log::{AppendError, LogAppender, LogError, PendingAppend};

/// The log's writing half.
#[derive(Debug)]
pub(super) struct Appender {
    partitions: u32,
    pub(super) outbox: Arc<Outbox>,
}

impl Appender {
    pub(super) fn open(options: &KafkaOptions, partitions: u32) -> Result<Arc<Self>, LogError> {
        let outbox = Outbox::open(options, &[], OutgoingTime::Append)?;
        Ok(Arc::new(Self { partitions, outbox }))
    }
}

impl LogAppender for Appender {
    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn append(&self, partition: u32, envelope: Vec<u8>) -> PendingAppend {
        if partition >= self.partitions {
            let reason = format!("the log has no partition {partition}, only {}", self.partitions);
            return PendingAppend::ready(Err(AppendError::Refused(reason)));
        }
        let bytes = envelope.len();
        if bytes > ENVELOPE_BYTES_MAX {
            return PendingAppend::ready(Err(AppendError::TooLarge { bytes }));
        }
        self.outbox.send(partition, None, Some(&envelope), None)
    }
}
