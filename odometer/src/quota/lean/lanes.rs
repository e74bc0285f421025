//! Threads that answer what is asked often. Each has a share of the connections to
//! itself: a connection that is ready wakes its own thread and nobody else's, and is
//! read, decided and answered there. Each keeps to a processor of its own, and
//! connections go where their bytes arrive, see [`steer`](super::steer). One that asks for
//! anything else leaves for the router's runtime.

use std::cell::Cell;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, available_parallelism};

use bytes::BytesMut;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::linger::{Alone, Linger};
use super::processors::{keep_to, one_each};
use super::steer::{Claim, Open, Seats, Steer};
use super::{CONNECTIONS_MAX, Lean, Parting, Place, resume, together};
use crate::slices;

/// Answers after which a lane lets others run before it looks for more: it is not
/// interrupted in time, because Linux looks at time slices at the timer's tick only,
/// and then whoever shares the processor, such as a proxy with the next requests, would
/// wait for milliseconds. A yield for each would cost who asks over few connections.
const ANSWERS_IN_A_ROW: u32 = 8;

thread_local! {
    static IN_A_ROW: Cell<u32> = const { Cell::new(0) };
}

/// One more request was answered by this thread.
pub(super) fn count_answer() {
    IN_A_ROW.set(IN_A_ROW.get().saturating_add(1));
}

/// Called when everything that was ready is decided.
fn rest() {
    together::send_all();
    give_way();
}

/// Called when everything that was ready is answered.
pub(super) fn give_way() {
    if IN_A_ROW.get() >= ANSWERS_IN_A_ROW {
        IN_A_ROW.set(0);
        std::thread::yield_now();
    }
}

/// All lanes. Dropped, they let go of every connection that they still have.
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    /// Dropped before the threads are joined.
    alive: Option<watch::Sender<()>>,
}

struct Lane {
    /// Not bounded itself: each connection in it holds a place. None once no more come.
    inbox: Option<UnboundedSender<Arrival>>,
    open: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

struct Arrival {
    stream: TcpStream,
    read: BytesMut,
    place: Place,
    _open: Open,
}

/// What a lane knows of itself and of the others.
#[derive(Clone)]
pub(super) struct Here {
    number: usize,
    alone: Alone,
    seats: Seats,
}

impl Here {
    /// How a connection of this lane waits for its next request.
    pub(super) fn linger(&self) -> Linger {
        Linger::new(self.alone.clone())
    }

    /// Whether the lane has one connection only.
    pub(super) fn is_alone(&self) -> bool {
        self.alone.open.load(Ordering::Relaxed) <= 1
    }

    /// Where a connection of this lane should be.
    pub(super) fn steer(&self) -> Steer {
        Steer::new(self.seats.clone(), self.number)
    }
}

impl Lanes {
    /// One for each processor that this process may use.
    ///
    /// # Errors
    /// When a thread or its poll cannot be had.
    pub(super) fn start(lean: &Lean) -> io::Result<Self> {
        let (alive, ended) = watch::channel(());
        let mut lanes = Self { lanes: Vec::new(), alive: Some(alive) };
        let processors = available_parallelism().map_or(1, usize::from);
        let is_looking = Arc::new(AtomicBool::new(processors == 1));
        let open: Vec<Arc<AtomicUsize>> = (0..processors).map(|_| Arc::default()).collect();
        let seats = Seats::new(one_each(processors), &open);
        for (number, open) in open.into_iter().enumerate() {
            let alone = Alone { open, is_looking: Arc::clone(&is_looking) };
            let here = Here { number, alone, seats: seats.clone() };
            lanes.lanes.push(Lane::start(here, lean.clone(), ended.clone())?);
        }
        Ok(lanes)
    }

    /// Gives a connection to its lane, or where it has none to the one that has the fewest.
    ///
    /// # Errors
    /// When the lane has ended, which only a bug of ours can bring about.
    pub(super) fn take(&self, Parting { stream, read, place, lane }: Parting) -> io::Result<()> {
        let gone = || io::Error::other("a thread that answers connections has ended");
        let Claim { lane, open } = lane.or_else(|| self.emptiest()).ok_or_else(gone)?;
        let inbox = self.lanes.get(lane).and_then(|lane| lane.inbox.as_ref()).ok_or_else(gone)?;
        inbox.send(Arrival { stream, read, place, _open: open }).map_err(|_| gone())
    }

    /// A place in the lane that has the fewest connections.
    fn emptiest(&self) -> Option<Claim> {
        let all = (0..).zip(&self.lanes);
        let (lane, _) = all.min_by_key(|(_, lane)| lane.open.load(Ordering::Relaxed))?;
        Some(self.claim(lane))
    }

    fn claim(&self, lane: usize) -> Claim {
        let open = &self.lanes[lane].open;
        open.fetch_add(1, Ordering::Relaxed);
        Claim { lane, open: Open(Arc::clone(open)) }
    }

    /// No more connections come; each lane ends with its last one.
    pub(super) fn close(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.inbox = None);
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.close();
        self.alive = None;
        for thread in self.lanes.iter_mut().filter_map(|lane| lane.thread.take()) {
            if thread.join().is_err() {
                tracing::error!("a thread that answers connections panicked");
            }
        }
    }
}

impl Lane {
    fn start(here: Here, lean: Lean, ended: watch::Receiver<()>) -> io::Result<Self> {
        let mut runtime = Builder::new_current_thread();
        // Answers wait at most until every connection that was ready had its turn: tokio rests
        // only once it has no more to do before it looks for more.
        let turns = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
        let runtime = runtime.enable_all().event_interval(turns).on_thread_park(rest).build()?;
        let (inbox, arrivals) = unbounded_channel();
        let (open, name) = (Arc::clone(&here.alone.open), format!("answers-{}", here.number));
        let run = move || answer(&runtime, (&lean, &here), arrivals, ended);
        let thread = std::thread::Builder::new().name(name).spawn(run)?;
        Ok(Self { inbox: Some(inbox), open, thread: Some(thread) })
    }
}

/// What a lane's thread does.
fn answer(
    runtime: &Runtime,
    (lean, here): (&Lean, &Here),
    mut arrivals: UnboundedReceiver<Arrival>,
    mut ended: watch::Receiver<()>,
) {
    slices::shorten();
    if let Some(processor) = here.seats.processor(here.number) {
        keep_to(processor);
    }
    runtime.block_on(async {
        let (mut connections, mut is_open) = (JoinSet::new(), true);
        while is_open || !connections.is_empty() {
            tokio::select! {
                arrival = arrivals.recv(), if is_open => match arrival {
                    Some(arrival) => _ = connections.spawn(run(lean.clone(), here.clone(), arrival)),
                    None => is_open = false,
                },
                Some(done) = connections.join_next() => resume(done),
                _ = ended.changed() => break,
            }
        }
    });
}

async fn run(lean: Lean, here: Here, Arrival { stream, read, place, _open }: Arrival) -> io::Result<()> {
    let back = lean.back.clone();
    if let Some(left) = lean.run(tokio::net::TcpStream::from_std(stream)?, read, &here).await? {
        let (stream, read, lane) = (left.stream.into_std()?, left.read, left.lane);
        // Nobody is there only where the server was dropped meanwhile.
        let _ = back.send(Parting { stream, read, place, lane });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
