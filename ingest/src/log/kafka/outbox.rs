//! Messages go in, where each was stored comes out. One idempotent producer per
//! topic; its delivery reports answer each message, and one owned thread serves them
//! and replaces a producer that has failed for good. A message is answered `Ok` only
//! after all in-sync replicas have it; one whose fate is unknown is `Unavailable`.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use odometer_schemas::time::TimeMs;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig};
use rdkafka::{Message, Statistics, Timestamp};
use tokio::sync::oneshot;

use super::client::{KafkaOptions, failed, failed_with, log_error, log_line, native, unspun};
use crate::log::{AppendError, Appended, LogError, PendingAppend};

/// Messages that may wait for the brokers: more than a second of full load, so that
/// a leader election passes unnoticed.
const QUEUE_MESSAGES_MAX: &str = "8192";
/// KiB that they may take: a thousand of the largest envelopes.
const QUEUE_KIB_MAX: &str = "65536";
/// How long envelopes gather for one request. Shorter than anyone notices, and long
/// enough that a busy producer sends a few hundred requests a second, not thousands.
const LINGER_MS: &str = "3";
/// After this an append that the brokers have not confirmed is answered
/// `Unavailable`: longer than a leader election, shorter than clients' patience.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
const DELIVERY_TIMEOUT_MS: &str = "30000";
/// What a broker may take for one request until it counts as lost.
const REQUEST_TIMEOUT_MS: &str = "10000";
/// How long closing waits: everything has timed out by then.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(35);
/// How long a broken producer may take to answer what it had.
const PURGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the thread looks whether the producer has failed or the log was closed. Each
/// look spins for up to a millisecond, so it is not oftener than closing has patience for.
const POLL: Duration = Duration::from_millis(50);

const _: () = assert!(CLOSE_TIMEOUT.as_millis() > DELIVERY_TIMEOUT.as_millis());

type Deliveries = BaseProducer<Reports>;

/// Whose time a stored message is expected to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutgoingTime {
    /// The broker's; anything else is a fault, as the log's time rests on it.
    Append,
    /// Whatever the topic is configured for.
    Any,
}

/// The way into one topic.
pub(crate) struct Outbox {
    topic: String,
    time: OutgoingTime,
    config: ClientConfig,
    /// `None` once it is closed.
    producer: RwLock<Option<Arc<Deliveries>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
}

/// How appending is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppenderHealth {
    /// Whether the thread that serves the answers is there; false after close.
    pub is_running: bool,
    /// Whether the newest envelope that was answered has failed.
    pub is_failing: bool,
    /// The last failure, kept after recovery.
    pub last_error: Option<String>,
    /// Envelopes that failed since the log was opened.
    pub failures: u64,
    /// Envelopes that were stored since the log was opened.
    pub stored: u64,
    /// Producers that failed for good and were replaced.
    pub producers_replaced: u64,
    /// Envelopes that wait for the brokers now.
    pub queued_envelopes: usize,
}

/// Tells how appending is doing, for whoever does not own the log.
#[derive(Clone, Debug)]
pub struct HealthWatch(Arc<Outbox>);

impl HealthWatch {
    pub(crate) fn new(outbox: &Arc<Outbox>) -> Self {
        Self(outbox.clone())
    }

    /// How appending is doing now.
    #[must_use]
    pub fn health(&self) -> AppenderHealth {
        self.0.health()
    }
}

/// What delivery reports tell everyone else.
#[derive(Debug, Default)]
struct Shared {
    is_failing: AtomicBool,
    failures: AtomicU64,
    stored: AtomicU64,
    producers_replaced: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Shared {
    fn note_failure(&self, reason: String) {
        *locked(&self.last_error) = Some(reason);
        self.is_failing.store(true, Ordering::Relaxed);
    }
}

/// A poisoned lock guards plain values that are whole at any time.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the delivery reports of one producer.
struct Reports {
    shared: Arc<Shared>,
    time: OutgoingTime,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<oneshot::Sender<Result<Appended, AppendError>>>;

