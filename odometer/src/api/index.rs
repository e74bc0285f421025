//! `/`: a plain page that lists what is served, and `/openapi.json`, which describes
//! it.

use std::fmt::Write;

use axum::http::header;
use axum::response::IntoResponse;

use super::ROUTES;
use crate::quota::http as quota_http;

/// OpenAPI 3.1, written by hand.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// The page.
pub(crate) async fn page() -> String {
    let mut page = format!("odometer {}: usage metering\n\n", env!("CARGO_PKG_VERSION"));
    for (method, path, what) in ROUTES.iter().chain(&quota_http::ROUTES) {
        // Writing into a text does not fail.
        let _ = writeln!(page, "{method:4} {path:39} {what}");
    }
    page
}

/// The description.
pub(crate) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}
