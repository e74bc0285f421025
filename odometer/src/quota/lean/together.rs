//! Sends the answers of a lane's connections together. A client that waits is woken by its
//! answer and takes the processor from the lane, which has the next answer in hand for the
//! same client: asleep and awake again for each of them, both do more of that than of
//! anything else. So whoever has an answer waits until all that was ready is decided, or
//! some are there, and all are sent at once, in one system call where there is one for that.
//!
//! Reading path: [`send`] (in) → [`send_all`] (out) → [`calls`] (the system's side).

#[cfg(target_os = "linux")]
mod calls;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use smallvec::SmallVec;
use tokio::net::TcpStream;

#[cfg(target_os = "linux")]
use self::calls::Calls;

/// Answers that are sent at once. The first of them waits for the others, each of which takes
/// some ten microseconds; twice as many would save little more.
const ANSWERS_MAX: usize = 16;

thread_local! {
    static ROUND: RefCell<Round> = RefCell::default();
}

/// An answer, and how much of it the system took.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) bytes: Vec<u8>,
    /// Less than all where the client does not read, or where nobody tried: the caller sends
    /// the rest.
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
    #[cfg(target_os = "linux")]
    calls: Calls,
}

struct Waiting {
    number: u64,
    #[cfg(target_os = "linux")]
    to: std::os::fd::RawFd,
    bytes: Vec<u8>,
    waker: Waker,
}

/// Sends `bytes` with the next ones of this thread. Nothing is sent if it is not waited for
/// so long.
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
        let number = match self.number {
            Some(number) => number,
            None => {
                let bytes = std::mem::take(&mut self.bytes);
                let (number, is_full) =
                    ROUND.with_borrow_mut(|round| round.add(self.stream, bytes, context.waker().clone()));
                self.number = Some(number);
                if !is_full {
                    return Poll::Pending;
                }
                send_all();
                number
            }
        };
        ROUND.with_borrow_mut(|round| round.take(number)).map_or(Poll::Pending, Poll::Ready)
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
    /// Its number, and whether so many wait that they are to be sent now.
    fn add(&mut self, stream: &TcpStream, bytes: Vec<u8>, waker: Waker) -> (u64, bool) {
        let number = self.next;
        self.next += 1;
        self.waiting.push(Waiting::new(number, stream, bytes, waker));
        (number, self.waiting.len() >= ANSWERS_MAX)
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
    fn send(&mut self) -> SmallVec<[Waker; ANSWERS_MAX]> {
        let taken = self.write();
        let sent = |(Waiting { number, bytes, waker, .. }, taken)| {
            self.sent.push((number, Sent { bytes, taken }));
            waker
        };
        self.waiting.drain(..).zip(taken).map(sent).collect()
    }

    /// How much the system took of each, in their order. Where nobody can send several at
    /// once, each is left to whoever waits for it: they are next to each other at least.
    fn write(&mut self) -> SmallVec<[io::Result<usize>; ANSWERS_MAX]> {
        let mut taken: SmallVec<_> = self.waiting.iter().map(|_| Ok(0)).collect();
        #[cfg(target_os = "linux")]
        if self.waiting.len() > 1 {
            let each = self.waiting.iter().map(|waiting| (waiting.to, waiting.bytes.as_slice()));
            self.calls.write(each, |at, told| taken[at] = told);
        }
        taken
    }
}

impl Waiting {
    #[cfg(target_os = "linux")]
    fn new(number: u64, stream: &TcpStream, bytes: Vec<u8>, waker: Waker) -> Self {
        Self { number, to: std::os::fd::AsRawFd::as_raw_fd(stream), bytes, waker }
    }

    #[cfg(not(target_os = "linux"))]
    fn new(number: u64, _stream: &TcpStream, bytes: Vec<u8>, waker: Waker) -> Self {
        Self { number, bytes, waker }
    }
}
