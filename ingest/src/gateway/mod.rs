//! The HTTP door: usage in requests in, durable envelopes in the log and an answer
//! per event out.
//!
//! [`read`] judges a request without I/O, clock or async; [`router`] is the thin
//! shell around it. Nothing here decides whether a record counts: a stored record
//! may still turn out to be a duplicate.
//!
//! # What a body is
//!
//! | content type | body |
//! | --- | --- |
//! | `application/cloudevents+json` | one CloudEvent |
//! | `application/cloudevents-batch+json` | an array of CloudEvents |
//! | any other `application/cloudevents…` | 415, as the HTTP binding asks |
//! | any other or none, with a `ce-` header | binary mode: the headers are one CloudEvent's attributes, the body its data |
//! | `application/json` | an event, or an array of them |
//! | `application/x-ndjson`, `application/ndjson` | an event a line; blank lines are none |
//!
//! An event in the last two is a native record, unless it has a `specversion` or came
//! to `/api/v1/events`: then it is a CloudEvent. A charset other than UTF-8 is 415
//! wherever JSON is read. A body may be gzip or zstd, in any number of members or
//! frames. An empty array is stored at once.
//!
//! # What an event must be
//!
//! | rule | refusal |
//! | --- | --- |
//! | an event is a JSON object in UTF-8; in NDJSON a bad line is only that event's fault | `malformed` |
//! | no name stands twice in it, nor in what is read of its data | `duplicate_field` |
//! | null is absence, everywhere | |
//! | every text obeys [`Record::validate`](odometer_schemas::record::Record::validate) | `invalid` |
//! | a quantity is a JSON number or decimal text, and has an exact value in the meter's base unit | `quantity` |
//! | a time is RFC 3339 with its zone; without one, the log's time counts | `invalid` |
//! | a dimension is a string, number or boolean; the latter two keep their JSON text | `wrong_type` |
//! | a `unique_count` record has the dimension `value` or a subject | `missing` |
//!
//! A native record has `id`, `tenant`, `meter` and `quantity` (else `missing`: without
//! an id a retry would count twice), may have `source` (default `http`), `time`,
//! `subject`, `dimensions` and `reservation`, and nothing else (`unknown_field`). Its
//! meter is defined (`unknown_meter`).
//!
//! A CloudEvent obeys the specification and its JSON schema, and besides:
//!
//! | rule | refusal |
//! | --- | --- |
//! | `specversion` is `1.0` | `invalid` |
//! | attributes that are not read here are allowed under any name, as the schema does, and not kept | |
//! | `source` and `dataschema` are not parsed as URIs: they are only compared, or not used | |
//! | data is JSON when `datacontenttype` says so or is absent; any other data is opaque | |
//! | the tenant is the extension `tenant`, and `subject` the record's subject; without it the tenant is `subject`, and there is no subject; at `/api/v1/events` the latter always | `missing` |
//! | the extension `reservation` names what the usage draws down | |
//! | some meter counts its `type` | `unknown_type` |
//! | a meter without value path counts 1, one whose value is absent makes no record; the event makes one at least | `no_value` |
//! | a value or kept dimension that is there must be usable, else the whole event is refused | as above |
//!
//! # Answers
//!
//! An event is stored whole or not at all; `index` is its place in the request.
//!
//! | status | when |
//! | --- | --- |
//! | 202 | the log holds every event that is not called refused: one at least, unless the request held none |
//! | 400 | every event was refused, or the body broke off |
//! | 408 | the body took longer than [`BODY_TIMEOUT`] |
//! | 413 | more bytes (before or after inflating), events or records than [`GatewayOptions`] allows; nothing was stored |
//! | 415 | content type or encoding; nothing was stored |
//! | 422 | the body, an envelope or a parameter cannot be read; nothing was stored |
//! | 500 | a fault of our own; it may be sent again |
//! | 503 | with `Retry-After`: too many requests at once, or the log did not take everything |
//!
//! Everything but 202 is an RFC 9457 problem. 202, 400 and 503 from the log list
//! `results`: a `reason` begins with a stable word ([`RefusalCode`]) and a colon. After
//! `log_unavailable` and `unknown` the client sends the same ids again; they count once.

mod append;
mod body;
mod cloudevent;
mod counters;
mod feed;
mod form;
mod gather;
mod http;
mod intake;
mod json;
mod native;
mod options;
mod problem;
mod record;
mod refusal;
mod remote;
mod sheet;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use axum::body::Bytes;
use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, StatusCode};
use odometer_schemas::definitions::Definitions;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use append::Landing;
pub use counters::GatewayCounters;
pub use form::Door;
pub use gather::Envelope;
pub(crate) use gather::Gather;
pub use http::router;
pub(crate) use intake::read_onto;
pub use intake::{Incoming, Intake, Terms, read};
pub use options::{
    APPEND_TIMEOUT, BODY_BYTES_MAX, BODY_TIMEOUT, GatewayOptions, INFLATED_BYTES_MAX, RECORDS_MAX,
    REQUESTS_IN_FLIGHT_MAX,
};
pub use problem::{Problem, ProblemKind};
pub use refusal::{Refusal, RefusalCode};
pub use remote::{ENVELOPE_CONTENT_TYPE, check_envelope};
pub use sheet::{Answer, Fate, Sheet, Tally};

