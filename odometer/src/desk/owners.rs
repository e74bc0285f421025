//! Which node answers for a partition, as the totals book says, and the way there: a
//! question goes over once, to be decided or refused.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use odometer_schemas::quota::{Answer, Plan, QuotaError, TenantTerms};

use crate::api::books::Books;
use crate::quota::service::QuotaRequest;

/// How long what the book said is believed. A stale owner refuses, so that this bounds
/// only how long questions go astray.
const BELIEVED: Duration = Duration::from_millis(500);
/// Longest wait for the owner's answer: a strict one waits for the log there.
const ANSWER_MAX: Duration = Duration::from_secs(8);

/// The route that takes questions of other nodes.
pub(crate) const ROUTE: &str = "/v1/quota/forward";
/// The route where other nodes ask what a tenant, whose name is the body, was given.
pub(crate) const TERMS_ROUTE: &str = "/v1/quota/forward/terms";

pub(super) struct Owners {
    books: Arc<Books>,
    own_url: Arc<str>,
    client: reqwest::Client,
    known: RwLock<Known>,
    /// Decisions that owners were asked for.
    pub(super) asked: AtomicU64,
    /// Those of them that did not come.
    pub(super) astray: AtomicU64,
}

#[derive(Default)]
struct Known {
    read: Option<Instant>,
    /// By partition; empty where nobody said.
    urls: Vec<String>,
}

impl Owners {
    pub(super) fn new(books: Arc<Books>, own_url: Arc<str>) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(ANSWER_MAX).build().context("no HTTP client can be made")?;
        let (asked, astray) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { books, own_url, client, known: RwLock::default(), asked, astray })
    }

    /// Where another node answers for `partition`.
    pub(super) async fn url(&self, partition: u32) -> Option<String> {
        if let Some(known) = self.believed(partition) {
            return known;
        }
        // Without the book nobody is known, also not from before: it may be long ago.
        let cursors = self.books.totals(|book| book.cursors()).await.ok()?;
        let mut urls = vec![String::new(); cursors.iter().map(|cursor| cursor.partition as usize + 1).max()?];
        for cursor in cursors {
            urls[cursor.partition as usize] = cursor.owner;
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Known { read: Some(Instant::now()), urls };
        self.believed(partition).flatten()
    }

    fn believed(&self, partition: u32) -> Option<Option<String>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.read.filter(|read| read.elapsed() < BELIEVED)?;
        let url = known.urls.get(partition as usize).cloned();
        Some(url.filter(|url| !url.is_empty() && **url != *self.own_url))
    }

    /// Asks the owner for a decision.
    pub(super) async fn ask(&self, url: &str, request: &QuotaRequest) -> Result<Answer, QuotaError> {
        self.asked.fetch_add(1, Relaxed);
        let reply = self.post::<Reply>(format!("{url}{ROUTE}"), encode(request)).await;
        if reply.is_err() {
            self.astray.fetch_add(1, Relaxed);
        }
        reply?.into_result()
    }

    /// Asks an owner what a tenant of its own was given, and for all plans.
    pub(super) async fn told(&self, url: &str, tenant: &str) -> Result<Told, QuotaError> {
        self.post(format!("{url}{TERMS_ROUTE}"), tenant.as_bytes().to_vec()).await
    }

    async fn post<T: bincode::Decode<()>>(&self, url: String, body: Vec<u8>) -> Result<T, QuotaError> {
        let astray = |why: String| QuotaError::Unavailable { why };
        let sent = self.client.post(&url).body(body).send().await;
        let answer = sent.map_err(|error| astray(format!("the owner at {url} does not answer: {error}")))?;
        if !answer.status().is_success() {
            return Err(astray(format!("the owner at {url} answers {}", answer.status())));
        }
        let bytes = answer.bytes().await.map_err(|error| astray(format!("the owner's answer broke off: {error}")))?;
        decode(&bytes).ok_or_else(|| astray(format!("the answer of {url} cannot be read; is it another build?")))
    }
}

/// What an owner says of a tenant.
#[derive(bincode::Encode, bincode::Decode)]
pub(crate) struct Told {
    pub(crate) plans: Vec<Plan>,
    /// None: nothing.
    pub(crate) terms: Option<TenantTerms>,
}

/// What one node answers another.
#[derive(bincode::Encode, bincode::Decode)]
pub(crate) enum Reply {
    Decided(Answer),
    Invalid { field: String, problem: String },
    Reused { id: String },
    Unknown { id: String },
    Ended { id: String },
    Unavailable { why: String },
}

impl Reply {
    fn into_result(self) -> Result<Answer, QuotaError> {
        /// Whatever the core finds wrong once a surface has checked the rest.
        const FIELDS: [&str; 4] = ["items", "items.meter", "items.amount", "plan"];
        Err(match self {
            Self::Decided(answer) => return Ok(answer),
            Self::Invalid { field, problem } => {
                let known = FIELDS.into_iter().find(|known| *known == field);
                QuotaError::Invalid { field: known.unwrap_or("request"), problem }
            }
            Self::Reused { id } => QuotaError::Reused { id },
            Self::Unknown { id } => QuotaError::Unknown { id },
            Self::Ended { id } => QuotaError::Ended { id },
            Self::Unavailable { why } => QuotaError::Unavailable { why },
        })
    }
}

impl From<Result<Answer, QuotaError>> for Reply {
    fn from(result: Result<Answer, QuotaError>) -> Self {
        match result {
            Ok(answer) => Self::Decided(answer),
            Err(QuotaError::Invalid { field, problem }) => Self::Invalid { field: field.to_owned(), problem },
            Err(QuotaError::Reused { id }) => Self::Reused { id },
            Err(QuotaError::Unknown { id }) => Self::Unknown { id },
            Err(QuotaError::Ended { id }) => Self::Ended { id },
            Err(QuotaError::Unavailable { why }) => Self::Unavailable { why },
        }
    }
}

/// A question or an answer between nodes of one build.
pub(crate) fn encode<T: bincode::Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, bincode::config::standard()).expect("writing to memory cannot fail")
}

/// Reads what [`encode`] wrote, within the memory of one request.
pub(crate) fn decode<T: bincode::Decode<()>>(bytes: &[u8]) -> Option<T> {
    /// Far above any question or answer.
    const BYTES_MAX: usize = 256 * 1024;
    let config = bincode::config::standard().with_limit::<BYTES_MAX>();
    let (value, used) = bincode::decode_from_slice(bytes, config).ok()?;
    (used == bytes.len()).then_some(value)
}
