//! gRPC: our own service, and Envoy's rate-limit service, behind one listener. Messages
//! come in, the same answers as over HTTP go out. Decides nothing.

mod batch;
#[cfg(test)]
mod batch_tests;
mod convert;
mod envoy;
mod proto;
mod read;
#[cfg(test)]
mod real_envoy;
mod service;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use self::envoy::RateLimit;
use self::proto::quota::quota_server::QuotaServer;
use self::proto::rls::rate_limit_service_server::RateLimitServiceServer;
use self::service::Questions;
use super::Quota;
use crate::config::Config;
use crate::config::quota::EnvoyConfig;
use crate::quota::tallies::Surface;

/// Checks in one message of a stream: enough to make a message's own price small.
const BATCH_CHECKS_MAX: usize = 512;
/// Bytes of one message: a full batch of long names.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Calls under way on one connection. A proxy sends all of its requests through few.
const STREAMS_MAX: u32 = 1024;
/// A connection whose other end is gone is noticed within both.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);

/// An address that this process has, before it answers there.
pub(crate) struct Grpc {
    listener: StdListener,
    quota: Quota,
    config: EnvoyConfig,
}

impl Grpc {
    /// Takes the configured address, if there is one.
    ///
    /// # Errors
    /// When it cannot be listened on.
    pub(crate) fn bind(config: &Config, quota: &Quota) -> anyhow::Result<Option<Self>> {
        let Some(listen) = config.quota.grpc_listen else { return Ok(None) };
        let listener =
            StdListener::bind(listen).with_context(|| format!("cannot listen on {listen} (quota.grpc_listen)"))?;
        listener.set_nonblocking(true)?;
        Ok(Some(Self { listener, quota: quota.clone(), config: config.envoy.clone() }))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is done and open calls have ended.
    ///
    /// # Errors
    /// When the listener fails.
    pub(crate) async fn serve(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        serve(listener, self.quota, self.config, stop).await.context("the gRPC server failed")
    }
}

/// Serves until `stop` is done and open calls have ended.
///
/// # Errors
/// When the listener fails.
async fn serve(
    listener: TcpListener,
    quota: Quota,
    config: EnvoyConfig,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let questions = Questions::new(quota.clone().at(Surface::Grpc));
    let questions = QuotaServer::new(questions).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let rate_limit = RateLimit::new(quota.at(Surface::Envoy), config);
    let rate_limit = RateLimitServiceServer::new(rate_limit).max_decoding_message_size(MESSAGE_BYTES_MAX);
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .add_service(questions)
        .add_service(rate_limit)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), stop)
        .await
}
