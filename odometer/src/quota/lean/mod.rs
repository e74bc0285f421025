//! The short way for what is asked often: `POST /v1/quota/check` and
//! `POST /v1/quota/reservations` are read, decided and answered where their bytes
//! arrive, without a router. Whatever else comes on a connection is handed, with the
//! bytes that were read, to the router's own server, for the rest of the connection.
//! Threads of their own do that, see [`lanes`].
//! Bodies are read and replies made by the code that the router uses.

mod head;
mod lanes;
mod linger;
mod patience;
mod prefixed;
mod processors;
mod steer;
#[cfg(test)]
mod tests;
mod together;
mod write;

use std::future::{Future, ready};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::middleware::map_request;
use bytes::BytesMut;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use odometer_schemas::quota::{Answer, QuotaError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use self::head::{Head, Seen};
use self::lanes::{Here, Lanes};
use self::patience::{Patience, Times, with_patient_body};
use self::prefixed::Prefixed;
use self::steer::Claim;
use self::together::Sent;
use super::Quota;
use super::body::{BODY_BYTES_MAX, request_of};
use super::reply::Reply;
use super::service::QuotaRequest;

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
/// When a thread that answers cannot be had, or has ended. A failed accept is repeated.
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
    let places = Arc::new(Semaphore::new(connections_max));
    let (stopping, stopped) = watch::channel(false);
    // Not bounded itself: each connection in it holds a place.
    let (back, mut parting) = unbounded_channel();
    let lean = |quota| Lean { quota, stopped: stopped.clone(), times, home: Handle::current(), back: back.clone() };
    let mut lanes = quota.map(|quota| Lanes::start(&lean(quota))).transpose()?;
    drop(back);
    let mut routed = Routed::new(router, stopped, times);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &places) => match accepted {
                Ok(arrived) => match &lanes {
                    Some(lanes) => lanes.take(arrived)?,
                    None => routed.serve(arrived)?,
                }
                Err(error) => {
                    tracing::debug!("a connection was not accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(parting) = parting.recv() => match (&lanes, &parting.lane) {
                (Some(lanes), Some(_)) => lanes.take(parting)?,
                _ => routed.serve(parting)?,
            },
            Some(ended) = routed.connections.join_next() => resume(ended),
        }
    }
    // Whoever connects from here on is told at once that nobody listens.
    drop(listener);
    stopping.send_replace(true);
    lanes.iter_mut().for_each(Lanes::close);
    loop {
        tokio::select! {
            Some(parting) = parting.recv() => routed.serve(parting)?,
            Some(ended) = routed.connections.join_next() => resume(ended),
            else => return Ok(()),
        }
    }
}

/// The next connection, once there is a place for it; of no runtime yet.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<Parting> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let stream = listener.accept().await?.0.into_std()?;
    stream.set_nodelay(true)?;
    Ok(Parting { stream, read: BytesMut::new(), place, lane: None })
}

/// A panic of one request is our own bug: it has been printed, and ends its connection
/// only. Broken connections are their client's business.
fn resume(ended: Result<io::Result<()>, tokio::task::JoinError>) {
    if let Ok(Err(error)) = ended {
        tracing::debug!("a connection broke: {error}");
    }
}

/// One of the connections that there may be at once.
type Place = OwnedSemaphorePermit;

/// A connection between two that serve it, and what was read of it.
struct Parting {
    stream: std::net::TcpStream,
    read: BytesMut,
    place: Place,
    /// Its place in the lane that it is for.
    lane: Option<Claim>,
}

/// A connection that a lane does not go on with.
struct Left {
    stream: TcpStream,
    read: BytesMut,
    /// Its place in the lane that is nearer to its client; none where the router is to answer.
    lane: Option<Claim>,
}

/// Connections of the router's own server.
struct Routed {
    router: Router,
    stopped: watch::Receiver<bool>,
    times: Times,
    connections: JoinSet<io::Result<()>>,
}

impl Routed {
    fn new(router: Router, stopped: watch::Receiver<bool>, times: Times) -> Self {
        let router = router.layer(map_request(move |request| ready(with_patient_body(request, times.transfer))));
        Self { router, stopped, times, connections: JoinSet::new() }
    }

    fn serve(&mut self, parting: Parting) -> io::Result<()> {
        let Parting { stream, read, place, .. } = parting;
        let io = TokioIo::new(Prefixed::new(read.freeze(), TcpStream::from_std(stream)?));
        let service = TowerToHyperService::new(self.router.clone());
        // Bounds the time between two requests as well, and so is not the shorter one.
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.times.quiet)
            .serve_connection(io, service)
            .with_upgrades();
        let mut stopped = self.stopped.clone();
        self.connections.spawn(async move {
            let _place = place;
            tokio::pin!(connection);
            loop {
                tokio::select! {
                    served = connection.as_mut() => return served.map_err(io::Error::other),
                    Ok(()) = stopped.changed() => connection.as_mut().graceful_shutdown(),
                }
            }
        });
        Ok(())
    }
}

