//! One sealed envelope of a remote emitter in; the first rule that it breaks out.

use odometer_schemas::envelope::{Decoded, Usage, decode};
use odometer_schemas::partition::partition_of;
use odometer_schemas::record::IdRef;

use super::problem::{Problem, ProblemKind};

/// The content type of a sealed envelope.
pub const ENVELOPE_CONTENT_TYPE: &str = "application/vnd.odometer.envelope";

/// Checks an envelope that is to stand in `partition` of `partitions`. An unknown
/// meter does not count here: the envelope holds other callers' records too, so that
/// record alone is rejected by verdict.
///
/// # Errors
/// 422 that names what is wrong; the envelope must not enter the log then.
pub fn check_envelope(bytes: &[u8], partition: u32, partitions: u32) -> Result<(), Problem> {
    if partition >= partitions {
        let detail = format!("partition {partition} is not one of the log's {partitions}");
        return Err(Problem::new(ProblemKind::BadParameter, detail, "ask GET /v1/log").field("partition"));
    }
    match decode(bytes) {
        Ok(Decoded::Usage(usage)) => check_usage(&usage, partition, partitions),
        Ok(Decoded::Control(_)) => {
            Err(refused("kind", "the envelope holds a control record, which only a node may write", "send usage"))
        }
        Err(e) => Err(refused("envelope", format!("the envelope cannot be read: {e}"), "send it as it was sealed")),
    }
}

fn check_usage(usage: &Usage<'_>, partition: u32, partitions: u32) -> Result<(), Problem> {
    let strings = usage.strings();
    for scope in usage.scopes() {
        let tenant = strings[scope.tenant];
        let own = partition_of(tenant, partitions);
        if own != partition {
            let detail = format!("tenant `{tenant}` belongs to partition {own}, not {partition}");
            return Err(refused("tenant", detail, "seal each partition's records on their own"));
        }
    }
    for (index, record) in usage.records().enumerate() {
        if let Some(Err(e)) = record.time.map(|time| time.checked()) {
            return Err(refused("time", format!("the record's time {e}"), "give the event's own time").index(index));
        }
        if matches!(record.id, IdRef::Emitted(id) if id.source == 0) {
            let detail = "the record has no id and the envelope no source to make one from";
            return Err(refused("source", detail, "give an id, or the emitter's random source").index(index));
        }
    }
    Ok(())
}

fn refused(field: &'static str, detail: impl Into<std::borrow::Cow<'static, str>>, fix: &'static str) -> Problem {
    Problem::new(ProblemKind::EnvelopeRefused, detail, fix).field(field)
}