use crate::log::{AppendError, Appended, LogAppender};
use append::append_all;
use counters::add;
use options::INLINE_BYTES_MAX;

/// The definitions in force, which may be exchanged while requests are under way.
#[derive(Clone, Debug)]
pub struct SharedDefinitions(Arc<RwLock<Arc<Definitions>>>);

impl SharedDefinitions {
    /// Begins with `definitions`.
    #[must_use]
    pub fn new(definitions: Definitions) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(definitions))))
    }

    /// What is in force now.
    #[must_use]
    pub fn load(&self) -> Arc<Definitions> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts `definitions` in force for requests that are read from now on.
    pub fn store(&self, definitions: Definitions) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(definitions);
    }
}

/// The gateway: cheap to clone, all clones are one.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    log: Arc<dyn LogAppender>,
    definitions: SharedDefinitions,
    options: GatewayOptions,
    counters: GatewayCounters,
    in_flight: Arc<Semaphore>,
    readers: Arc<Semaphore>,
}

impl Gateway {
    /// A gateway in front of `log`.
    #[must_use]
    pub fn new(log: Arc<dyn LogAppender>, definitions: SharedDefinitions, options: GatewayOptions) -> Self {
        Self(Arc::new(Inner {
            log,
            definitions,
            in_flight: Arc::new(Semaphore::new(options.requests_in_flight_max)),
            readers: Arc::new(Semaphore::new(options.readers_max.max(1))),
            options,
            counters: GatewayCounters::default(),
        }))
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> &GatewayCounters {
        &self.0.counters
    }

    /// What it allows.
    #[must_use]
    pub fn options(&self) -> &GatewayOptions {
        &self.0.options
    }

    /// How many partitions the log has.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.0.log.partitions()
    }

    /// A place among the requests under way.
    fn enter(&self) -> Result<OwnedSemaphorePermit, Problem> {
        add(&self.0.counters.requests, 1);
        Arc::clone(&self.0.in_flight).try_acquire_owned().map_err(|_| {
            let detail = "as many requests are under way as are allowed";
            Problem::new(ProblemKind::Overloaded, detail, "wait as Retry-After says, then send it again")
        })
    }

    /// Reads a request, appends what it holds, and answers once the log has it.
    async fn take(&self, door: Door, headers: HeaderMap, body: Bytes) -> Result<Answer, Problem> {
        let intake = if body.len() <= INLINE_BYTES_MAX && !headers.contains_key(CONTENT_ENCODING) {
            self.read(door, &headers, &body)
        } else {
            self.read_apart(door, headers, body).await
        }?;
        let counters = &self.0.counters;
        add(&counters.plain_bytes, intake.plain_bytes);
        let started = Instant::now();
        let landings = append_all(self.0.log.as_ref(), &intake.envelopes, self.0.options.append_timeout).await;
        if !landings.is_empty() {
            counters.add_append(started.elapsed());
        }
        let answer = intake.sheet.answer(&landings);
        counters.add_tally(&answer.tally);
        match answer.status {
            StatusCode::ACCEPTED => {}
            StatusCode::SERVICE_UNAVAILABLE => add(&counters.requests_unavailable, 1),
            _ => add(&counters.requests_refused, 1),
        }
        Ok(answer)
    }

    fn read(&self, door: Door, headers: &HeaderMap, body: &[u8]) -> Result<Intake, Problem> {
        let terms = Terms {
            definitions: &self.0.definitions.load(),
            partitions: self.partitions(),
            inflated_bytes_max: self.0.options.inflated_bytes_max,
            records_max: self.0.options.records_max,
        };
        read(&Incoming { door, headers, body }, &terms)
    }

    /// Reads on a blocking thread; as many at once as there may be readers.
    async fn read_apart(&self, door: Door, headers: HeaderMap, body: Bytes) -> Result<Intake, Problem> {
        let gone = |what: String| {
            tracing::error!(what, "a request could not be read");
            Problem::new(ProblemKind::Internal, "the request could not be read", "send it again with the same ids")
        };
        let reader = Arc::clone(&self.0.readers).acquire_owned().await.map_err(|e| gone(e.to_string()))?;
        let gateway = self.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let _reader = reader;
            gateway.read(door, &headers, &body)
        });
        reading.await.unwrap_or_else(|e| Err(gone(e.to_string())))
    }

    /// Appends a remote emitter's envelope as it is.
    async fn take_envelope(&self, partition: u32, body: Bytes) -> Result<Appended, Problem> {
        check_envelope(&body, partition, self.partitions())?;
        let started = Instant::now();
        let answer = self.0.log.append(partition, body.into()).wait();
        let answer = tokio::time::timeout(self.0.options.append_timeout, answer).await;
        self.0.counters.add_append(started.elapsed());
        let detail = match answer {
            Ok(Ok(appended)) => {
                add(&self.0.counters.remote_envelopes_stored, 1);
                return Ok(appended);
            }
            Ok(Err(e @ (AppendError::Busy | AppendError::TooLarge { .. } | AppendError::Refused(_)))) => {
                format!("not stored: {e}")
            }
            Ok(Err(e)) => format!("it may have been stored: {e}"),
            Err(_) => "it may have been stored: the log gave no answer in time".to_owned(),
        };
        let fix = "wait as Retry-After says, then send the same envelope again";
        Err(Problem::new(ProblemKind::LogUnavailable, detail, fix))
    }
}