/// What answers on the short way.
#[derive(Clone)]
struct Lean {
    quota: Quota,
    stopped: watch::Receiver<bool>,
    times: Times,
    /// Where decisions are waited for.
    home: Handle,
    back: UnboundedSender<Parting>,
}

impl Lean {
    /// Answers on a connection until it ends, or gives it back with what was read.
    async fn run(self, mut stream: TcpStream, mut input: BytesMut, here: &Here) -> io::Result<Option<Left>> {
        let mut output = Vec::with_capacity(READ_BYTES);
        let (mut patience, mut linger, mut steer) = (Patience::new(self.times), here.linger(), here.steer());
        // Asked for once, so that a wait for the next request costs nothing more.
        let mut stopped = self.stopped.clone();
        let mut stopping = pin!(stopped.changed());
        loop {
            let seen = self.answer_all(&mut input, &mut output).await?;
            let has_answered = !output.is_empty();
            if has_answered {
                output = self.write(&mut stream, output, here).await?;
                output.clear();
                patience.rest();
            }
            match seen {
                Seen::Ours(_) => continue,
                Seen::Part if input.is_empty() => {}
                Seen::Part => patience.begun(),
                Seen::Other => return Ok(Some(Left { stream, read: input, lane: None })),
            }
            if *self.stopped.borrow() {
                return Ok(None);
            }
            if has_answered && let Some(lane) = steer.look(&stream) {
                return Ok(Some(Left { stream, read: input, lane: Some(lane) }));
            }
            input.reserve(READ_BYTES);
            if has_answered && input.is_empty() && linger.read(&stream, &mut input).await? {
                continue;
            }
            let read = tokio::select! {
                // First what is mostly ready.
                biased;
                read = stream.read_buf(&mut input) => read?,
                // A request that has begun to arrive is not waited for: it was not read.
                _ = stopping.as_mut() => return Ok(None),
                () = patience.over() => return Ok(None),
            };
            if read == 0 {
                return Ok(None);
            }
        }
    }

    /// Writes all of it, mostly at once; gives back what it was in.
    async fn write(&self, stream: &mut TcpStream, output: Vec<u8>, here: &Here) -> io::Result<Vec<u8>> {
        let Sent { bytes, taken } =
            if here.is_alone() { Sent { taken: Ok(0), bytes: output } } else { together::send(stream, output).await };
        let written = match taken? {
            0 => try_write(stream, &bytes)?,
            written => written,
        };
        if written < bytes.len() {
            tokio::time::timeout(self.times.transfer, stream.write_all(&bytes[written..])).await??;
        }
        Ok(bytes)
    }

    /// Answers every whole request at the beginning of `input`; what stopped it.
    async fn answer_all(&self, input: &mut BytesMut, output: &mut Vec<u8>) -> io::Result<Seen> {
        loop {
            match head::look(input) {
                Seen::Ours(head) if output.len() < WRITE_BYTES_MAX => {
                    let whole = head.head_bytes + head.body_bytes;
                    self.answer(&head, &input[head.head_bytes..whole], output).await?;
                    let _ = input.split_to(whole);
                }
                seen => return Ok(seen),
            }
        }
    }

    async fn answer(&self, head: &Head, body: &[u8], output: &mut Vec<u8>) -> io::Result<()> {
        let started = Instant::now();
        let reply = match request_of(head.door.clone(), body, &self.quota.meters) {
            Ok(request) => Reply::of(self.decide(request, started).await?, &self.quota.meters),
            Err(problem) => problem.into(),
        };
        write::write(&reply, output);
        lanes::count_answer();
        crate::api::metrics::quota_request(head.route, reply.status, started.elapsed());
        Ok(())
    }

    /// Decides here, at once, or where waiting is no matter.
    async fn decide(&self, request: QuotaRequest, started: Instant) -> io::Result<Result<Answer, QuotaError>> {
        if let Some(decided) = self.quota.decide_now(&request, started) {
            return Ok(decided);
        }
        let quota = self.quota.clone();
        self.home.spawn(async move { quota.decide(request).await }).await.map_err(io::Error::other)
    }
}

/// How much is taken now.
fn try_write(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.try_write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}

const _: () = assert!(BODY_BYTES_MAX > READ_BYTES, "a body may need several reads");
