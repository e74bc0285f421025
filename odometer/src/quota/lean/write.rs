//! Replies in, bytes of HTTP/1.1 out: the same header fields as through the router.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use itoa::Buffer;
use jiff::Timestamp;

use super::super::reply::Reply;

/// What the lines before a body take with one or two limits.
const HEAD_BYTES: usize = 512;

/// Appends a reply.
pub(super) fn write(reply: &Reply, output: &mut Vec<u8>) {
    let reason = StatusCode::from_u16(reply.status).ok().and_then(|status| status.canonical_reason());
    output.reserve(HEAD_BYTES + reply.body.len());
    let mut parts = |parts: &[&str]| parts.iter().for_each(|part| output.extend_from_slice(part.as_bytes()));
    parts(&["HTTP/1.1 ", Buffer::new().format(reply.status), " ", reason.unwrap_or("Unknown")]);
    parts(&["\r\ncontent-type: ", reply.content_type]);
    parts(&["\r\ncontent-length: ", Buffer::new().format(reply.body.len())]);
    for (name, value) in [("\r\nratelimit-policy: ", &reply.policies), ("\r\nratelimit: ", &reply.standing)] {
        if !value.is_empty() {
            parts(&[name, value]);
        }
    }
    if let Some(seconds) = reply.retry_after_s {
        parts(&["\r\nretry-after: ", Buffer::new().format(seconds)]);
    }
    parts(&["\r\nx-content-type-options: nosniff\r\ncache-control: no-store\r\ndate: "]);
    append_date(output);
    output.extend_from_slice(b"\r\n\r\n");
    output.extend_from_slice(&reply.body);
}

/// The time as RFC 9110 writes it; a thread writes it anew once a second.
fn append_date(output: &mut Vec<u8>) {
    thread_local! {
        static LAST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(known, text)| {
        if *known != seconds {
            let time = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
            *text = time.unwrap_or_default().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            *known = seconds;
        }
        output.extend_from_slice(text.as_bytes());
    });
}
