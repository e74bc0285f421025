//! Batches straight to a cluster's log: each line becomes a record of the emitter,
//! which answers once Kafka has it. The ids are the trace's own, so a batch that is
//! sent again counts once.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use odometer_ingest::emitter::{EmitError, Emitter, EmitterOptions};
use odometer_ingest::log::kafka::KafkaLog;
use odometer_schemas::definitions::Definitions;
use odometer_schemas::quantity::Quantity;
use odometer_schemas::record::Record;
use odometer_schemas::time::TimeMs;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{Answer, Refusal};
use crate::config::{Config, Overrides};
use crate::node::footing::cluster::kafka_options;

/// The log, and what its records must be.
pub(super) struct LogDoor {
    log: KafkaLog,
    emitter: Emitter,
    definitions: Definitions,
}

/// One record as the encoder writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    source: String,
    id: String,
    tenant: String,
    meter: String,
    #[serde(borrow)]
    quantity: &'a RawValue,
    time: Option<String>,
    subject: Option<String>,
    dimensions: Option<BTreeMap<String, String>>,
}

impl LogDoor {
    /// Opens the log that `file` describes, with other brokers if given.
    ///
    /// # Errors
    /// When the configuration is wrong or the log cannot be opened.
    pub(super) fn open(file: Option<&Path>, brokers: Option<&str>) -> anyhow::Result<Self> {
        let config = Config::load(file, &Overrides::default())?;
        let mut options = kafka_options(&config.cluster);
        if let Some(brokers) = brokers {
            brokers.clone_into(&mut options.brokers);
        }
        let log = KafkaLog::open(&options).with_context(|| format!("Kafka at {}", options.brokers))?;
        let emitter = Emitter::start(log.appender(), EmitterOptions::default())?;
        Ok(Self { log, emitter, definitions: config.definitions() })
    }

    /// Sends a body's lines, and waits until the log has them.
    pub(super) async fn send(&self, body: &[u8]) -> Answer {
        let (mut pending, mut refusals) = (Vec::new(), Vec::new());
        for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let record = match self.record(line) {
                Ok(record) => record,
                Err(refusal) => {
                    refusals.push(refusal);
                    continue;
                }
            };
            let id = record.id.clone().unwrap_or_default();
            match self.emitter.emit(record).await {
                Ok(ack) => pending.push(ack),
                Err(EmitError::Refused(error)) => refusals.push(Refusal { reason: error.to_string(), id }),
                Err(error) => return Answer::Never(error.to_string()),
            }
        }
        let mut stored = 0;
        for ack in pending {
            match ack.wait().await {
                Ok(_) => stored += 1,
                Err(error) => return Answer::Later { retry_after: None, problem: error.to_string() },
            }
        }
        Answer::Judged { stored, refused: refusals.len() as u64, refusals }
    }

    /// Waits for what is on its way.
    ///
    /// # Errors
    /// When the log did not close cleanly.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        // Every record has been waited for.
        let _ = self.emitter.close().await;
        tokio::task::spawn_blocking(|| self.log.close()).await?.context("the log did not close cleanly")
    }

    fn record(&self, line: &[u8]) -> Result<Record, Refusal> {
        let refused = |id: &str, reason: String| Refusal { reason, id: id.to_owned() };
        let line: Line<'_> = serde_json::from_slice(line).map_err(|error| refused("", error.to_string()))?;
        let meter = self.definitions.meter(&line.meter);
        let meter = meter.ok_or_else(|| refused(&line.id, format!("unknown meter `{}`", line.meter)))?;
        let text = line.quantity.get();
        let quantity = Quantity::parse_decimal(text.trim_matches('"'), meter.scale);
        let quantity = quantity.map_err(|error| refused(&line.id, format!("quantity {text} {error}")))?;
        let time = line.time.as_deref().map(TimeMs::parse_rfc3339).transpose();
        let time = time.map_err(|error| refused(&line.id, format!("time {error}")))?;
        Ok(Record {
            tenant: line.tenant,
            source: line.source,
            id: Some(line.id),
            meter: line.meter,
            quantity,
            time,
            subject: line.subject,
            // In the order of their names already.
            dimensions: line.dimensions.unwrap_or_default().into_iter().collect(),
            reservation: None,
        })
    }
}
