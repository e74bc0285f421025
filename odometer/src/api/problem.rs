//! Errors as problem+json (RFC 9457): what is wrong, with which parameter, and what
//! would be right. The kinds and their `type`s never change.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use odometer_sink::BookError;
use serde::Serialize;

/// What `Retry-After` says, in seconds: a book that is busy is free well within one.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

/// The media type of every problem.
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";

/// The kinds of errors; each has one status and one `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProblemKind {
    /// A query parameter or a part of the path cannot be used.
    BadParameter,
    /// The answer would be larger than is given at once.
    AnswerTooLarge,
    /// The query string is longer than is read.
    QueryTooLong,
    /// Nothing is served at this path.
    NotFound,
    /// The path is served, but not for this method.
    MethodNotAllowed,
    /// A book cannot be read now.
    BookUnavailable,
    /// The node that counts the tenant is not ready to answer.
    Recovering,
    /// A book holds something that does not read back.
    BookDamaged,
    /// The body is not what the route takes.
    BodyUnreadable,
    /// The body is longer than any that the route takes.
    BodyTooLarge,
    /// The body is not JSON.
    UnsupportedMediaType,
    /// A field of the body breaks a rule.
    BadField,
    /// There is no such reservation, plan or tenant.
    Unknown,
    /// The id was used for something else.
    IdReused,
    /// The reservation is over.
    ReservationEnded,
    /// Quota cannot be decided now.
    QuotaUnavailable,
}

impl ProblemKind {
    const fn status(self) -> StatusCode {
        match self {
            Self::BadParameter | Self::AnswerTooLarge | Self::BodyUnreadable | Self::BadField => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::IdReused | Self::ReservationEnded => StatusCode::CONFLICT,
            Self::QueryTooLong => StatusCode::URI_TOO_LONG,
            Self::NotFound | Self::Unknown => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BookUnavailable | Self::Recovering | Self::QuotaUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::BookDamaged => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// A URI reference that never changes.
    const fn uri(self) -> &'static str {
        match self {
            Self::BadParameter => "/problems/bad-parameter",
            Self::AnswerTooLarge => "/problems/answer-too-large",
            Self::QueryTooLong => "/problems/query-too-long",
            Self::NotFound => "/problems/not-found",
            Self::MethodNotAllowed => "/problems/method-not-allowed",
            Self::BookUnavailable => "/problems/book-unavailable",
            Self::Recovering => "/problems/recovering",
            Self::BookDamaged => "/problems/book-damaged",
            Self::BodyUnreadable => "/problems/unreadable-body",
            Self::BodyTooLarge => "/problems/body-too-large",
            Self::UnsupportedMediaType => "/problems/unsupported-media-type",
            Self::BadField => "/problems/bad-field",
            Self::Unknown => "/problems/unknown",
            Self::IdReused => "/problems/id-reused",
            Self::ReservationEnded => "/problems/reservation-ended",
            Self::QuotaUnavailable => "/problems/quota-unavailable",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::BadParameter => "A parameter is wrong",
            Self::AnswerTooLarge => "The answer is too large",
            Self::QueryTooLong => "The query string is too long",
            Self::NotFound => "Nothing is served here",
            Self::MethodNotAllowed => "The method is not allowed here",
            Self::BookUnavailable => "A book cannot be read now",
            Self::Recovering => "The tenant's counters are being recovered",
            Self::BookDamaged => "A book is damaged",
            Self::BodyUnreadable => "The body cannot be read",
            Self::BodyTooLarge => "The body is too large",
            Self::UnsupportedMediaType => "The content type is not supported",
            Self::BadField => "A field is wrong",
            Self::Unknown => "It is not known",
            Self::IdReused => "The id was used for another request",
            Self::ReservationEnded => "The reservation has ended",
            Self::QuotaUnavailable => "Quota cannot be decided now",
        }
    }
}

/// What went wrong, for the caller.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    #[serde(skip)]
    kind: ProblemKind,
    detail: Cow<'static, str>,
    /// What would be right.
    fix: Cow<'static, str>,
    /// The parameter to blame.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

impl Problem {
    pub(crate) fn new(
        kind: ProblemKind,
        detail: impl Into<Cow<'static, str>>,
        fix: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { kind, detail: detail.into(), fix: fix.into(), field: None }
    }

    /// A parameter that cannot be used, and what could be.
    pub(crate) fn parameter(
        field: impl Into<String>,
        detail: impl Into<Cow<'static, str>>,
        fix: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(ProblemKind::BadParameter, detail, fix).field(field)
    }

    pub(crate) fn field(self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    pub(crate) const fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// The body as it is sent.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let kind = self.kind;
        let body = Body { r#type: kind.uri(), title: kind.title(), status: kind.status().as_u16(), problem: self };
        serde_json::to_vec(&body).expect("texts and numbers always serialise")
    }
}

impl From<BookError> for Problem {
    fn from(error: BookError) -> Self {
        if let BookError::OutOfRange { what } = error {
            return Self::new(
                ProblemKind::AnswerTooLarge,
                what,
                "ask for a shorter time, a wider window or one tenant",
            );
        }
        tracing::error!(source = ?std::error::Error::source(&error), "a question could not be answered: {error}");
        if error.is_retryable() {
            return Self::new(ProblemKind::BookUnavailable, error.to_string(), "ask again as Retry-After says");
        }
        Self::new(ProblemKind::BookDamaged, error.to_string(), "run `odometer verify`, which names every difference")
    }
}

/// The members that RFC 9457 gives a name, and ours.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    #[serde(flatten)]
    problem: &'a Problem,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, body) = (self.status(), self.to_json());
        let content_type = HeaderValue::from_static(CONTENT_TYPE);
        let mut response = (status, [(header::CONTENT_TYPE, content_type)], body).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_S);
        }
        response
    }
}
