//! Errors as problem+json (RFC 9457).

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use odometer_sink::BookError;
use serde_json::json;

/// What went wrong, for the caller.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
    /// The offending query parameter or path part.
    field: Option<&'static str>,
}

impl Problem {
    /// A query parameter that cannot be used.
    pub(crate) fn parameter(field: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "/problems/invalid-parameter",
            title: "A query parameter cannot be used",
            detail: detail.into(),
            field: Some(field),
        }
    }
}

impl From<BookError> for Problem {
    fn from(error: BookError) -> Self {
        let (status, kind, title) = match &error {
            BookError::OutOfRange { .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, "/problems/answer-too-large", "The question is too large")
            }
            _ => (StatusCode::SERVICE_UNAVAILABLE, "/problems/book-unavailable", "A book cannot be read now"),
        };
        if status == StatusCode::SERVICE_UNAVAILABLE {
            tracing::error!("a book cannot be read: {error}");
        }
        Self { status, kind, title, detail: error.to_string(), field: None }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": self.kind,
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "field": self.field,
        });
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}
