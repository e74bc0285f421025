//! The short way for what is asked often: `POST /v1/quota/check` and
//! `POST /v1/quota/reservations` are read, decided and answered where their bytes
//! arrive, without a router. Whatever else comes on a connection is handed, with the
//! bytes that were read, to the router's own server, for the rest of the connection.
//! Bodies are read and replies made by the code that the router uses.

mod head;
mod patience;
mod prefixed;
#[cfg(test)]
mod tests;
mod write;

use std::future::{Future, ready};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::middleware::map_request;
use bytes::BytesMut;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use self::head::{Head, Seen};
use self::patience::{Patience, Times, with_patient_body};
use self::prefixed::Prefixed;
use super::Quota;
use super::body::{BODY_BYTES_MAX, request_of};
use super::reply::Reply;

/// What is read at once: several requests of a busy client.
const READ_BYTES: usize = 16 * 1024;
/// Replies that are gathered before they are written, so that a client which sends
/// without reading cannot fill the memory.
const WRITE_BYTES_MAX: usize = 64 * 1024;
/// Connections at once; whoever comes beyond waits to be accepted. At 32 KiB of buffers
/// each, a quarter of a gigabyte.
const CONNECTIONS_MAX: usize = 8 * 1024;
/// After a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` is done and open requests have been answered.
///
/// # Errors
/// Never now; a failed accept is repeated.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    quota: Option<Quota>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    serve_within((CONNECTIONS_MAX, Times::USUAL), listener, (router, quota), stop).await
}

async fn serve_within(
    (connections_max, times): (usize, Times),
    listener: TcpListener,
    (router, quota): (Router, Option<Quota>),
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let router = router.layer(map_request(move |request| ready(with_patient_body(request, times.transfer))));
    let places = Arc::new(Semaphore::new(connections_max));
    let (stopping, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &places) => match accepted {
                Ok((stream, place)) => {
                    let connection = Connection { router: router.clone(), quota: quota.clone(), stopped: stopped.clone(), times };
                    connections.spawn(async move {
                        let _place = place;
                        connection.run(stream).await
                    });
                }
                Err(error) => {
                    tracing::debug!("a connection was not accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => resume(ended),
        }
    }
    // Whoever connects from here on is told at once that nobody listens.
    drop(listener);
    stopping.send_replace(true);
    while let Some(ended) = connections.join_next().await {
        resume(ended);
    }
    Ok(())
}

/// The next connection, once there is a place for it.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    Ok((listener.accept().await?.0, place))
}

/// A panic of one request is our own bug: it has been printed, and ends its connection
/// only. Broken connections are their client's business.
fn resume(ended: Result<io::Result<()>, tokio::task::JoinError>) {
    if let Ok(Err(error)) = ended {
        tracing::debug!("a connection broke: {error}");
    }
}

struct Connection {
    router: Router,
    quota: Option<Quota>,
    stopped: watch::Receiver<bool>,
    times: Times,
}

impl Connection {
    async fn run(mut self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let Some(quota) = self.quota.take() else { return self.hand_over(stream, BytesMut::new()).await };
        let (mut input, mut output) = (BytesMut::with_capacity(READ_BYTES), Vec::with_capacity(READ_BYTES));
        let mut patience = Patience::new(self.times);
        loop {
            let seen = answer_all(&quota, &mut input, &mut output).await;
            if !output.is_empty() {
                tokio::time::timeout(self.times.transfer, stream.write_all(&output)).await??;
                output.clear();
                patience.rest();
            }
            match seen {
                Seen::Ours(_) => continue,
                Seen::Part if input.is_empty() => {}
                Seen::Part => patience.begun(),
                Seen::Other => return self.hand_over(stream, input).await,
            }
            if *self.stopped.borrow() {
                return Ok(());
            }
            input.reserve(READ_BYTES);
            let read = tokio::select! {
                read = stream.read_buf(&mut input) => read?,
                () = patience.over() => return Ok(()),
                // A request that has begun to arrive is not waited for: it was not read.
                _ = self.stopped.changed() => return Ok(()),
            };
            if read == 0 {
                return Ok(());
            }
        }
    }

    async fn hand_over(mut self, stream: TcpStream, read: BytesMut) -> io::Result<()> {
        let io = TokioIo::new(Prefixed::new(read.freeze(), stream));
        let service = TowerToHyperService::new(self.router);
        // Bounds the time between two requests as well, and so is not the shorter one.
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.times.quiet)
            .serve_connection(io, service)
            .with_upgrades();
        tokio::pin!(connection);
        loop {
            tokio::select! {
                served = connection.as_mut() => return served.map_err(io::Error::other),
                Ok(()) = self.stopped.changed() => connection.as_mut().graceful_shutdown(),
            }
        }
    }
}

/// Answers every whole request at the beginning of `input`; what stopped it.
async fn answer_all(quota: &Quota, input: &mut BytesMut, output: &mut Vec<u8>) -> Seen {
    loop {
        match head::look(input) {
            Seen::Ours(head) if output.len() < WRITE_BYTES_MAX => {
                let whole = head.head_bytes + head.body_bytes;
                answer(quota, &head, &input[head.head_bytes..whole], output).await;
                let _ = input.split_to(whole);
            }
            seen => return seen,
        }
    }
}

async fn answer(quota: &Quota, head: &Head, body: &[u8], output: &mut Vec<u8>) {
    let started = Instant::now();
    let reply = match request_of(head.door.clone(), body, &quota.meters) {
        Ok(request) => Reply::of(quota.decide(request).await, &quota.meters),
        Err(problem) => problem.into(),
    };
    write::write(&reply, output);
    crate::api::metrics::quota_request(head.route, reply.status, started.elapsed());
}

const _: () = assert!(BODY_BYTES_MAX > READ_BYTES, "a body may need several reads");