    fn delivery(&self, report: &DeliveryResult<'_>, answer_to: Self::DeliveryOpaque) {
        let answer = match report {
            Ok(message) => appended(message, self.time),
            Err((error, message)) => Err(refusal(error, message.payload_len())),
        };
        match &answer {
            Ok(_) => {
                self.shared.stored.fetch_add(1, Ordering::Relaxed);
                self.shared.is_failing.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                self.shared.failures.fetch_add(1, Ordering::Relaxed);
                self.shared.note_failure(error.to_string());
            }
        }
        // Whoever asked may have gone; the envelope's fate does not depend on it.
        let _ = answer_to.send(answer);
    }
}

fn appended(message: &impl Message, time: OutgoingTime) -> Result<Appended, AppendError> {
    let Ok(offset) = u64::try_from(message.offset()) else {
        return Err(AppendError::Unavailable("the broker has the envelope, but did not tell its offset".to_owned()));
    };
    match message.timestamp() {
        Timestamp::CreateTime(ms) if time == OutgoingTime::Any => Ok(Appended { offset, append_time: TimeMs(ms) }),
        Timestamp::LogAppendTime(ms) => Ok(Appended { offset, append_time: TimeMs(ms) }),
        _ => {
            let reason = "the topic no longer has message.timestamp.type=LogAppendTime".to_owned();
            Err(AppendError::Unavailable(reason))
        }
    }
}

fn refusal(error: &KafkaError, bytes: usize) -> AppendError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::QueueFull) => AppendError::Busy,
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => AppendError::TooLarge { bytes },
        Some(RDKafkaErrorCode::MessageTimedOut) => {
            AppendError::Unavailable("the brokers did not confirm the envelope in time".to_owned())
        }
        _ => AppendError::Unavailable(error.to_string()),
    }
}

impl Outbox {
    pub(crate) fn open(
        options: &KafkaOptions,
        defaults: &[(&str, &str)],
        time: OutgoingTime,
    ) -> Result<Arc<Self>, LogError> {
        let common = [
            ("queue.buffering.max.messages", QUEUE_MESSAGES_MAX),
            ("queue.buffering.max.kbytes", QUEUE_KIB_MAX),
            ("linger.ms", LINGER_MS),
            ("message.timeout.ms", DELIVERY_TIMEOUT_MS),
            ("request.timeout.ms", REQUEST_TIMEOUT_MS),
        ];
        let config =
            options.config(&[&common, defaults].concat(), &[("acks", "all"), ("enable.idempotence", "true")])?;
        let shared = Arc::new(Shared::default());
        let producer = open_producer(&config, &shared, time)?;
        let outbox = Arc::new(Self {
            topic: options.topic.clone(),
            time,
            config,
            producer: RwLock::new(Some(Arc::new(producer))),
            thread: Mutex::new(None),
            shared,
        });
        let serving = outbox.clone();
        let name = format!("to {}", options.topic);
        let thread = std::thread::Builder::new().name(name).spawn(move || serving.serve());
        let thread = thread.map_err(|source| LogError::Storage {
            doing: "starting the thread of a producer",
            source: Box::new(source),
        })?;
        *locked(&outbox.thread) = Some(thread);
        Ok(outbox)
    }

    /// Hands a message over; never blocks.
    pub(crate) fn send(
        &self,
        partition: u32,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        headers: Option<OwnedHeaders>,
    ) -> PendingAppend {
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner);
        let Some(producer) = producer.as_ref() else { return PendingAppend::ready(Err(AppendError::Closed)) };
        let (answer_to, pending) = PendingAppend::channel();
        let record: BaseRecord<'_, [u8], [u8], _> = BaseRecord {
            topic: &self.topic,
            partition: Some(native(partition)),
            payload,
            key,
            timestamp: None,
            headers,
            delivery_opaque: Box::new(answer_to),
        };
        match producer.send(record) {
            Ok(()) => pending,
            Err((error, _)) => PendingAppend::ready(Err(refusal(&error, payload.unwrap_or_default().len()))),
        }
    }

    fn current(&self) -> Option<Arc<Deliveries>> {
        self.producer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs on the outbox's own thread until it is closed.
    fn serve(&self) {
        while let Some(producer) = self.current() {
            producer.poll(unspun(POLL));
            if let Some((code, reason)) = producer.client().fatal_error() {
                self.replace(&producer, &format!("{code}: {reason}"));
            }
        }
    }

    /// A producer that has failed for good takes nothing more: what it had is
    /// answered, and a new one takes its place.
    fn replace(&self, broken: &Deliveries, reason: &str) {
        tracing::error!(reason, "the producer failed for good and is replaced");
        self.shared.note_failure(reason.to_owned());
        {
            let mut current = self.producer.write().unwrap_or_else(PoisonError::into_inner);
            // Closing meanwhile drains what there is.
            if current.is_none() {
                return;
            }
            match open_producer(&self.config, &self.shared, self.time) {
                Ok(producer) => *current = Some(Arc::new(producer)),
                // The next round tries again; until then appends are answered with the failure.
                Err(error) => return tracing::error!(%error, "opening a new producer"),
            }
        }
        self.shared.producers_replaced.fetch_add(1, Ordering::Relaxed);
        purge(broken);
    }

    pub(crate) fn health(&self) -> AppenderHealth {
        let producer = self.current();
        let queued = producer.as_ref().map_or(0, |producer| producer.in_flight_count());
        AppenderHealth {
            is_running: locked(&self.thread).as_ref().is_some_and(|thread| !thread.is_finished()),
            is_failing: self.shared.is_failing.load(Ordering::Relaxed),
            last_error: locked(&self.shared.last_error).clone(),
            failures: self.shared.failures.load(Ordering::Relaxed),
            stored: self.shared.stored.load(Ordering::Relaxed),
            producers_replaced: self.shared.producers_replaced.load(Ordering::Relaxed),
            queued_envelopes: usize::try_from(queued).unwrap_or(0),
        }
    }

    pub(crate) fn close(&self) -> Result<(), LogError> {
        // The lock waits for appends that are just being handed over.
        let producer = self.producer.write().unwrap_or_else(PoisonError::into_inner).take();
        let thread = locked(&self.thread).take();
        let joined = thread.map_or(Ok(()), JoinHandle::join);
        if let Some(producer) = producer {
            if let Err(error) = producer.flush(CLOSE_TIMEOUT) {
                tracing::error!(%error, "messages were still under way when their producer was closed");
            }
            purge(&producer);
        }
        joined.map_err(|_| failed_with("closing a producer", "its thread panicked"))
    }
}

