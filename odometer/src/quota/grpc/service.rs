//! Our own service: each call is one question; a stream answers by the batch, in order.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use odometer_schemas::quota::{Answer, QuotaError};
use tonic::{Request, Response, Status, Streaming};

use super::BATCH_CHECKS_MAX;
use super::convert::{IntoRequest, answer_of, decision_of, status_of};
use super::proto::quota as wire;
use super::proto::quota::quota_server;
use crate::quota::Quota;
use crate::quota::validate::validate;

/// What answers.
pub(super) struct Questions(Quota);

impl Questions {
    pub(super) fn new(quota: Quota) -> Self {
        Self(quota)
    }

    async fn answer(&self, message: impl IntoRequest) -> Result<Response<wire::Answer>, Status> {
        let answer = decide(&self.0, message).await.map_err(|error| status_of(&error))?;
        Ok(Response::new(answer_of(answer, &self.0.meters)))
    }
}

async fn decide(quota: &Quota, message: impl IntoRequest) -> Result<Answer, QuotaError> {
    let request = message.into_request(&quota.meters)?;
    validate(&request)?;
    quota.decide(request).await
}

async fn batch(quota: &Quota, batch: wire::CheckBatch) -> Result<wire::CheckBatchAnswer, Status> {
    let checks = batch.checks.len();
    if checks > BATCH_CHECKS_MAX {
        let text = format!("checks has {checks} entries; at most {BATCH_CHECKS_MAX} are answered together");
        return Err(Status::invalid_argument(text));
    }
    let mut answer = wire::CheckBatchAnswer { tag: batch.tag, ..wire::CheckBatchAnswer::default() };
    answer.decisions.reserve(checks);
    for (index, check) in (0_u32..).zip(batch.checks) {
        match decide(quota, check).await {
            Ok(decided) => {
                answer.decisions.push(decision_of(decided.decision).into());
                if batch.with_answers {
                    answer.answers.push(answer_of(decided, &quota.meters));
                }
            }
            Err(error) => {
                let status = status_of(&error);
                let (code, message) = (status.code().into(), status.message().to_owned());
                answer.errors.push(wire::CheckError { index, code, message });
                answer.decisions.push(wire::Decision::Undecided.into());
                if batch.with_answers {
                    answer.answers.push(wire::Answer::default());
                }
            }
        }
    }
    Ok(answer)
}

#[tonic::async_trait]
impl quota_server::Quota for Questions {
    type CheckStreamStream = Pin<Box<dyn Stream<Item = Result<wire::CheckBatchAnswer, Status>> + Send>>;

    async fn check(&self, request: Request<wire::CheckRequest>) -> Result<Response<wire::Answer>, Status> {
        self.answer(request.into_inner()).await
    }

    async fn reserve(&self, request: Request<wire::ReserveRequest>) -> Result<Response<wire::Answer>, Status> {
        self.answer(request.into_inner()).await
    }

    async fn extend(&self, request: Request<wire::ExtendRequest>) -> Result<Response<wire::Answer>, Status> {
        self.answer(request.into_inner()).await
    }

    async fn commit(&self, request: Request<wire::CommitRequest>) -> Result<Response<wire::Answer>, Status> {
        self.answer(request.into_inner()).await
    }

    async fn release(&self, request: Request<wire::ReleaseRequest>) -> Result<Response<wire::Answer>, Status> {
        self.answer(request.into_inner()).await
    }

    async fn check_stream(
        &self,
        request: Request<Streaming<wire::CheckBatch>>,
    ) -> Result<Response<Self::CheckStreamStream>, Status> {
        let quota = self.0.clone();
        let answers = request.into_inner().then(move |message| {
            let quota = quota.clone();
            async move { batch(&quota, message?).await }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
