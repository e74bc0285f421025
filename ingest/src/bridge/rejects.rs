//! The dead letters: read in order, one by one, and sent again to where they came
//! from. Reading joins no group and removes nothing; what was sent again stays until
//! retention removes it, and its events count once however often they are sent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, OwnedHeaders};
use rdkafka::{Message, Offset, Timestamp, TopicPartitionList};

use odometer_schemas::time::TimeMs;

use super::dead::{
    FIRST_REFUSED_MS, HEADER_PREFIX, LETTER_BYTES_MAX, ORIGIN_OFFSET, ORIGIN_PARTITION, ORIGIN_TIME_MS, ORIGIN_TOPIC,
    REASON, REFUSED, REFUSED_COUNT, RefusedEvent,
};
use super::raw_headers::{RawHeader, raw_headers};
use crate::log::kafka::KafkaOptions;
use crate::log::kafka::client::{Quiet, REQUEST_TIMEOUT, failed, failed_with, is_passing, native};
use crate::log::kafka::closing::Closing;
use crate::log::kafka::outbox::{Outbox, OutgoingTime};
use crate::log::kafka::topic::partitions_of;
use crate::log::{Bounds, LogError};

/// How long the next letter may take to come.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
const READING: &str = "reading dead letters";
const SENDING: &str = "sending dead letters again";

/// The place of a dead letter in its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

impl std::fmt::Display for Place {
    /// `partition/offset`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = text.split_once('/').and_then(|(partition, offset)| {
            Some(Self { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
        });
        place.ok_or_else(|| format!("`{text}` is no place such as `0/17` (partition/offset)"))
    }
}

/// Where a message came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The topic.
    pub topic: String,
    /// Where it stood there.
    pub place: Place,
}

/// A message that was refused, wholly or in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Where it stands among the dead letters.
    pub place: Place,
    /// When it was put there.
    pub refused_at: Option<TimeMs>,
    /// When it was refused for the first time: what is good in it was counted then.
    pub first_refused_at: Option<TimeMs>,
    /// The first reason: a stable word, a colon, a sentence.
    pub reason: String,
    /// The events that were refused, at most twenty; empty when the message could not
    /// be read at all.
    pub refused: Vec<RefusedEvent>,
    /// How many events were refused.
    pub refused_count: u64,
    /// Where it came from; `None` when it does not say, because no bridge put it here.
    pub origin: Option<Origin>,
    /// When it was produced there.
    pub origin_time: Option<TimeMs>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its own headers.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Its body.
    pub body: Option<Vec<u8>>,
}

/// Reads the dead letters.
pub struct Rejects {
    options: KafkaOptions,
    consumer: Closing<Quiet>,
    partitions: u32,
}

impl Rejects {
    /// Opens the dead-letter topic that `options` names.
    ///
    /// # Errors
    /// When it is not there or the brokers cannot be asked.
    pub fn open(options: &KafkaOptions) -> Result<Self, LogError> {
        let partitions = partitions_of(options)?;
        let fixed = [
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("enable.partition.eof", "true"),
            ("auto.offset.reset", "earliest"),
        ];
        // The client wants a group for assigning; no coordinator ever hears of offsets.
        let config = options.config(&[("group.id", "odometer-rejects")], &fixed)?;
        let consumer = config.create_with_context(Quiet).map_err(failed("opening a consumer"))?;
        Ok(Self { options: options.clone(), consumer: Closing::new(consumer), partitions })
    }

    /// Hands every letter that is there now to `each`, partition by partition, oldest
    /// first, until `each` says no.
    ///
    /// # Errors
    /// When the letters cannot be read; what was handed over before stands.
    pub fn list(&self, mut each: impl FnMut(Reject) -> bool) -> Result<(), LogError> {
        for partition in 0..self.partitions {
            let Bounds { start_offset, end_offset } = self.bounds(partition)?;
            if !self.scan(partition, start_offset, end_offset, &mut each)? {
                break;
            }
        }
        Ok(())
    }

