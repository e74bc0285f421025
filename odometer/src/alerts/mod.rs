//! Tells of limits that were crossed: alerts come from the totals book, where they stand
//! with the usage that crossed; each channel takes them in order, and how far it came
//! stands in the book too. Decides nothing: what an alert is, the core says.
//!
//! Reading path: [`courier`] (book → channel) → [`event`] (what is told) → [`webhook`],
//! [`topic`] (where).

mod courier;
mod event;
mod topic;
mod webhook;

use odometer_ingest::log::kafka::KafkaOptions;

pub(crate) use self::courier::Courier;
pub(crate) use self::event::{AlertAnswer, Event, alert_id, parse_alert_id};
pub(crate) use self::webhook::Secret;

use self::topic::Topic;
use self::webhook::Webhook;
use crate::config::alerts::AlertsConfig;

/// Where alerts go.
pub(crate) trait Channel: Send {
    /// The name in the totals book and in metrics; never changes.
    fn name(&self) -> &'static str;
    /// How many alerts it takes at once.
    fn at_once(&self) -> u32;
    /// Tells of a partition's alerts, in order: all of them, or an error.
    fn tell(&mut self, partition: u32, events: &[Event]) -> anyhow::Result<()>;
    /// Another node tells of the partition from now on.
    fn leave(&mut self, partition: u32);
}

/// The channels that are configured; those of Kafka where there is one.
pub(crate) fn channels(
    config: &AlertsConfig,
    kafka: Option<&KafkaOptions>,
    log_id: &str,
) -> anyhow::Result<Vec<Box<dyn Channel>>> {
    let mut channels: Vec<Box<dyn Channel>> = Vec::new();
    if let Some(url) = &config.webhook {
        channels.push(Box::new(Webhook::new(url, config.secret.as_ref())?));
    }
    if let Some(kafka) = kafka {
        let options = KafkaOptions { topic: config.topic.clone(), ..kafka.clone() };
        channels.push(Box::new(Topic::new(options, log_id)));
    }
    Ok(channels)
}
