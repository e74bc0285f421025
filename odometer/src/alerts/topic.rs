//! Alerts into a Kafka topic, each once: the log's partition is the topic's partition,
//! and the alert's place there is the message's number.

use odometer_ingest::log::kafka::{KafkaOptions, Numbered, NumberedTopic};

use super::event::CONTENT_TYPE;
use super::{Channel, Event};

pub(super) struct Topic {
    topic: NumberedTopic,
}

impl Topic {
    pub(super) fn new(options: KafkaOptions, log_id: &str) -> Self {
        Self { topic: NumberedTopic::new(options, log_id) }
    }
}

impl Channel for Topic {
    fn name(&self) -> &'static str {
        "topic"
    }

    fn at_once(&self) -> u32 {
        // A transaction costs as much with one message as with many.
        1_000
    }

    fn tell(&mut self, partition: u32, events: &[Event]) -> anyhow::Result<()> {
        let message = |event: &Event| Numbered {
            number: event.sequence,
            key: event.tenant.clone(),
            payload: event.body.clone(),
            content_type: CONTENT_TYPE,
        };
        let messages: Vec<_> = events.iter().map(message).collect();
        Ok(self.topic.publish(partition, &messages)?)
    }

    fn leave(&mut self, partition: u32) {
        self.topic.leave(partition);
    }
}
