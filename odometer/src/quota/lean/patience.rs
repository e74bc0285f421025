//! How long a client may take: to begin a request, to send the rest of it, to take the
//! answer. Never bounds how long an answer takes to be made.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// How long each of it may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// How long a connection may be quiet between two requests.
    pub(super) quiet: Duration,
    /// How long a request may take to arrive from its first byte on, a body to go on,
    /// and an answer to be taken.
    pub(super) transfer: Duration,
}

impl Times {
    pub(super) const USUAL: Self = Self {
        // Longer than the usual clients keep a connection for use (90 s), so that they
        // close it, not we under their request.
        quiet: Duration::from_secs(100),
        // Far longer than any network needs for a few kilobytes.
        transfer: Duration::from_secs(30),
    };

    /// How often a connection is looked at: one timer for all its requests costs them
    /// nothing.
    fn look_every(self) -> Duration {
        self.quiet.min(self.transfer) / 8
    }
}

/// Until when one connection's client is waited for.
pub(super) struct Patience {
    times: Times,
    until: Instant,
    is_begun: bool,
    look: Pin<Box<Sleep>>,
}

impl Patience {
    pub(super) fn new(times: Times) -> Self {
        let until = Instant::now() + times.quiet;
        Self { times, until, is_begun: false, look: Box::pin(sleep(times.look_every())) }
    }

    /// Everything that came was answered.
    pub(super) fn rest(&mut self) {
        (self.until, self.is_begun) = (Instant::now() + self.times.quiet, false);
    }

    /// Part of a request has come, now or before.
    pub(super) fn begun(&mut self) {
        if !self.is_begun {
            (self.until, self.is_begun) = (Instant::now() + self.times.transfer, true);
        }
    }

    /// Done once the client has taken too long, or an eighth longer.
    pub(super) async fn over(&mut self) {
        loop {
            self.look.as_mut().await;
            let now = Instant::now();
            if now >= self.until {
                return;
            }
            self.look.as_mut().reset(now + self.times.look_every());
        }
    }
}

/// The request, whose body fails when it does not go on for `silence`.
pub(super) fn with_patient_body(request: Request, silence: Duration) -> Request {
    request.map(|body| Body::new(PatientBody { body, silence, over: None }))
}

struct PatientBody {
    body: Body,
    silence: Duration,
    /// Runs while somebody waits for the body to go on.
    over: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for PatientBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.over = None;
            return Poll::Ready(frame);
        }
        let silence = self.silence;
        let over = self.over.get_or_insert_with(|| Box::pin(sleep(silence)));
        over.as_mut().poll(context).map(|()| {
            let why = format!("the body did not go on for {silence:?}");
            Some(Err(axum::Error::new(io::Error::new(io::ErrorKind::TimedOut, why))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
