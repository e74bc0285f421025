//! The headers of a Kafka message in, those of the same request over HTTP out, so
//! that one code reads both. Follows the CloudEvents Kafka protocol binding, section
//! 3: attributes are headers `ce_…` in UTF-8, the media type is `content-type`.

use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};

use super::raw_headers::RawHeader;

const ATTRIBUTE_PREFIX: &str = "ce_";
/// What a message without any statement is taken for: a native record, or an event
/// that names its `specversion`.
const DEFAULT_TYPE: HeaderValue = HeaderValue::from_static("application/json");
/// Is refused as malformed, as the value that it stands for would be.
const MALFORMED: HeaderValue = HeaderValue::from_static("malformed");

/// The headers that the gateway reads. What it would not read is left out.
pub(super) fn http_headers(raw: &[RawHeader]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut has_attributes = false;
    for (name, value) in raw {
        let (Ok(name), Some(value)) = (std::str::from_utf8(name), value) else { continue };
        let name = name.to_ascii_lowercase();
        if let Some(attribute) = name.strip_prefix(ATTRIBUTE_PREFIX) {
            has_attributes = true;
            if let Ok(name) = HeaderName::from_bytes(format!("ce-{attribute}").as_bytes()) {
                headers.append(name, encoded(value));
            }
        } else if name == CONTENT_TYPE.as_str() || name == CONTENT_ENCODING.as_str() {
            let name = if name == CONTENT_TYPE.as_str() { CONTENT_TYPE } else { CONTENT_ENCODING };
            headers.append(name, HeaderValue::from_bytes(value).unwrap_or(MALFORMED));
        }
    }
    if !has_attributes && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, DEFAULT_TYPE);
    }
    headers
}

/// An attribute as HTTP carries it: everything that would mean something there, or
/// could not stand there, is percent-encoded.
fn encoded(value: &[u8]) -> HeaderValue {
    let mut text = String::with_capacity(value.len());
    for byte in value {
        match byte {
            b'%' | b'"' | b' ' | 0..=0x1f | 0x7f.. => text.push_str(&format!("%{byte:02X}")),
            byte => text.push(char::from(*byte)),
        }
    }
    HeaderValue::try_from(text).unwrap_or(MALFORMED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(raw: &[(&[u8], Option<&[u8]>)]) -> Vec<(String, String)> {
        let raw: Vec<RawHeader> = raw.iter().map(|(n, v)| (n.to_vec(), v.map(<[u8]>::to_vec))).collect();
        let found = http_headers(&raw);
        let text = |v: &HeaderValue| v.to_str().unwrap().to_owned();
        found.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn attributes_are_encoded_as_http_carries_them() {
        assert_eq!(
            headers(&[
                (b"ce_id", Some("50% \"é\"".as_bytes())),
                (b"CE_Type", Some(b"t")),
                (b"content-type", Some(b"a/b"))
            ]),
            [pair("ce-id", "50%25%20%22%C3%A9%22"), pair("ce-type", "t"), pair("content-type", "a/b")]
        );
    }

    #[test]
    fn what_says_nothing_is_json_and_other_headers_are_left_out() {
        let json = [pair("content-type", "application/json")];
        assert_eq!(headers(&[]), json);
        assert_eq!(headers(&[(b"trace", Some(b"1")), (b"\xff", Some(b"1")), (b"content-type", None)]), json);
        assert_eq!(headers(&[(b"ce_not a name", Some(b"1"))]), []);
        assert_eq!(headers(&[(b"Content-Type", Some(b"\x01"))]), [pair("content-type", "malformed")]);
    }
}
