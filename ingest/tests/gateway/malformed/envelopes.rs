//! Malformed envelopes of remote emitters.

use odometer_schemas::control::Control;
use odometer_schemas::envelope::{EnvelopeBuilder, Origin, encode_control};
use odometer_schemas::partition::partition_of;
use odometer_schemas::quantity::Quantity;
use odometer_schemas::record::Record;
use odometer_schemas::time::TimeMs;

use super::Case;
use super::Expected::{self, Problem};
use super::table::*;
use crate::support::Call;

/// Sealed envelopes of remote emitters.
pub(super) fn all(partitions: u32) -> Vec<Case> {
    let own = partition_of("acme", partitions);
    let good = sealed(|_| ());
    let damaged = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let control = encode_control(&Control::Tick, Origin { source: 1, ..Origin::default() });
    let refused = |field| Problem(422, "envelope-refused", Some(field));
    let envelope = Some(own);
    let parameter = Problem(422, "bad-parameter", Some("partition"));
    let rows: Vec<(&str, Option<u32>, Vec<u8>, Expected)> = vec![
        ("an empty one", envelope, Vec::new(), refused("envelope")),
        ("truncated", envelope, good[..good.len() - 1].into(), refused("envelope")),
        ("a head only", envelope, good[..30].into(), refused("envelope")),
        ("a wrong checksum", envelope, damaged(good.len() - 1), refused("envelope")),
        ("a wrong magic", envelope, damaged(0), refused("envelope")),
        ("a future version", envelope, damaged(4), refused("envelope")),
        ("an unknown codec", envelope, damaged(5), refused("envelope")),
        ("an unknown kind", envelope, damaged(6), refused("envelope")),
        ("bytes after it", envelope, [good.as_slice(), b"x"].concat(), refused("envelope")),
        ("JSON", envelope, native("", None).into(), refused("envelope")),
        ("a control record", envelope, control, refused("kind")),
        ("a wrong partition", Some((own + 1) % partitions), good.clone(), refused("tenant")),
        ("a time in 1970", envelope, sealed(|r| r.time = Some(TimeMs(5))), refused("time")),
        ("no id and no source", envelope, sealed(|r| r.id = None), refused("source")),
        ("more bytes than an envelope has", envelope, vec![0; 64 * 1024 + 1], TOO_LARGE),
        ("a partition that is none", Some(partitions), good.clone(), parameter),
        ("no partition", None, good.clone(), parameter),
    ];
    let path = |partition: Option<u32>| match partition {
        Some(partition) => format!("/v1/envelopes?partition={partition}"),
        None => "/v1/envelopes".to_owned(),
    };
    let mut cases: Vec<Case> = rows
        .into_iter()
        .map(|(name, partition, bytes, expected)| {
            case(format!("envelope: {name}"), Call::new(ENVELOPE, bytes).to(&path(partition)), expected)
        })
        .collect();
    let call = |content_type: &str, path: &str| Call::new(content_type, good.clone()).to(path);
    cases.push(case("envelope: a partition in letters", call(ENVELOPE, "/v1/envelopes?partition=two"), parameter));
    cases.push(case("envelope: called JSON", call(JSON, &path(envelope)), MEDIA));
    cases.push(case("an envelope sent as events", call(ENVELOPE, "/v1/events"), MEDIA));
    cases
}

/// One sealed record of tenant `acme`, changed.
fn sealed(change: impl FnOnce(&mut Record)) -> Vec<u8> {
    let mut record = Record {
        tenant: "acme".into(),
        source: "worker".into(),
        id: Some("remote".into()),
        meter: "api_call".into(),
        quantity: Quantity(1),
        time: None,
        subject: None,
        dimensions: Vec::new(),
        reservation: None,
    };
    change(&mut record);
    let mut builder = EnvelopeBuilder::new();
    builder.push(&record).unwrap();
    builder.seal(Origin::default())
}
