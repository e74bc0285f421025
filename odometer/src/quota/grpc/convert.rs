//! Messages in, checked requests out; answers and errors in, messages and statuses out.

use odometer_schemas::quota::{
    Answer, Check, Commit, Decision, Durability, Extend, Item, LimitState, QuotaError, Release, Reserve, Who,
};
use tonic::Status;

use super::proto::quota as wire;
use crate::quota::body::random_id;
use crate::quota::meters::Meters;
use crate::quota::service::QuotaRequest;

/// A message as a request; its lengths are not checked yet.
pub(super) trait IntoRequest {
    /// # Errors
    /// [`QuotaError::Invalid`] when an amount is missing or cannot be read.
    fn into_request(self, meters: &Meters) -> Result<QuotaRequest, QuotaError>;
}

impl IntoRequest for wire::CheckRequest {
    fn into_request(self, meters: &Meters) -> Result<QuotaRequest, QuotaError> {
        Ok(QuotaRequest::Check(Check { who: who(self.who), items: items(self.items, meters)? }))
    }
}

impl IntoRequest for wire::ReserveRequest {
    fn into_request(self, meters: &Meters) -> Result<QuotaRequest, QuotaError> {
        let durability = durability(self.mode)?;
        let id = if self.id.is_empty() { random_id() } else { self.id };
        let (who, items) = (who(self.who), items(self.items, meters)?);
        Ok(QuotaRequest::Reserve(Reserve { id, who, ttl_ms: self.ttl_ms, items, durability }))
    }
}

impl IntoRequest for wire::ExtendRequest {
    fn into_request(self, meters: &Meters) -> Result<QuotaRequest, QuotaError> {
        let (durability, add) = (durability(self.mode)?, items(self.add, meters)?);
        let Self { tenant, id, op_id, ttl_ms, .. } = self;
        Ok(QuotaRequest::Extend(Extend { tenant, id, op_id, ttl_ms, add, durability }))
    }
}

impl IntoRequest for wire::CommitRequest {
    fn into_request(self, meters: &Meters) -> Result<QuotaRequest, QuotaError> {
        let (durability, items) = (durability(self.mode)?, items(self.items, meters)?);
        let Self { tenant, id, op_id, r#final: is_final, .. } = self;
        Ok(QuotaRequest::Commit(Commit { tenant, id, op_id, items, is_final, durability }))
    }
}

impl IntoRequest for wire::ReleaseRequest {
    fn into_request(self, _: &Meters) -> Result<QuotaRequest, QuotaError> {
        let durability = durability(self.mode)?;
        let Self { tenant, id, op_id, .. } = self;
        Ok(QuotaRequest::Release(Release { tenant, id, op_id, durability }))
    }
}

fn who(who: Option<wire::Who>) -> Who {
    let wire::Who { tenant, subject, key } = who.unwrap_or_default();
    let some = |text: String| (!text.is_empty()).then_some(text);
    Who { tenant, subject: some(subject), key: some(key) }
}

fn items(items: Vec<wire::Item>, meters: &Meters) -> Result<Vec<Item>, QuotaError> {
    let item = |item: wire::Item| {
        let amount = match item.amount {
            Some(wire::item::Amount::BaseUnits(amount)) => amount,
            Some(wire::item::Amount::Decimal(text)) => meters.parse("amount", &item.meter, &text)?,
            None => {
                let problem = format!("of `{}` is missing; set base_units or decimal", item.meter);
                return Err(QuotaError::Invalid { field: "amount", problem });
            }
        };
        Ok(Item { meter: item.meter, amount })
    };
    items.into_iter().map(item).collect()
}

fn durability(mode: i32) -> Result<Durability, QuotaError> {
    match wire::Mode::try_from(mode) {
        Ok(wire::Mode::Strict) => Ok(Durability::Strict),
        Ok(wire::Mode::Fast) => Ok(Durability::Fast),
        Err(_) => Err(QuotaError::Invalid { field: "mode", problem: format!("must be STRICT or FAST, not {mode}") }),
    }
}

/// A decision on the wire.
pub(super) fn decision_of(decision: Decision) -> wire::Decision {
    match decision {
        Decision::Allow => wire::Decision::Allow,
        Decision::Grace => wire::Decision::Grace,
        Decision::Deny => wire::Decision::Deny,
    }
}

/// An answer on the wire.
pub(super) fn answer_of(answer: Answer, meters: &Meters) -> wire::Answer {
    wire::Answer {
        decision: decision_of(answer.decision).into(),
        reservation_id: answer.reservation_id.unwrap_or_default(),
        expires_at_ms: answer.expires_at.map(|time| time.0),
        limits: answer.limits.into_iter().map(|limit| limit_of(limit, meters)).collect(),
        violated: answer.violated,
        as_of_ms: answer.as_of.0,
        lag_ms: answer.lag_ms,
        degraded: answer.degraded,
        late: answer.late,
    }
}

fn limit_of(limit: LimitState, meters: &Meters) -> wire::LimitState {
    wire::LimitState {
        unit: meters.base_unit(&limit.meter).to_owned(),
        policy: limit.policy,
        scope: limit.scope.name().to_owned(),
        meter: limit.meter,
        limit: limit.limit,
        hard_limit: limit.hard_limit,
        used: limit.used,
        reserved: limit.reserved,
        remaining: limit.remaining,
        resets_at_ms: limit.resets_at.map(|time| time.0),
    }
}

/// An error as a status: the same kinds as over HTTP.
pub(super) fn status_of(error: &QuotaError) -> Status {
    let text = error.to_string();
    match error {
        QuotaError::Invalid { .. } => Status::invalid_argument(text),
        QuotaError::Reused { .. } => Status::already_exists(text),
        QuotaError::Unknown { .. } => Status::not_found(text),
        QuotaError::Ended { .. } => Status::failed_precondition(text),
        QuotaError::Unavailable { .. } => Status::unavailable(text),
    }
}
