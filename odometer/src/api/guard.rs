//! What every request passes on its way in and out: a bound on the query string,
//! answers for paths and methods that are not served, headers that keep a browser
//! from guessing, and the time that it took.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::parameters::quoted;
use super::problem::{Problem, ProblemKind};

/// Bytes of a query string. Every parameter at its longest, percent-encoded, takes
/// about 2.5 KiB; the server itself reads headers of up to 400 KiB.
pub(super) const QUERY_BYTES_MAX: usize = 4096;

/// Wraps every route.
pub(crate) async fn guard(request: Request, next: Next) -> Response {
    let started = Instant::now();
    // The route, not the path, so that there are few.
    let route = request.extensions().get::<MatchedPath>().map_or("none".into(), |path| path.as_str().to_owned());
    let method = request.method().clone();
    let mut response = if request.uri().query().is_some_and(|query| query.len() > QUERY_BYTES_MAX) {
        let detail = format!("the query string is longer than {QUERY_BYTES_MAX} bytes");
        Problem::new(ProblemKind::QueryTooLong, detail, "ask with fewer or shorter parameters").into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    super::metrics::request(&route, &method, response.status(), started.elapsed());
    response
}

/// Answers for a path that is not served.
pub(super) async fn not_found(uri: Uri) -> Problem {
    let detail = format!("there is nothing at {}", quoted(uri.path()));
    Problem::new(ProblemKind::NotFound, detail, "GET / lists what is served, GET /openapi.json describes it")
}

/// Answers for a method that a path is not served for. The server adds `Allow`.
pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} is not answered at {}", quoted(method.as_str()), quoted(uri.path()));
    Problem::new(ProblemKind::MethodNotAllowed, detail, "use the method that the header Allow names")
}
