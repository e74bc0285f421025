//! The HTTP client below the crate's: plain, or TLS with the system's certificates.

use std::io;
use std::time::Duration;

use clickhouse::Client;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Longest wait for a connection. A server that does not take one in this time is down.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// After so long without a byte the other end is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How long an unused connection is kept: servers close theirs after 3 s or more.
const IDLE: Duration = Duration::from_secs(2);

/// A client for `url`.
///
/// # Errors
/// When `url` wants TLS and the system has no certificates.
pub(super) fn client(url: &str) -> io::Result<Client> {
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CONNECT_WAIT));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_nodelay(true);
    let mut builder = HttpClient::builder(TokioExecutor::new());
    builder.pool_idle_timeout(IDLE);
    if !url.starts_with("https:") {
        return Ok(Client::with_http_client(builder.build(tcp)).with_url(url));
    }
    tcp.enforce_http(false);
    let tls = HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::ring::default_provider())?
        .https_only()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::with_http_client(builder.build(tls)).with_url(url))
}