fn open_producer(config: &ClientConfig, shared: &Arc<Shared>, time: OutgoingTime) -> Result<Deliveries, LogError> {
    config.create_with_context(Reports { shared: shared.clone(), time }).map_err(failed("opening a producer"))
}

/// Has everything answered that the producer still holds.
fn purge(producer: &Deliveries) {
    let started = Instant::now();
    while producer.in_flight_count() > 0 && started.elapsed() < PURGE_TIMEOUT {
        producer.purge(PurgeConfig::default().queue().inflight());
        producer.poll(unspun(POLL));
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("topic", &self.topic).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    const TOPIC: &str = "usage";

    fn cluster() -> MockCluster<'static, DefaultProducerContext> {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, 1, 1).unwrap();
        cluster
    }

    fn outbox(cluster: &MockCluster<'_, DefaultProducerContext>, timeout_ms: &str) -> Arc<Outbox> {
        let options = KafkaOptions {
            brokers: cluster.bootstrap_servers(),
            topic: TOPIC.to_owned(),
            client_id: "test".to_owned(),
            properties: vec![("message.timeout.ms".to_owned(), timeout_ms.to_owned())],
        };
        Outbox::open(&options, &[], OutgoingTime::Any).unwrap()
    }

    fn send(outbox: &Outbox) -> Result<Appended, AppendError> {
        outbox.send(0, None, Some(b"x"), None).wait_blocking()
    }

    #[test]
    fn a_producer_that_failed_for_good_is_replaced() {
        let cluster = cluster();
        let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
        cluster.request_errors(RDKafkaApiKey::InitProducerId, &[error]);
        let outbox = outbox(&cluster, "30000");
        // Whatever meets the broken producer is answered, and may be sent again.
        while let Err(refused) = send(&outbox) {
            assert!(refused.is_retryable() && refused.may_be_stored(), "{refused:?}");
        }
        let health = outbox.health();
        assert_eq!(health.producers_replaced, 1, "{health:?}");
        assert!(health.is_running && !health.is_failing && health.last_error.is_some(), "{health:?}");
        outbox.close().unwrap();
    }

    #[test]
    fn brokers_that_are_away_are_answered_unavailable_until_they_return() {
        let cluster = cluster();
        let outbox = outbox(&cluster, "1000");
        assert_eq!(send(&outbox).unwrap().offset, 0);
        cluster.broker_down(1).unwrap();
        let refused = send(&outbox).unwrap_err();
        assert!(matches!(refused, AppendError::Unavailable(_)), "{refused:?}");
        assert!(outbox.health().is_failing);
        cluster.broker_up(1).unwrap();
        while send(&outbox).is_err() {}
        assert!(!outbox.health().is_failing);
        outbox.close().unwrap();
    }

    #[test]
    fn closing_answers_everything_that_was_taken() {
        let cluster = cluster();
        let outbox = outbox(&cluster, "1000");
        assert!(send(&outbox).is_ok());
        cluster.broker_down(1).unwrap();
        let pending: Vec<_> = (0..10).map(|_| outbox.send(0, None, Some(b"x"), None)).collect();
        outbox.close().unwrap();
        for pending in pending {
            assert!(matches!(pending.wait_blocking(), Err(AppendError::Unavailable(_))));
        }
        assert_eq!(send(&outbox), Err(AppendError::Closed));
        assert!(!outbox.health().is_running);
    }
}