    /// The letter at `place`; `None` when there is none, or no longer.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn show(&self, place: Place) -> Result<Option<Reject>, LogError> {
        if place.partition >= self.partitions {
            return Ok(None);
        }
        let Bounds { start_offset, end_offset } = self.bounds(place.partition)?;
        if !(start_offset..end_offset).contains(&place.offset) {
            return Ok(None);
        }
        let mut found = None;
        self.scan(place.partition, place.offset, place.offset + 1, &mut |reject| {
            found = (reject.place == place).then_some(reject);
            false
        })?;
        Ok(found)
    }

    fn bounds(&self, partition: u32) -> Result<Bounds, LogError> {
        let watermarks = self.consumer.fetch_watermarks(&self.options.topic, native(partition), REQUEST_TIMEOUT);
        let (low, high) = watermarks.map_err(failed(READING))?;
        match (u64::try_from(low), u64::try_from(high)) {
            (Ok(start_offset), Ok(end_offset)) => Ok(Bounds { start_offset, end_offset }),
            _ => Err(failed_with(READING, format!("the broker answered {low} to {high}"))),
        }
    }

    /// Reads `from..end` of one partition; `false` when `each` said no.
    fn scan(
        &self,
        partition: u32,
        from: u64,
        end: u64,
        each: &mut dyn FnMut(Reject) -> bool,
    ) -> Result<bool, LogError> {
        if from >= end {
            return Ok(true);
        }
        let offset = i64::try_from(from).map_err(|_| failed_with(READING, format!("offset {from}")))?;
        let mut list = TopicPartitionList::new();
        let at = list.add_partition_offset(&self.options.topic, native(partition), Offset::Offset(offset));
        at.map_err(failed(READING))?;
        self.consumer.assign(&list).map_err(failed(READING))?;
        let mut last = Instant::now();
        while last.elapsed() < READ_TIMEOUT {
            match self.consumer.poll(READ_TIMEOUT) {
                Some(Ok(message)) => {
                    let reject = reject_of(&message)?;
                    if reject.place.partition != partition {
                        continue;
                    }
                    if reject.place.offset >= end {
                        return Ok(true);
                    }
                    let is_last = reject.place.offset + 1 == end;
                    if !each(reject) {
                        return Ok(false);
                    }
                    if is_last {
                        return Ok(true);
                    }
                    last = Instant::now();
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(true),
                Some(Err(error)) if !error.rdkafka_error_code().is_some_and(is_passing) => {
                    return Err(failed(READING)(error));
                }
                _ => {}
            }
        }
        Err(failed_with(READING, "no letter came in time"))
    }

    /// Sends letters again to where they came from, with their keys and headers, and
    /// waits until all of them are stored. Gives how many there were.
    ///
    /// # Errors
    /// When one was not stored; those before it were.
    pub fn replay(&self, rejects: &[Reject]) -> Result<usize, LogError> {
        let mut by_topic: BTreeMap<&str, Vec<(&Reject, u32)>> = BTreeMap::new();
        for reject in rejects {
            let Some(Origin { topic, place }) = &reject.origin else {
                return Err(failed_with(SENDING, format!("letter {} does not say where it came from", reject.place)));
            };
            by_topic.entry(topic).or_default().push((reject, place.partition));
        }
        for (topic, rejects) in by_topic {
            let options = KafkaOptions { topic: topic.to_owned(), ..self.options.clone() };
            let partitions = partitions_of(&options)?;
            let outbox = Outbox::open(&options, &[("message.max.bytes", LETTER_BYTES_MAX)], OutgoingTime::Any)?;
            for (reject, partition) in rejects {
                let Reject { key, body, place, .. } = reject;
                let partition = partition % partitions.max(1);
                let pending = outbox.send(partition, key.as_deref(), body.as_deref(), headers_of(reject));
                pending.wait_blocking().map_err(|error| failed_with(SENDING, format!("letter {place}: {error}")))?;
            }
            outbox.close()?;
        }
        Ok(rejects.len())
    }
}

impl std::fmt::Debug for Rejects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rejects").field("topic", &self.options.topic).finish_non_exhaustive()
    }
}

/// Its own headers and when it was first refused. Headers whose names are no text
/// cannot be sent again; nothing reads them anyway.
fn headers_of(reject: &Reject) -> Option<OwnedHeaders> {
    let own = reject.headers.iter().filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value)));
    let own = own.fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: value.as_ref() }));
    Some(match reject.first_refused_at {
        Some(TimeMs(ms)) => own.insert(Header { key: FIRST_REFUSED_MS, value: Some(&ms.to_string()) }),
        None => own,
    })
}

fn reject_of(message: &BorrowedMessage<'_>) -> Result<Reject, LogError> {
    let (Ok(partition), Ok(offset)) = (u32::try_from(message.partition()), u64::try_from(message.offset())) else {
        return Err(failed_with(READING, format!("a letter stands at offset {}", message.offset())));
    };
    let (ours, headers): (Vec<RawHeader>, Vec<RawHeader>) =
        raw_headers(message).into_iter().partition(|(name, _)| name.starts_with(HEADER_PREFIX.as_bytes()));
    // The last one counts: a message that was refused twice has the older ones too.
    let text = |wanted: &str| {
        let value = ours.iter().rev().find(|(name, _)| name == wanted.as_bytes()).and_then(|(_, value)| value.as_ref());
        value.map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    };
    let refused_at = match message.timestamp() {
        Timestamp::NotAvailable => None,
        Timestamp::CreateTime(ms) | Timestamp::LogAppendTime(ms) => Some(TimeMs(ms)),
    };
    Ok(Reject {
        place: Place { partition, offset },
        refused_at,
        first_refused_at: text(FIRST_REFUSED_MS).parse().ok().map(TimeMs).or(refused_at),
        reason: text(REASON),
        refused: serde_json::from_str(&text(REFUSED)).unwrap_or_default(),
        refused_count: text(REFUSED_COUNT).parse().unwrap_or(1),
        origin: match (text(ORIGIN_TOPIC), text(ORIGIN_PARTITION).parse(), text(ORIGIN_OFFSET).parse()) {
            (topic, Ok(partition), Ok(offset)) if !topic.is_empty() => {
                Some(Origin { topic, place: Place { partition, offset } })
            }
            _ => None,
        },
        origin_time: text(ORIGIN_TIME_MS).parse().ok().map(TimeMs),
        key: message.key().map(<[u8]>::to_vec),
        headers,
        body: message.payload().map(<[u8]>::to_vec),
    })
}
