//! A log entry and the totals book's word on it in, what it is out. The two must
//! agree; where they do not, nothing is guessed.

use odometer_schemas::commit::ExceptionsRow;
use odometer_schemas::control::Control;
use odometer_schemas::envelope::{Decoded, Usage, decode, is_quota};
use odometer_schemas::log::LogEntry;
use odometer_schemas::verdict::{RejectReason, Verdict, unpack};

/// What a log entry turned out to be.
pub(super) enum Judged<'a> {
    /// Records and their verdicts; without verdicts all were accepted.
    Usage(Box<Usage<'a>>, Option<Vec<Verdict>>),
    /// A control record.
    Control(Box<Control<'a>>),
    /// Decisions about quota, which raw rows know nothing of.
    Quota,
    /// No envelope, or none that the aggregator knew.
    Rejected(Verdict),
}

/// Puts an entry and its exceptions together.
pub(super) fn judge<'a>(entry: &'a LogEntry, exceptions: Option<&ExceptionsRow>) -> Result<Judged<'a>, String> {
    let verdicts = exceptions.map(|row| {
        if row.offset != entry.offset {
            return Err(format!("the exceptions given are those of offset {}", row.offset));
        }
        unpack(&row.verdicts).ok_or_else(|| "the exceptions do not unpack".to_owned())
    });
    let verdicts = verdicts.transpose()?;
    // The aggregator's word holds even where a newer build could decode the entry.
    if let Some([verdict]) = verdicts.as_deref()
        && is_of_whole_entry(*verdict)
    {
        return Ok(Judged::Rejected(*verdict));
    }
    // Of which there are many: taking them apart would be for nothing.
    if verdicts.is_none() && is_quota(&entry.bytes) {
        return Ok(Judged::Quota);
    }
    match (decode(&entry.bytes), verdicts) {
        (Ok(Decoded::Control(control)), None) => Ok(Judged::Control(control)),
        (Ok(Decoded::Control(_)), Some(_)) => Err("a control record has exceptions".to_owned()),
        (Ok(Decoded::Usage(usage)), verdicts) => match &verdicts {
            Some(verdicts) if verdicts.len() != usage.len() => {
                Err(format!("{} records have {} verdicts", usage.len(), verdicts.len()))
            }
            _ => Ok(Judged::Usage(Box::new(usage), verdicts)),
        },
        (Err(error), _) => Err(format!("an entry that was not rejected does not decode: {error}")),
    }
}

fn is_of_whole_entry(verdict: Verdict) -> bool {
    use RejectReason::{ChecksumMismatch, EnvelopeTooLarge, MalformedBody, NotAnEnvelope, Truncated, UnknownVersion};
    matches!(
        verdict,
        Verdict::Rejected(
            NotAnEnvelope | UnknownVersion | Truncated | ChecksumMismatch | MalformedBody | EnvelopeTooLarge
        )
    )
}
