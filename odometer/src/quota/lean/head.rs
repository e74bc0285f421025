//! The beginning of a request in, what to do with it out. Only what is plainly one of
//! our two routes is ours; every doubt is the router's business.

use super::super::body::{BODY_BYTES_MAX, Door};
use super::super::http::is_json;

/// Headers of a request that is ours: far more than a client sends to such a route.
const HEADERS_MAX: usize = 32;
/// Bytes before the body. A longer beginning goes to the router's server.
const HEAD_BYTES_MAX: usize = 4 * 1024;

/// What stands at the beginning of the input.
pub(super) enum Seen {
    /// A whole request of ours.
    Ours(Head),
    /// The beginning of what may become one.
    Part,
    /// Something else.
    Other,
}

/// A whole request.
pub(super) struct Head {
    pub(super) door: Door,
    /// The route, as metrics name it.
    pub(super) route: &'static str,
    pub(super) head_bytes: usize,
    pub(super) body_bytes: usize,
}

/// Looks at the input.
pub(super) fn look(input: &[u8]) -> Seen {
    if !b"POST /v1/quota/".starts_with(&input[..input.len().min(15)]) {
        return Seen::Other;
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head_bytes = match request.parse(input) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if input.len() < HEAD_BYTES_MAX => return Seen::Part,
        Ok(httparse::Status::Partial) | Err(_) => return Seen::Other,
    };
    let (door, route) = match request.path {
        Some(path @ "/v1/quota/check") => (Door::Check, path),
        Some(path @ "/v1/quota/reservations") => (Door::Reserve, path),
        _ => return Seen::Other,
    };
    let Some(body_bytes) = plain_body(&request) else { return Seen::Other };
    if input.len() < head_bytes + body_bytes {
        return Seen::Part;
    }
    let route = if route == "/v1/quota/check" { "/v1/quota/check" } else { "/v1/quota/reservations" };
    Seen::Ours(Head { door, route, head_bytes, body_bytes })
}

/// The length of a body that comes whole, as JSON, on a connection that stays open.
fn plain_body(request: &httparse::Request<'_, '_>) -> Option<usize> {
    if request.version != Some(1) {
        return None;
    }
    let (mut length, mut hosts) = (None, 0);
    for header in request.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let digits = header.value.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(header.value).ok().filter(|_| digits)?;
            if length.replace(text.parse::<usize>().ok()?).is_some() {
                return None;
            }
        } else if is("content-type") {
            is_json(header.value).then_some(())?;
        } else if is("host") {
            hosts += 1;
        } else if is("connection") {
            header.value.eq_ignore_ascii_case(b"keep-alive").then_some(())?;
        } else if is("transfer-encoding") || is("expect") || is("upgrade") {
            return None;
        }
    }
    length.filter(|length| hosts == 1 && *length <= BODY_BYTES_MAX)
}
