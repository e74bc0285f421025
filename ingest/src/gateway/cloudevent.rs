//! One CloudEvent in structured or binary form in, its attributes and data out.
//!
//! Checks what the specification says of every event (CloudEvents 1.0.2, its JSON
//! format and its HTTP binding); knows nothing of meters.

use std::borrow::Cow;

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use odometer_schemas::time::TimeMs;

use super::form::{ATTRIBUTE_PREFIX, MediaType};
use super::json::{self, Member, Value};
use super::record::{of_fault, text_field, time_of, value_of};
use super::refusal::{Refusal, RefusalCode, quoted};

/// The only version of the specification that is read here.
const SPEC_VERSION: &str = "1.0";

/// What one event says.
#[derive(Debug)]
pub(super) struct CloudEvent<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) source: Cow<'a, str>,
    pub(super) event_type: Cow<'a, str>,
    pub(super) subject: Option<Cow<'a, str>>,
    pub(super) tenant: Option<Cow<'a, str>>,
    pub(super) reservation: Option<Cow<'a, str>>,
    pub(super) time: Option<TimeMs>,
    /// The data as JSON text; none when there is none or it is opaque.
    pub(super) data: Option<Cow<'a, str>>,
}

/// The attributes that mean something here. All others are allowed and not kept.
#[derive(Debug, Default)]
struct Attributes<'a> {
    specversion: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    event_type: Option<Cow<'a, str>>,
    subject: Option<Cow<'a, str>>,
    tenant: Option<Cow<'a, str>>,
    reservation: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
    datacontenttype: Option<Cow<'a, str>>,
    dataschema: Option<Cow<'a, str>>,
}

impl<'a> Attributes<'a> {
    /// The place of attribute `name` and the name as a refusal writes it.
    fn slot(&mut self, name: &str) -> Option<(&'static str, &mut Option<Cow<'a, str>>)> {
        Some(match name {
            "specversion" => ("specversion", &mut self.specversion),
            "id" => ("id", &mut self.id),
            "source" => ("source", &mut self.source),
            "type" => ("type", &mut self.event_type),
            "subject" => ("subject", &mut self.subject),
            "tenant" => ("tenant", &mut self.tenant),
            "reservation" => ("reservation", &mut self.reservation),
            "time" => ("time", &mut self.time),
            "datacontenttype" => ("datacontenttype", &mut self.datacontenttype),
            "dataschema" => ("dataschema", &mut self.dataschema),
            _ => return None,
        })
    }

    /// Whether the data is JSON: so declared, or nothing declared.
    fn declares_json(&self) -> Result<bool, Refusal> {
        let Some(text) = &self.datacontenttype else { return Ok(true) };
        match MediaType::parse(text) {
            Some(media) => Ok(media.is_json()),
            None => Err(invalid("datacontenttype", "must be a media type such as `application/json`")),
        }
    }

    fn finish(self, data: Option<Cow<'a, str>>) -> Result<CloudEvent<'a>, Refusal> {
        let version = required("specversion", self.specversion)?;
        if version != SPEC_VERSION {
            let detail = format!("must be `{SPEC_VERSION}`, not `{}`", quoted(&version));
            return Err(invalid("specversion", &detail));
        }
        Ok(CloudEvent {
            id: required("id", self.id)?,
            source: required("source", self.source)?,
            event_type: required("type", self.event_type)?,
            subject: optional("subject", self.subject)?,
            tenant: optional("tenant", self.tenant)?,
            reservation: optional("reservation", self.reservation)?,
            time: self.time.as_deref().map(time_of).transpose()?,
            data: optional("dataschema", self.dataschema).and(Ok(data))?,
        })
    }
}

fn required<'a>(field: &'static str, value: Option<Cow<'a, str>>) -> Result<Cow<'a, str>, Refusal> {
    optional(field, value)?.ok_or_else(|| Refusal::missing(field))
}

fn optional<'a>(field: &'static str, value: Option<Cow<'a, str>>) -> Result<Option<Cow<'a, str>>, Refusal> {
    match value {
        Some(text) if text.is_empty() => Err(invalid(field, "must not be empty")),
        value => Ok(value),
    }
}

fn invalid(field: &'static str, problem: &str) -> Refusal {
    Refusal::of_field(RefusalCode::Invalid, field, format!("`{field}` {problem}"))
}

/// An event in structured form: the members of its JSON object.
///
/// # Errors
/// Names the first attribute that breaks the specification.
pub(super) fn structured<'a>(members: &[Member<'a>]) -> Result<CloudEvent<'a>, Refusal> {
    let mut attributes = Attributes::default();
    let (mut data, mut data_base64) = (None, None);
    for (name, raw) in members {
        let raw: &'a str = raw;
        match name.as_ref() {
            "data" => data = (raw != "null").then_some(raw),
            "data_base64" => data_base64 = text_field("data_base64", raw)?,
            name => match attributes.slot(name) {
                Some((field, slot)) => *slot = text_field(field, raw)?,
                None => {
                    // Not kept, but a string that is no text makes the event invalid.
                    value_of(&quoted(name), raw)?;
                }
            },
        }
    }
    let is_json = attributes.declares_json()?;
    let data = match (data, data_base64) {
        (Some(_), Some(_)) => return Err(invalid("data_base64", "excludes `data`; give one of them")),
        (Some(raw), None) => is_json.then_some(Cow::Borrowed(raw)),
        (None, Some(text)) => decode_base64(&text, is_json)?.map(Cow::Owned),
        (None, None) => None,
    };
    attributes.finish(data)
}

