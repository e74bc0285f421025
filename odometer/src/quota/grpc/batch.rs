//! Checks by the batch: a message's bytes come in, and its answer goes out. What one
//! counter decides is decided at once for the whole batch; the rest goes the way of a
//! single check.

use bytes::{Buf as _, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use super::BATCH_CHECKS_MAX;
use super::convert::{answer_of, decision_of, status_of};
use super::proto::quota as wire;
use super::read::{Batch, Check};
use super::service::decide;
use crate::quota::Quota;

/// Bytes of answers that are sent together, if more are ready: those of a few large
/// batches, so that nobody waits for the answers to many.
const ANSWERS_BYTES: usize = 4096;
const BUFFER_BYTES: usize = 8192;

/// A `CheckBatchAnswer`. Packed decisions are bytes, as long as no decision has a number
/// above 127.
#[derive(Clone, PartialEq, Message)]
pub(super) struct BatchAnswer {
    #[prost(uint64, tag = "1")]
    tag: u64,
    #[prost(bytes = "vec", tag = "2")]
    decisions: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    answers: Vec<wire::Answer>,
    #[prost(message, repeated, tag = "4")]
    errors: Vec<wire::CheckError>,
}

/// Hands batches over as they are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BatchCodec;

impl Codec for BatchCodec {
    type Encode = BatchAnswer;
    type Decode = Bytes;
    type Encoder = ProstEncoder<BatchAnswer>;
    type Decoder = Self;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(BUFFER_BYTES, ANSWERS_BYTES))
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Decoder for BatchCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buf.copy_to_bytes(buf.remaining())))
    }
}

/// Answers one batch.
///
/// # Errors
/// For a message that is none, or has too many checks.
pub(super) async fn answer(quota: &Quota, message: Bytes) -> Result<BatchAnswer, Status> {
    let batch = Batch::read(&message).map_err(|error| not_a_message(&error))?;
    let checks = batch.checks.len();
    if checks > BATCH_CHECKS_MAX {
        let text = format!("checks has {checks} entries; at most {BATCH_CHECKS_MAX} are answered together");
        return Err(Status::invalid_argument(text));
    }
    let mut answer = BatchAnswer { tag: batch.tag, ..BatchAnswer::default() };
    answer.decisions.reserve(checks);
    if batch.with_answers {
        for check in batch.checks {
            answer.add(quota, check, true).await?;
        }
        return Ok(answer);
    }
    let decided = quota.may_use(&batch.asks);
    for (check, decided) in batch.checks.into_iter().zip(decided) {
        match decided {
            Some(decision) => answer.decisions.push(number(decision_of(decision))),
            None => answer.add(quota, check, false).await?,
        }
    }
    Ok(answer)
}

impl BatchAnswer {
    /// Decides the next check like a single one.
    async fn add(&mut self, quota: &Quota, check: Check<'_>, with_answer: bool) -> Result<(), Status> {
        let decided = decide(quota, check.into_message().map_err(|error| not_a_message(&error))?).await;
        let whole = match decided {
            Ok(decided) => {
                self.decisions.push(number(decision_of(decided.decision)));
                with_answer.then(|| answer_of(decided, &quota.meters))
            }
            Err(error) => {
                let status = status_of(&error);
                let (code, message) = (status.code().into(), status.message().to_owned());
                let index = u32::try_from(self.decisions.len()).unwrap_or(u32::MAX);
                self.errors.push(wire::CheckError { index, code, message });
                self.decisions.push(number(wire::Decision::Undecided));
                with_answer.then(wire::Answer::default)
            }
        };
        self.answers.extend(whole);
        Ok(())
    }
}

#[inline]
fn number(decision: wire::Decision) -> u8 {
    decision as u8
}

/// As for every other call.
fn not_a_message(error: &prost::DecodeError) -> Status {
    Status::internal(error.to_string())
}
