//! Why a whole request was refused, as RFC 9457 writes it.

use std::borrow::Cow;

use axum::http::StatusCode;
use serde::Serialize;

/// The kinds of whole-request refusals; each has one status and one `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The body is larger than allowed, before or after inflating.
    BodyTooLarge,
    /// The request holds more events than allowed, or they make more records.
    TooManyRecords,
    /// The content type is absent or not one that is read here.
    UnsupportedMediaType,
    /// The content encoding is not one that is read here.
    UnsupportedEncoding,
    /// The body cannot be read as what its headers say.
    UnreadableBody,
    /// The body is JSON, but neither an object nor an array.
    WrongShape,
    /// A sealed envelope that may not enter the log.
    EnvelopeRefused,
    /// A part of the request's address is wrong.
    BadParameter,
    /// Every event was refused.
    AllRefused,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body broke off.
    BodyBroken,
    /// As many requests are under way as are allowed.
    Overloaded,
    /// The log did not take everything.
    LogUnavailable,
    /// Our own fault.
    Internal,
}

impl ProblemKind {
    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BodyTooLarge | Self::TooManyRecords => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType | Self::UnsupportedEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::UnreadableBody | Self::WrongShape | Self::EnvelopeRefused | Self::BadParameter => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::AllRefused | Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Overloaded | Self::LogUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The `type`: a URI reference that never changes.
    #[must_use]
    pub const fn uri(self) -> &'static str {
        match self {
            Self::BodyTooLarge => "/problems/body-too-large",
            Self::TooManyRecords => "/problems/too-many-records",
            Self::UnsupportedMediaType => "/problems/unsupported-media-type",
            Self::UnsupportedEncoding => "/problems/unsupported-encoding",
            Self::UnreadableBody => "/problems/unreadable-body",
            Self::WrongShape => "/problems/wrong-shape",
            Self::EnvelopeRefused => "/problems/envelope-refused",
            Self::BadParameter => "/problems/bad-parameter",
            Self::AllRefused => "/problems/all-refused",
            Self::BodyTimeout => "/problems/body-timeout",
            Self::BodyBroken => "/problems/body-broken",
            Self::Overloaded => "/problems/overloaded",
            Self::LogUnavailable => "/problems/log-unavailable",
            Self::Internal => "/problems/internal",
        }
    }

    /// The `title`: the same for every occurrence.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::BodyTooLarge => "The body is too large",
            Self::TooManyRecords => "The request holds too many records",
            Self::UnsupportedMediaType => "The content type is not supported",
            Self::UnsupportedEncoding => "The content encoding is not supported",
            Self::UnreadableBody => "The body cannot be read",
            Self::WrongShape => "The body has the wrong shape",
            Self::EnvelopeRefused => "The envelope may not enter the log",
            Self::BadParameter => "A parameter is wrong",
            Self::AllRefused => "Every event was refused",
            Self::BodyTimeout => "The body did not arrive in time",
            Self::BodyBroken => "The body broke off",
            Self::Overloaded => "Too many requests are under way",
            Self::LogUnavailable => "The log cannot take everything",
            Self::Internal => "The gateway failed",
        }
    }
}

/// A request that was refused as a whole. Nothing of it was stored, unless the kind
/// is [`ProblemKind::LogUnavailable`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", kind.title())]
pub struct Problem {
    /// What kind of refusal.
    pub kind: ProblemKind,
    /// What is wrong in this request.
    pub detail: Cow<'static, str>,
    /// What would be right.
    pub fix: Cow<'static, str>,
    /// The header, parameter or field to blame.
    pub field: Option<Cow<'static, str>>,
    /// The event or record to blame.
    pub index: Option<usize>,
    /// Line and column in the body, from 1, where it cannot be read.
    pub at: Option<(usize, usize)>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    fix: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
}

impl Problem {
    pub(super) fn new(
        kind: ProblemKind,
        detail: impl Into<Cow<'static, str>>,
        fix: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { kind, detail: detail.into(), fix: fix.into(), field: None, index: None, at: None }
    }

    pub(super) fn field(self, field: impl Into<Cow<'static, str>>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    pub(super) fn index(self, index: usize) -> Self {
        Self { index: Some(index), ..self }
    }

    /// The `application/problem+json` body.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let body = Body {
            r#type: self.kind.uri(),
            title: self.kind.title(),
            status: self.kind.status().as_u16(),
            detail: &self.detail,
            fix: &self.fix,
            field: self.field.as_deref(),
            index: self.index,
            line: self.at.map(|(line, _)| line),
            column: self.at.map(|(_, column)| column),
        };
        serde_json::to_vec(&body).expect("texts and numbers always serialise")
    }
}