/// Base64 data; its text when the data is JSON.
fn decode_base64(text: &str, is_json: bool) -> Result<Option<String>, Refusal> {
    let bytes = STANDARD.decode(text).map_err(|e| invalid("data_base64", &format!("is not base64: {e}")))?;
    is_json.then(|| json_data("data_base64", &bytes).map(str::to_owned)).transpose()
}

/// The JSON text that `bytes` are.
fn json_data<'a>(field: &'static str, bytes: &'a [u8]) -> Result<&'a str, Refusal> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Refusal::of_field(RefusalCode::Malformed, field, format!("`{field}` is not UTF-8")))?;
    json::document(text).map_err(|fault| {
        let refusal = of_fault(&fault);
        Refusal::of_field(RefusalCode::Malformed, field, format!("`{field}` is {}", refusal.detail))
    })
}

/// An event in binary form: attributes in headers, the body is the data.
///
/// # Errors
/// Names the first attribute that breaks the specification.
pub(super) fn binary<'a>(headers: &'a HeaderMap, body: &'a [u8]) -> Result<CloudEvent<'a>, Refusal> {
    let mut attributes = Attributes::default();
    for name in headers.keys() {
        let Some(attribute) = name.as_str().strip_prefix(ATTRIBUTE_PREFIX) else { continue };
        // The content type header is this attribute in binary form.
        if attribute == "datacontenttype" {
            continue;
        }
        let Some((field, slot)) = attributes.slot(attribute) else { continue };
        let mut values = headers.get_all(name).iter();
        *slot = values.next().map(|value| header_text(field, value.as_bytes())).transpose()?;
        if values.next().is_some() {
            let detail = format!("`ce-{field}` stands twice; a header may stand once");
            return Err(Refusal::of_field(RefusalCode::DuplicateField, field, detail));
        }
    }
    attributes.datacontenttype = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(Cow::Borrowed);
    let data = match body {
        [] => None,
        body => attributes.declares_json()?.then(|| json_data("data", body)).transpose()?.map(Cow::Borrowed),
    };
    attributes.finish(data)
}

/// The id of an event in binary form, as far as there is one.
pub(super) fn binary_id(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    header_text("id", headers.get("ce-id")?.as_bytes()).ok()
}

/// The text of an attribute's header (HTTP binding, section 3.1.3.2): a quoted string
/// is unquoted, then one round of percent-decoding.
fn header_text<'a>(field: &'static str, value: &'a [u8]) -> Result<Cow<'a, str>, Refusal> {
    let unquoted = unquote(value).ok_or_else(|| invalid(field, "has an unfinished quoted string"))?;
    if !unquoted.contains(&b'%')
        && let Cow::Borrowed(bytes) = unquoted
    {
        return std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| invalid(field, "is not UTF-8"));
    }
    let mut bytes = Vec::with_capacity(unquoted.len());
    let mut rest = unquoted.iter();
    while let Some(&byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let digit = |byte: Option<&u8>| byte.and_then(|b| char::from(*b).to_digit(16));
            let (high, low) = (digit(rest.next()), digit(rest.next()));
            let code = high.zip(low).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
            code.ok_or_else(|| invalid(field, "has a `%` without two hexadecimal digits; write `%25` for `%`"))?
        } else {
            byte
        });
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| invalid(field, "is not UTF-8 after percent-decoding"))
}

/// A header's value without the quotes and escapes of RFC 9110, section 5.6.4.
fn unquote(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let [b'"', inner @ ..] = value else { return Some(Cow::Borrowed(value)) };
    let inner = inner.strip_suffix(b"\"")?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.iter();
    while let Some(&byte) = rest.next() {
        match byte {
            b'\\' => bytes.push(*rest.next()?),
            b'"' => return None,
            byte => bytes.push(byte),
        }
    }
    Some(Cow::Owned(bytes))
}

/// Whether the members are those of a CloudEvent: only one has a `specversion`.
pub(super) fn is_cloud_event(members: &[Member<'_>]) -> bool {
    members.iter().any(|(name, _)| name == "specversion")
}

/// The text of the member `id`, as far as there is one.
pub(super) fn id_of<'a>(members: &[Member<'a>]) -> Option<Cow<'a, str>> {
    let (_, raw) = members.iter().find(|(name, _)| name == "id")?;
    match json::value(raw) {
        Ok(Value::Text(text)) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Result<String, Refusal> {
        header_text("subject", value.as_bytes()).map(Cow::into_owned)
    }

    #[test]
    fn header_values_are_unquoted_and_decoded_once() {
        let cases = [
            ("plain", "plain"),
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
            ("a%2525b", "a%25b"),
            ("\"a b\\\"c\"", "a b\"c"),
            ("\"a%20b\"", "a b"),
            ("%c3%a9", "é"),
        ];
        for (value, expected) in cases {
            assert_eq!(text(value).as_deref(), Ok(expected), "{value}");
        }
    }

    #[test]
    fn a_header_value_that_is_no_text_is_refused() {
        for value in ["100%", "%zz", "%4", "%ff", "\"open", "\"a\"b\"", "\"a\\\""] {
            assert_eq!(text(value).map_err(|r| r.code), Err(RefusalCode::Invalid), "{value}");
        }
    }
}
