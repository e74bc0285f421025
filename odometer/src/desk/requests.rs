//! Questions, whichever they are: whose, about which reservation, how durable, and how
//! they are put to the core.

use odometer_aggregator::LiveQuota;
use odometer_aggregator::quota::Outcome;
use odometer_schemas::digest::Hasher;
use odometer_schemas::quota::{Durability, Item, QuotaError, Reserve};
use odometer_schemas::time::TimeMs;

use crate::quota::service::QuotaRequest;

/// What a reservation of one meter takes as a text, mostly.
const BODY_BYTES: usize = 128;

pub(super) fn tenant_of(request: &QuotaRequest) -> &str {
    match request {
        QuotaRequest::Check(check) => &check.who.tenant,
        QuotaRequest::Reserve(reserve) => &reserve.who.tenant,
        QuotaRequest::Extend(extend) => &extend.tenant,
        QuotaRequest::Commit(commit) => &commit.tenant,
        QuotaRequest::Release(release) => &release.tenant,
    }
}

/// The reservation's id; empty for a check.
pub(super) fn reservation_of(request: &QuotaRequest) -> &str {
    match request {
        QuotaRequest::Check(_) => "",
        QuotaRequest::Reserve(reserve) => &reserve.id,
        QuotaRequest::Extend(extend) => &extend.id,
        QuotaRequest::Commit(commit) => &commit.id,
        QuotaRequest::Release(release) => &release.id,
    }
}

/// Whether it changes anything that the log must know.
pub(super) fn is_durable(request: &QuotaRequest) -> bool {
    !matches!(request, QuotaRequest::Check(_))
}

/// Whether its answer waits for the log.
pub(super) fn is_strict(request: &QuotaRequest) -> bool {
    let durability = match request {
        QuotaRequest::Check(_) => Durability::Fast,
        QuotaRequest::Reserve(reserve) => reserve.durability,
        QuotaRequest::Extend(extend) => extend.durability,
        QuotaRequest::Commit(commit) => commit.durability,
        QuotaRequest::Release(release) => release.durability,
    };
    durability == Durability::Strict
}

/// Puts a question to the core.
pub(super) fn ask<'a>(quota: &LiveQuota, request: &'a QuotaRequest, now: TimeMs) -> Result<Outcome<'a>, QuotaError> {
    match request {
        QuotaRequest::Check(check) => quota.check(check, now),
        QuotaRequest::Reserve(reserve) => quota.reserve(reserve, body_of(reserve), now),
        QuotaRequest::Extend(extend) => {
            let what = format!("extend\0{}\0{}", extend.ttl_ms, items(&extend.add));
            quota.extend(extend, op_of(&extend.op_id, &what), now)
        }
        QuotaRequest::Commit(commit) => {
            let what = format!("commit\0{}\0{}", commit.is_final, items(&commit.items));
            quota.commit(commit, op_of(&commit.op_id, &what), now)
        }
        QuotaRequest::Release(release) => quota.release(release, op_of(&release.op_id, "release"), now),
    }
}

/// Tells bodies of one reservation id apart; how durable the answer was asked to be is
/// no part of it.
fn body_of(reserve: &Reserve) -> u128 {
    let Reserve { id: _, who, ttl_ms, items: held, durability: _ } = reserve;
    let mut body = String::with_capacity(BODY_BYTES);
    body.extend([&who.tenant, "\0"]);
    for name in [&who.subject, &who.key] {
        body.extend(name.as_ref().map_or(["-", "", "\0"], |name| ["+", name, "\0"]));
    }
    body.extend([itoa::Buffer::new().format(*ttl_ms), "\0"]);
    append_items(held, &mut body);
    hash(&body)
}

fn items(items: &[Item]) -> String {
    let mut text = String::new();
    append_items(items, &mut text);
    text
}

/// Texts hold no control characters, so that no two lists read the same.
fn append_items(items: &[Item], text: &mut String) {
    for item in items {
        text.extend([&item.meter, "\u{1}", itoa::Buffer::new().format(item.amount), "\u{2}"]);
    }
}

/// The id in the high half, the body in the low one: another body under one id is
/// noticed.
fn op_of(op_id: &str, what: &str) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "a part of a hash is a hash")]
    let half = |text: &str| hash(text) as u32;
    u64::from(half(op_id)) << 32 | u64::from(half(what))
}

fn hash(text: &str) -> u128 {
    // Every node must find the same, whatever its configuration.
    Hasher::new(0).text(text).0
}

#[cfg(test)]
mod tests {
    use odometer_schemas::quota::Who;

    use super::*;

    #[test]
    fn a_body_has_the_same_fingerprint_for_ever() {
        let items = vec![Item { meter: "m".into(), amount: 7 }, Item { meter: "n".into(), amount: u64::MAX }];
        let who = Who { tenant: "acme".into(), subject: Some("ann".into()), key: None };
        let (id, durability) = ("r".into(), Durability::Fast);
        let reserve = Reserve { id, who, ttl_ms: 99, items, durability };
        let written = "acme\0+ann\0-\x0099\0m\u{1}7\u{2}n\u{1}18446744073709551615\u{2}";
        assert_eq!(body_of(&reserve), hash(written));
        let nobody = Reserve { who: Who { tenant: "acme".into(), ..Who::default() }, items: vec![], ..reserve };
        assert_eq!(body_of(&nobody), hash("acme\0-\0-\x0099\0"));
    }
}
