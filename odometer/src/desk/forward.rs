//! What nodes say to each other: a question goes to the owner with the epoch in which it is
//! known to own; whoever does not own any more says who does.

use odometer_schemas::quota::{Answer, Plan, QuotaError, TenantTerms};

/// The route that takes questions of other nodes: the epoch in which the asked node is taken
/// to own the tenant's partition, and a [`QuotaRequest`](crate::quota::service::QuotaRequest).
pub(crate) const ROUTE: &str = "/v1/quota/forward";
/// The route where other nodes ask what a tenant, whose name is the body, was given.
pub(crate) const TERMS_ROUTE: &str = "/v1/quota/forward/terms";

/// Who answers for a partition.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct Owner {
    /// Each owner's is larger than that of the one before.
    pub(crate) epoch: u64,
    /// Where it answers.
    pub(crate) url: String,
}

/// What one node answers another.
#[derive(Debug, bincode::Encode, bincode::Decode)]
pub(crate) enum Reply {
    /// What the owner says.
    Owner(Word),
    /// Another node owns the partition, or none.
    NotOwner { successor: Option<Owner> },
}

/// What an owner says to a question.
#[derive(Debug, bincode::Encode, bincode::Decode)]
pub(crate) enum Word {
    Decided(Answer),
    Invalid { field: String, problem: String },
    Reused { id: String },
    Unknown { id: String },
    Ended { id: String },
    Unavailable { why: String },
}

impl Word {
    pub(super) fn into_result(self) -> Result<Answer, QuotaError> {
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

impl From<Result<Answer, QuotaError>> for Word {
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

/// What an owner says of a tenant.
#[derive(bincode::Encode, bincode::Decode)]
pub(crate) struct Told {
    pub(crate) plans: Vec<Plan>,
    pub(crate) terms: TenantTerms,
    /// None: calendar months.
    pub(crate) anchor_ms: Option<i64>,
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
