//! Quota as a node decides it: questions out by HTTP, answers back. Asks once; whoever
//! asks repeats what was not answered.

use std::collections::BTreeMap;

use odometer_schemas::quota::Answer;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, StatusCode};

use super::super::http::{body_of, describe, reason_of, retry_after_of};
use super::{AskError, BoxFuture, Question, QuotaClient, wire};

/// Asks a node. [`HttpTransport::quota`](super::super::HttpTransport::quota) makes one.
#[derive(Clone, Debug)]
pub struct HttpQuota {
    client: Client,
    /// `{url}/v1/quota/reservations`.
    url: String,
    /// Digits after the decimal point of a meter's unit, where there are any.
    scales: BTreeMap<String, u8>,
}

impl HttpQuota {
    pub(in super::super) fn over(client: Client, url: String) -> Self {
        Self { client, url, scales: BTreeMap::new() }
    }

    /// The same, for a meter that is defined with this scale: a run's meter whose unit
    /// is the second has a scale of 3. Without it, base units and units are the same.
    #[must_use]
    pub fn with_scale(mut self, meter: impl Into<String>, scale: u8) -> Self {
        self.scales.insert(meter.into(), scale);
        self
    }

    async fn post(&self, question: &Question) -> Result<Answer, AskError> {
        let (path, body) = wire::written(question, &self.scales);
        let request = self.client.post(format!("{}{path}", self.url)).header(CONTENT_TYPE, "application/json");
        let unavailable = |error: reqwest::Error| AskError::Unavailable { why: describe(&error), retry_after: None };
        let response = request.body(body).send().await.map_err(unavailable)?;
        let (status, retry_after) = (response.status(), retry_after_of(&response));
        let body = body_of(response).await.map_err(unavailable)?;
        if let StatusCode::OK | StatusCode::TOO_MANY_REQUESTS = status {
            // What does not parse may have been decided, so the same may be asked again.
            let unread = |why| AskError::Unavailable { why: format!("{status}: {why}"), retry_after };
            return wire::read(&body).map_err(unread);
        }
        let why = reason_of(status, &body);
        Err(match (status, wire::problem_type(&body).as_deref()) {
            (StatusCode::REQUEST_TIMEOUT, _) => AskError::Unavailable { why, retry_after },
            _ if status.is_server_error() => AskError::Unavailable { why, retry_after },
            (_, Some("/problems/unknown" | "/problems/reservation-ended")) => AskError::Gone { why },
            _ => AskError::Refused { why },
        })
    }
}

impl QuotaClient for HttpQuota {
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Answer, AskError>> {
        Box::pin(async move { self.post(&question).await })
    }
}
