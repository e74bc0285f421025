//! Replies in, bytes of HTTP/1.1 out: the same header fields as through the router.

use std::cell::RefCell;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use jiff::Timestamp;

use super::super::reply::Reply;

/// Appends a reply.
pub(super) fn write(reply: &Reply, output: &mut Vec<u8>) {
    let reason = StatusCode::from_u16(reply.status).ok().and_then(|status| status.canonical_reason());
    // Writing to memory cannot fail.
    let _ = write!(output, "HTTP/1.1 {} {}\r\n", reply.status, reason.unwrap_or("Unknown"));
    let _ = write!(output, "content-type: {}\r\ncontent-length: {}\r\n", reply.content_type, reply.body.len());
    for (name, value) in [("ratelimit-policy", &reply.policies), ("ratelimit", &reply.standing)] {
        if !value.is_empty() {
            let _ = write!(output, "{name}: {value}\r\n");
        }
    }
    if let Some(seconds) = reply.retry_after_s {
        let _ = write!(output, "retry-after: {seconds}\r\n");
    }
    output.extend_from_slice(b"x-content-type-options: nosniff\r\ncache-control: no-store\r\ndate: ");
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
