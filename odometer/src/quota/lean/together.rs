//! Sends the answers of a lane's connections together. A client that waits is woken by its
//! answer and takes the processor from the lane, which has the next answer in hand for the
//! same client: asleep and awake again for each of them, both do more of that than of
//! anything else. So whoever has an answer waits until all that was ready is decided, or
//! some are there, and all are sent in one system call; where there is none for that, nobody
//! waits.
//!
//! Reading path: [`send`] (in) → [`send_all`] (out) → [`calls`] (the system's side).

#[cfg_attr(not(all(target_os = "linux", target_pointer_width = "64")), path = "together/no_calls.rs")]
mod calls;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use smallvec::SmallVec;
use tokio::net::TcpStream;

use self::calls::Calls;

/// Connections that are answered at once. The first answer waits for the others, each of
/// which takes some ten microseconds; twice as many would save little more.
const CONNECTIONS_MAX: usize = 16;
/// Bytes after which no more is waited for: more than as many usual answers have, of some
/// seven hundred bytes each. A client may have sent many requests at once, and has its
/// answers as one.
const BYTES_MAX: usize = 2 * 1024 * CONNECTIONS_MAX;

thread_local! {
    static ROUND: RefCell<Round> = RefCell::default();
}

/// An answer, and how much of it the system took.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) bytes: Vec<u8>,
    /// Less than all where the client does not read, its connection is broken, or nobody
    /// tried: the caller sends the rest.
    pub(super) taken: io::Result<usize>,
}

/// What waits to be sent by this thread, and what was.
#[derive(Default)]
struct Round {
    /// The next answer's number.
    next: u64,
    waiting: Vec<Waiting>,
    /// By number; as many as are waited for.
    sent: Vec<(u64, Sent)>,
    calls: Calls,
}

struct Waiting {
    number: u64,
    to: RawFd,
    bytes: Vec<u8>,
    waker: Waker,
}

/// Sends `bytes` with the next ones of this thread. Nothing is sent if it is not waited for
/// so long; nothing waits where several cannot be sent at once.
pub(super) fn send(stream: &TcpStream, bytes: Vec<u8>) -> Sending<'_> {
    Sending { stream, bytes, number: None }
}

/// Sends what waits; whether there was anything. To be called when everything that was ready
/// is decided.
pub(super) fn send_all() -> bool {
    let wakers = ROUND.with_borrow_mut(Round::send);
    let has_sent = !wakers.is_empty();
    // Whoever is let go of by its waker looks at the round.
    wakers.into_iter().for_each(Waker::wake);
    has_sent
}

/// See [`send`].
pub(super) struct Sending<'a> {
    stream: &'a TcpStream,
    /// Until they wait in the round.
    bytes: Vec<u8>,
    number: Option<u64>,
}

impl Future for Sending<'_> {
    type Output = Sent;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Sent> {
        if self.number.is_none() {
            let (to, bytes) = (self.stream.as_raw_fd(), std::mem::take(&mut self.bytes));
            match ROUND.with_borrow_mut(|round| round.add(to, bytes, context.waker())) {
                Ok((number, is_full)) => {
                    self.number = Some(number);
                    is_full.then(send_all);
                }
                Err(bytes) => return Poll::Ready(Sent { bytes, taken: Ok(0) }),
            }
        }
        let sent = self.number.and_then(|number| ROUND.with_borrow_mut(|round| round.take(number)));
        if sent.is_some() {
            self.number = None;
        }
        sent.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Sending<'_> {
    /// The connection may be another's soon: nothing is sent there any more.
    fn drop(&mut self) {
        if let Some(number) = self.number {
            // The thread may have ended, and its round with it.
            let let_go = ROUND.try_with(|round| round.borrow_mut().let_go(number));
            drop(let_go);
        }
    }
}

impl Round {
    /// Its number, and whether so much waits that it is to be sent now; given back where
    /// nobody can send several at once.
    fn add(&mut self, to: RawFd, bytes: Vec<u8>, waker: &Waker) -> Result<(u64, bool), Vec<u8>> {
        if !self.calls.are_there() {
            return Err(bytes);
        }
        let number = self.next;
        self.next += 1;
        self.waiting.push(Waiting { number, to, bytes, waker: waker.clone() });
        let has_much = || self.waiting.iter().map(|waiting| waiting.bytes.len()).sum::<usize>() >= BYTES_MAX;
        Ok((number, self.waiting.len() >= CONNECTIONS_MAX || has_much()))
    }

    fn take(&mut self, number: u64) -> Option<Sent> {
        let at = self.sent.iter().position(|(sent, _)| *sent == number)?;
        Some(self.sent.swap_remove(at).1)
    }

    /// What it held, for the caller to let go of.
    fn let_go(&mut self, number: u64) -> (Option<Waiting>, Option<Sent>) {
        let at = self.waiting.iter().position(|waiting| waiting.number == number);
        (at.map(|at| self.waiting.remove(at)), self.take(number))
    }

    /// Sends what waits; who is to hear of it.
    fn send(&mut self) -> SmallVec<[Waker; CONNECTIONS_MAX]> {
        let mut taken: SmallVec<[_; CONNECTIONS_MAX]> = self.waiting.iter().map(|_| Ok(0)).collect();
        if !self.waiting.is_empty() {
            let each = self.waiting.iter().map(|waiting| (waiting.to, waiting.bytes.as_slice()));
            self.calls.write(each, |at, told| taken[at] = told);
        }
        let sent = |(Waiting { number, bytes, waker, .. }, taken)| {
            self.sent.push((number, Sent { bytes, taken }));
            waker
        };
        self.waiting.drain(..).zip(taken).map(sent).collect()
    }
}
