//! Refused messages in, dead letters out: the whole message with its key and headers,
//! and beside them why it was refused and where it stood. Nothing here forgets a
//! letter; whoever wrote it waits for the answer and writes it again.

use std::sync::Arc;

use rdkafka::message::{BorrowedMessage, Header, Headers as _, OwnedHeaders};
use rdkafka::{Message, Timestamp};
use serde::{Deserialize, Serialize};

use crate::gateway::{Fate, Problem, Sheet};
use crate::log::kafka::KafkaOptions;
use crate::log::kafka::outbox::{Outbox, OutgoingTime};
use crate::log::{LogError, PendingAppend};

/// The start of the name of every header that is ours.
pub(super) const HEADER_PREFIX: &str = "odometer_";
pub(super) const REASON: &str = "odometer_reason";
pub(super) const REFUSED: &str = "odometer_refused";
pub(super) const REFUSED_COUNT: &str = "odometer_refused_count";
pub(super) const ORIGIN_TOPIC: &str = "odometer_origin_topic";
pub(super) const ORIGIN_PARTITION: &str = "odometer_origin_partition";
pub(super) const ORIGIN_OFFSET: &str = "odometer_origin_offset";
/// When the message was first refused, on one that was sent again: what was counted of
/// it was counted then.
pub(super) const FIRST_REFUSED_MS: &str = "odometer_first_refused_ms";
pub(super) const ORIGIN_TIME_MS: &str = "odometer_origin_time_ms";

/// Events of one message whose reasons are written out. A header is no place for a
/// hundred thousand; the count is exact.
const REFUSED_LISTED_MAX: usize = 20;
/// The largest dead letter: ten times what brokers allow a message by default, and
/// what the topic is created for.
pub(super) const LETTER_BYTES_MAX: &str = "10485760";

/// One event that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedEvent {
    /// Its place in the message.
    pub index: usize,
    /// Its id, as far as there is one.
    pub id: Option<String>,
    /// Why: a stable word, a colon, a sentence.
    pub reason: String,
}

/// Why a message goes to the dead letters.
#[derive(Debug)]
pub(super) struct Verdict {
    reason: String,
    refused: Vec<RefusedEvent>,
    refused_count: usize,
}

impl Verdict {
    /// The message could not be read at all.
    pub(super) fn whole(problem: &Problem) -> Self {
        let kind = problem.kind.uri().rsplit('/').next().unwrap_or_default().replace('-', "_");
        Self { reason: format!("{kind}: {}", problem.detail), refused: Vec::new(), refused_count: 1 }
    }

    /// Some of its events were refused; `None` when none was.
    pub(super) fn of_events(sheet: &Sheet) -> Option<Self> {
        let mut verdict = Self { reason: String::new(), refused: Vec::new(), refused_count: 0 };
        for (index, (id, fate)) in sheet.events().enumerate() {
            let Fate::Refused(refusal) = fate else { continue };
            verdict.refused_count += 1;
            if verdict.reason.is_empty() {
                verdict.reason = refusal.to_string();
            }
            if verdict.refused.len() < REFUSED_LISTED_MAX {
                let id = id.map(str::to_owned);
                verdict.refused.push(RefusedEvent { index, id, reason: refusal.to_string() });
            }
        }
        (verdict.refused_count > 0).then_some(verdict)
    }

    pub(super) fn refused_count(&self) -> usize {
        self.refused_count
    }

    pub(super) fn reason(&self) -> &str {
        &self.reason
    }
}

/// A dead letter, kept until it is stored.
#[derive(Debug)]
pub(super) struct Letter {
    partition: u32,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    headers: OwnedHeaders,
}

impl Letter {
    pub(super) fn bytes(&self) -> usize {
        self.payload.as_ref().map_or(0, Vec::len) + self.key.as_ref().map_or(0, Vec::len)
    }
}

/// The way to the dead-letter topic.
#[derive(Debug)]
pub(super) struct DeadLetters {
    outbox: Arc<Outbox>,
    partitions: u32,
}

impl DeadLetters {
    pub(super) fn open(options: &KafkaOptions, partitions: u32) -> Result<Self, LogError> {
        let limit = [("message.max.bytes", LETTER_BYTES_MAX)];
        Ok(Self { outbox: Outbox::open(options, &limit, OutgoingTime::Any)?, partitions })
    }

    pub(super) fn letter(&self, message: &BorrowedMessage<'_>, verdict: &Verdict) -> Letter {
        let mut headers = message.headers().map_or_else(OwnedHeaders::new, |headers| headers.detach());
        let refused = serde_json::to_string(&verdict.refused).expect("texts and numbers always serialise");
        let time_ms = match message.timestamp() {
            Timestamp::NotAvailable => String::new(),
            Timestamp::CreateTime(ms) | Timestamp::LogAppendTime(ms) => ms.to_string(),
        };
        for (key, value) in [
            (REASON, verdict.reason.clone()),
            (REFUSED, refused),
            (REFUSED_COUNT, verdict.refused_count.to_string()),
            (ORIGIN_TOPIC, message.topic().to_owned()),
            (ORIGIN_PARTITION, message.partition().to_string()),
            (ORIGIN_OFFSET, message.offset().to_string()),
            (ORIGIN_TIME_MS, time_ms),
        ] {
            headers = headers.insert(Header { key, value: Some(&value) });
        }
        debug_assert!(headers.count() >= 7, "{} headers", headers.count());
        Letter {
            partition: u32::try_from(message.partition()).unwrap_or(0) % self.partitions.max(1),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            headers,
        }
    }

    pub(super) fn send(&self, letter: &Letter) -> PendingAppend {
        let Letter { partition, key, payload, headers } = letter;
        self.outbox.send(*partition, key.as_deref(), payload.as_deref(), Some(headers.clone()))
    }

    pub(super) fn close(&self) -> Result<(), LogError> {
        self.outbox.close()
    }
}
