//! Our own service: each call is one question; a stream answers by the batch, in order.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use odometer_schemas::quota::{Answer, QuotaError};
use tonic::{Request, Response, Status, Streaming};

use super::batch::{self, BatchAnswer};
use super::convert::{IntoRequest, answer_of, status_of};
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

pub(super) async fn decide(quota: &Quota, message: impl IntoRequest) -> Result<Answer, QuotaError> {
    let request = message.into_request(&quota.meters)?;
    validate(&request)?;
    quota.decide(request).await
}

#[tonic::async_trait]
impl quota_server::Quota for Questions {
    type CheckStreamStream = Pin<Box<dyn Stream<Item = Result<BatchAnswer, Status>> + Send>>;

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
        request: Request<Streaming<Bytes>>,
    ) -> Result<Response<Self::CheckStreamStream>, Status> {
        let quota = self.0.clone();
        let answers = request.into_inner().then(move |message| {
            let quota = quota.clone();
            async move {
                // Whoever sends without end shares the thread with others.
                tokio::task::coop::consume_budget().await;
                batch::answer(&quota, message?).await
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
