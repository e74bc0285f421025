//! What all Kafka clients of a node share: options in, librdkafka configuration and
//! errors out. Never opens a connection.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::{ClientContext, Statistics};

use crate::log::LogError;

/// How long one request may take before it counts as lost. Brokers answer within
/// milliseconds, and within a few seconds while they elect a leader.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client waits at most before it tries a lost broker again, so that a
/// broker's restart is noticed about when it is over.
const RECONNECT_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How Kafka is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaOptions {
    /// `host:port` of some brokers, separated by commas.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// The name that brokers log for this client.
    pub client_id: String,
    /// Further librdkafka properties (security, compression, …) for every client.
    /// Properties that a guarantee rests on are refused by name.
    pub properties: Vec<(String, String)>,
}

impl fmt::Debug for KafkaOptions {
    /// Shows no value of a property: some are passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.properties.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("KafkaOptions")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("client_id", &self.client_id)
            .field("properties", &names)
            .finish()
    }
}

/// Properties that guarantees rest on, or that options of our own set.
const RESERVED: [&str; 14] = [
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "client.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.protocol",
    "isolation.level",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "request.required.acks",
    "transactional.id",
];

impl KafkaOptions {
    /// The configuration of a client: `defaults`, then what the user set, then what
    /// `fixed` demands.
    pub(crate) fn config(&self, defaults: &[(&str, &str)], fixed: &[(&str, &str)]) -> Result<ClientConfig, LogError> {
        for (option, value) in [("brokers", &self.brokers), ("topic", &self.topic)] {
            if value.is_empty() {
                return Err(mismatch(format!("needs kafka.{option}, which is empty")));
            }
        }
        let mut config = ClientConfig::new();
        config.set("client.id", &self.client_id);
        config.set("socket.timeout.ms", millis(REQUEST_TIMEOUT));
        config.set("reconnect.backoff.max.ms", millis(RECONNECT_BACKOFF_MAX));
        for (name, value) in defaults {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
            if RESERVED.contains(&name.as_str()) {
                return Err(mismatch(format!(
                    "does not take kafka.properties.{name}: odometer's guarantees rest on it; remove the property"
                )));
            }
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        for (name, value) in fixed {
            config.set(*name, *value);
        }
        Ok(config)
    }

    /// A client for administration.
    pub(crate) fn admin(&self) -> Result<AdminClient<DefaultClientContext>, LogError> {
        self.config(&[], &[])?.create().map_err(failed("opening an admin client"))
    }
}

/// Milliseconds as librdkafka takes them.
pub(crate) fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// How long administrative requests may take.
pub(crate) fn admin_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}

/// A partition as librdkafka numbers it.
///
/// # Panics
/// When it exceeds `i32`; partitions are checked against the topic's count before.
pub(crate) fn native(partition: u32) -> i32 {
    i32::try_from(partition).expect("partition counts are checked when the log is opened")
}

/// A wait as the client should be asked for it. It waits for whole milliseconds and spins
/// through what is left of the last one, so nothing but the time it takes to come back
/// may be left.
pub(crate) fn unspun(wait: Duration) -> Duration {
    const RETURN: Duration = Duration::from_micros(100);
    if wait.is_zero() {
        return wait;
    }
    let whole_ms = wait.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(whole_ms).unwrap_or(u64::MAX)) + RETURN
}

pub(crate) fn mismatch(what: String) -> LogError {
    LogError::Mismatch { what }
}

/// Puts what was being done beside the client's error.
pub(crate) fn failed(doing: &'static str) -> impl FnOnce(KafkaError) -> LogError {
    move |source| LogError::Storage { doing, source: Box::new(source) }
}

/// The same for errors that have only a text.
pub(crate) fn failed_with(doing: &'static str, reason: impl Into<String>) -> LogError {
    LogError::Storage { doing, source: reason.into().into() }
}

/// Whether librdkafka reports this while it goes on by itself.
pub(crate) fn is_passing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::WaitingForCoordinator
            | Code::PollExceeded
            | Code::RequestTimedOut
            | Code::NetworkException
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::CoordinatorLoadInProgress
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::ReplicaNotAvailable
            | Code::OffsetNotAvailable
    )
}

/// Sends librdkafka's own log lines where ours go.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for Quiet {}

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    /// A transaction tells of its deliveries.
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

pub(crate) fn log_line(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::warn!(facility, "kafka client: {line}");
        }
        RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => tracing::info!(facility, "kafka client: {line}"),
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => tracing::debug!(facility, "kafka client: {line}"),
    }
}

/// Whoever polls gets the error too and decides about it.
pub(crate) fn log_error(error: &KafkaError, reason: &str) {
    tracing::debug!(%error, reason, "kafka client");
}

/// Waits for an administrative answer on this thread, inside an async runtime or not.
/// The client's own thread completes it, at the latest after its time-out.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(properties: &[(&str, &str)]) -> KafkaOptions {
        KafkaOptions {
            brokers: "localhost:9092".into(),
            topic: "usage".into(),
            client_id: "test".into(),
            properties: properties.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
        }
    }

    #[test]
    fn a_wait_leaves_less_than_a_millisecond_and_is_no_shorter() {
        let waits = [1, 999, 1_000, 1_001, 20_000, 1_234_567].map(Duration::from_micros);
        for wait in waits.into_iter().chain([Duration::from_nanos(1), Duration::MAX]) {
            let asked = unspun(wait);
            assert_eq!(asked.subsec_nanos() % 1_000_000, 100_000, "{wait:?}: {asked:?}");
            assert!(asked > wait || wait == Duration::MAX, "{wait:?}: {asked:?}");
        }
        assert_eq!(unspun(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn properties_override_defaults_but_not_guarantees() {
        let config = options(&[("linger.ms", "50")]).config(&[("linger.ms", "5")], &[("acks", "all")]).unwrap();
        assert_eq!((config.get("linger.ms"), config.get("acks")), (Some("50"), Some("all")));
        let refused = options(&[("acks", "1")]).config(&[], &[]).unwrap_err().to_string();
        assert!(refused.contains("kafka.properties.acks"), "{refused}");
    }

    #[test]
    fn passwords_are_not_shown() {
        let shown = format!("{:?}", options(&[("sasl.password", "secret")]));
        assert!(shown.contains("sasl.password") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn an_empty_address_is_named() {
        let refused = KafkaOptions { brokers: String::new(), ..options(&[]) }.config(&[], &[]).unwrap_err();
        assert!(refused.to_string().contains("kafka.brokers"), "{refused}");
    }
}
