//! The bridge of one node: what the ingress topic brings goes into the node's log
//! until it is drained. Its end, unless it was asked for, is the node's failure.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use odometer_ingest::bridge::{Bridge, BridgeError, BridgeHealth, BridgeOptions};
use odometer_ingest::gateway::SharedDefinitions;
use odometer_ingest::log::LogAppender;
use odometer_ingest::log::kafka::KafkaOptions;

use super::footing::cluster::{await_part, kafka_options};
use super::progress::Progress;
use crate::config::cluster::ClusterConfig;

/// A bridge that several threads ask how it is doing. `None` once it is drained.
pub(crate) struct Bridging(Mutex<Option<Bridge>>);

impl Bridging {
    /// Waits for Kafka and starts bridging into `log`.
    pub(crate) fn start(
        cluster: &ClusterConfig,
        definitions: &SharedDefinitions,
        log: &Arc<dyn LogAppender>,
    ) -> anyhow::Result<Self> {
        let options = bridge_options(cluster);
        let start = || Bridge::start(options.clone(), definitions.clone(), Arc::clone(log));
        let bridge = await_part("Kafka", &cluster.kafka.brokers, BridgeError::is_retryable, start)
            .context("the bridge does not start; without it, leave `bridge` out of `server.roles`")?;
        Ok(Self(Mutex::new(Some(bridge))))
    }

    /// How it is doing; `None` once it is drained.
    pub(crate) fn health(&self) -> Option<BridgeHealth> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Bridge::health)
    }

    /// Fails the node when the bridge has ended by itself.
    pub(crate) fn check(&self, progress: &Progress) {
        if let Some(reason) = self.health().as_ref().and_then(ended) {
            progress.fail(reason);
        }
    }

    /// Has everything stored that was read, and leaves the group.
    ///
    /// # Errors
    /// When some of it will be read again, or what ended the bridge before.
    pub(crate) fn drain(&self) -> anyhow::Result<()> {
        let bridge = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        bridge.map_or(Ok(()), Bridge::drain).context("the bridge did not drain cleanly")
    }
}

/// Why a bridge has ended, if it has.
pub(crate) fn ended(health: &BridgeHealth) -> Option<String> {
    let reason = || health.last_error.as_deref().unwrap_or("for an unknown reason; this is a bug");
    (!health.is_running).then(|| format!("the bridge has ended: {}", reason()))
}

/// What the bridge stands between.
pub(crate) fn bridge_options(cluster: &ClusterConfig) -> BridgeOptions {
    BridgeOptions {
        kafka: KafkaOptions { topic: cluster.bridge.ingress_topic.clone(), ..kafka_options(cluster) },
        group: cluster.bridge.group.clone(),
        dead_letter_topic: cluster.bridge.dead_letter_topic.clone(),
    }
}
