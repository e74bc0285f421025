//! Headers in, the body's form out: what kind of events it holds and how they stand
//! in it. Looks at no byte of the body.

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;

use super::problem::{Problem, ProblemKind};

/// Which path a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `/v1/events`: the tenant is the attribute `tenant`, else the `subject`.
    Native,
    /// `/api/v1/events`, where OpenMeter clients post: every event is a CloudEvent
    /// and its `subject` is the tenant.
    OpenMeter,
}

/// How events stand in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One object or an array of objects, native records or CloudEvents.
    Json,
    /// One object a line, native records or CloudEvents.
    Ndjson,
    /// One CloudEvent.
    Structured,
    /// An array of CloudEvents.
    Batch,
    /// The attributes are headers; the body is the data.
    Binary,
}

/// The start of the name of every header that is a CloudEvents attribute.
pub(super) const ATTRIBUTE_PREFIX: &str = "ce-";

const FIX: &str = "send application/json, application/x-ndjson, application/cloudevents+json, \
                   application/cloudevents-batch+json, or any type with ce- headers";

/// The form that the headers state.
///
/// # Errors
/// 415 when the content type is absent, unknown, or in another charset than UTF-8.
pub(super) fn form_of(headers: &HeaderMap) -> Result<Form, Problem> {
    let media = match headers.get(CONTENT_TYPE) {
        None => None,
        Some(value) => Some(value.to_str().ok().and_then(MediaType::parse).ok_or_else(|| refused("is malformed"))?),
    };
    let is_binary = headers.keys().any(|name| name.as_str().starts_with(ATTRIBUTE_PREFIX));
    let essence = media.as_ref().map(|m| m.essence.as_str());
    let form = match essence {
        Some("application/cloudevents+json") => Form::Structured,
        Some("application/cloudevents-batch+json") => Form::Batch,
        // The HTTP binding: any such type is structured mode, and this format is not known here.
        Some(essence) if essence.starts_with("application/cloudevents") => {
            return Err(refused("names a CloudEvents format other than JSON"));
        }
        _ if is_binary => Form::Binary,
        Some("application/json") => Form::Json,
        Some("application/x-ndjson" | "application/ndjson") => Form::Ndjson,
        Some(_) => return Err(refused("is not one that is read here")),
        None => return Err(refused("is absent")),
    };
    let must_be_utf8 = form != Form::Binary || media.as_ref().is_none_or(MediaType::is_json);
    if must_be_utf8 && media.is_some_and(|m| !m.is_utf8()) {
        return Err(refused("names a charset other than UTF-8"));
    }
    Ok(form)
}

fn refused(what: &'static str) -> Problem {
    Problem::new(ProblemKind::UnsupportedMediaType, format!("the content type {what}"), FIX).field("content-type")
}

/// A content type: `type/subtype` in lower case, and its charset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MediaType {
    pub(super) essence: String,
    charset: Option<String>,
}

impl MediaType {
    /// Reads a content type; `None` when the text is not one (RFC 9110, section 8.3.1).
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';');
        let essence = parts.next()?.trim().to_ascii_lowercase();
        let (kind, subtype) = essence.split_once('/')?;
        if !is_token(kind) || !is_token(subtype) {
            return None;
        }
        let mut charset = None;
        for parameter in parts {
            let Some((name, value)) = parameter.split_once('=') else { continue };
            if name.trim().eq_ignore_ascii_case("charset") {
                charset = Some(value.trim().trim_matches('"').to_ascii_lowercase());
            }
        }
        Some(Self { essence, charset })
    }

    /// Whether it declares JSON: the subtype is `json` or ends in `+json`.
    pub(super) fn is_json(&self) -> bool {
        self.essence.ends_with("/json") || self.essence.ends_with("+json")
    }

    /// Whether its text is UTF-8; US-ASCII is a part of it.
    fn is_utf8(&self) -> bool {
        matches!(self.charset.as_deref(), None | Some("utf-8" | "utf8" | "us-ascii"))
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(content_type: Option<&str>, attribute: Option<&'static str>) -> Option<Form> {
        let mut headers = HeaderMap::new();
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        }
        if let Some(attribute) = attribute {
            headers.insert(attribute, "x".parse().unwrap());
        }
        form_of(&headers).ok()
    }

    #[test]
    fn headers_decide_the_form() {
        assert_eq!(form(Some("application/json"), None), Some(Form::Json));
        assert_eq!(form(Some("Application/JSON; Charset=\"UTF-8\""), None), Some(Form::Json));
        assert_eq!(form(Some("application/x-ndjson"), None), Some(Form::Ndjson));
        assert_eq!(form(Some("application/cloudevents+json"), Some("ce-id")), Some(Form::Structured));
        assert_eq!(form(Some("application/cloudevents-batch+json"), None), Some(Form::Batch));
        assert_eq!(form(Some("image/png"), Some("ce-specversion")), Some(Form::Binary));
        assert_eq!(form(Some("text/plain; charset=latin1"), Some("ce-id")), Some(Form::Binary));
        assert_eq!(form(None, Some("ce-id")), Some(Form::Binary));
    }

    #[test]
    fn what_is_not_read_is_refused() {
        let cases = [
            (None, None),
            (Some("text/plain"), None),
            (Some("json"), None),
            (Some("application/json; charset=latin1"), None),
            (Some("application/json; charset=utf-16"), Some("ce-id")),
            (Some("application/cloudevents+avro"), Some("ce-id")),
            (Some("application/cloudevents"), None),
        ];
        for (content_type, attribute) in cases {
            assert_eq!(form(content_type, attribute), None, "{content_type:?}");
        }
    }
}
