//! The table of malformed requests: what its rows are made of.

use super::Case;
use super::Expected::{self, Problem};
use super::{bodies, envelopes, events, fields};
use crate::support::Call;

pub(super) const JSON: &str = "application/json";
pub(super) const NDJSON: &str = "application/x-ndjson";
pub(super) const STRUCTURED: &str = "application/cloudevents+json";
pub(super) const BATCH: &str = "application/cloudevents-batch+json";
pub(super) const ENVELOPE: &str = "application/vnd.odometer.envelope";

pub(super) const UNREADABLE: Expected = Problem(422, "unreadable-body", None);
pub(super) const SHAPE: Expected = Problem(422, "wrong-shape", None);
pub(super) const MEDIA: Expected = Problem(415, "unsupported-media-type", Some("content-type"));
pub(super) const ENCODING: Expected = Problem(415, "unsupported-encoding", Some("content-encoding"));
pub(super) const DAMAGED: Expected = Problem(422, "unreadable-body", Some("content-encoding"));
pub(super) const TOO_LARGE: Expected = Problem(413, "body-too-large", None);
pub(super) const TOO_MANY: Expected = Problem(413, "too-many-records", None);

/// All cases, for a log of `partitions`.
pub(crate) fn all(partitions: u32) -> Vec<Case> {
    let mut cases = bodies::all();
    cases.extend(fields::all());
    cases.extend(events::all());
    cases.extend(envelopes::all(partitions));
    cases
}

pub(super) fn case(name: impl Into<String>, call: Call, expected: Expected) -> Case {
    Case { name: name.into(), call, expected }
}

/// A JSON object of `members` with `name` replaced by, or added as, `value`; no
/// value leaves it out.
pub(super) fn object(members: &[(&str, &str)], name: &str, value: Option<&str>) -> String {
    let kept = members.iter().filter(|(known, _)| *known != name).map(|(name, value)| format!("\"{name}\":{value}"));
    let own = value.map(|value| format!("\"{name}\":{value}"));
    format!("{{{}}}", kept.chain(own).collect::<Vec<_>>().join(","))
}

pub(super) const RECORD: [(&str, &str); 4] =
    [("id", "\"bad\""), ("tenant", "\"acme\""), ("meter", "\"api_call\""), ("quantity", "1")];

pub(super) fn native(name: &str, value: Option<&str>) -> String {
    object(&RECORD, name, value)
}

pub(super) fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}
