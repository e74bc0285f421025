//! Brings a connection to the lane on whose processor its bytes arrive. A client on this
//! machine and its lane then wake each other on one processor; to wake somebody on another
//! one takes longer than an answer, and most of all where that is asleep.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpStream;

use super::processors::of_client;

/// Answers between two looks: a look, a system call, then costs a hundredth of one.
const LOOK_EVERY: u32 = 32;
/// Looks in a row that must agree. The system moves clients about, and to change lanes
/// costs as much as some answers.
const AGREED: u32 = 3;
/// How many connections more than its own lane another may have to be given one: where all
/// bytes arrive on one processor, lanes still have the same share of them.
const AHEAD_MAX: usize = 1;

/// All lanes, by number; none where they keep to no processors.
#[derive(Clone)]
pub(super) struct Seats(Arc<[Seat]>);

struct Seat {
    processor: usize,
    /// Connections of the lane.
    open: Arc<AtomicUsize>,
}

/// One connection of a lane, as long as it is counted there.
pub(super) struct Open(pub(super) Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection's place in another lane.
pub(super) struct Claim {
    pub(super) lane: usize,
    pub(super) open: Open,
}

/// Where one connection should be.
pub(super) struct Steer {
    seats: Seats,
    /// The lane where it is.
    here: usize,
    answers: u32,
    wanted: usize,
    agreed: u32,
}

impl Seats {
    /// Lanes with their connections; `processors` has one for each, if they keep to any.
    pub(super) fn new(processors: Option<Vec<usize>>, open: &[Arc<AtomicUsize>]) -> Self {
        let seat = |(processor, open): (usize, &Arc<AtomicUsize>)| Seat { processor, open: Arc::clone(open) };
        Self(processors.unwrap_or_default().into_iter().zip(open).map(seat).collect())
    }

    pub(super) fn processor(&self, lane: usize) -> Option<usize> {
        self.0.get(lane).map(|seat| seat.processor)
    }

    fn lane_at(&self, processor: usize) -> Option<usize> {
        self.0.iter().position(|seat| seat.processor == processor)
    }

    /// A place in lane `to` for a connection of lane `from`, unless that has its share.
    fn claim(&self, from: usize, to: usize) -> Option<Claim> {
        let others = &self.0[to].open;
        // Counted first: several may want to go at once.
        let (had, open) = (others.fetch_add(1, Ordering::Relaxed), Open(Arc::clone(others)));
        let has_room = had <= self.0[from].open.load(Ordering::Relaxed) + AHEAD_MAX;
        has_room.then_some(Claim { lane: to, open })
    }
}

impl Steer {
    pub(super) fn new(seats: Seats, here: usize) -> Self {
        Self { seats, here, answers: 0, wanted: here, agreed: 0 }
    }

    /// To be called after an answer: a place in the other lane that the connection should
    /// go to.
    pub(super) fn look(&mut self, stream: &TcpStream) -> Option<Claim> {
        if self.seats.0.is_empty() {
            return None;
        }
        self.answers += 1;
        if self.answers < LOOK_EVERY {
            return None;
        }
        self.answers = 0;
        let lane = self.seats.lane_at(of_client(stream)?)?;
        self.learn(lane)
    }

    fn learn(&mut self, lane: usize) -> Option<Claim> {
        if lane != self.wanted {
            (self.wanted, self.agreed) = (lane, 0);
        }
        self.agreed = self.agreed.saturating_add(1);
        let is_due = lane != self.here && self.agreed >= AGREED;
        is_due.then(|| self.seats.claim(self.here, lane)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lanes with so many connections each, on processors 4, 5 and so on.
    fn seats(open: &[usize]) -> Seats {
        let open: Vec<_> = open.iter().map(|open| Arc::new(AtomicUsize::new(*open))).collect();
        Seats::new(Some((4..4 + open.len()).collect()), &open)
    }

    /// What comes of a row of looks.
    fn looks<const N: usize>(steer: &mut Steer, lanes: [usize; N]) -> [Option<usize>; N] {
        lanes.map(|lane| steer.learn(lane).map(|claim| claim.lane))
    }

    #[test]
    fn a_connection_goes_where_several_looks_agree() {
        let mut steer = Steer::new(seats(&[1, 0, 0]), 0);
        assert_eq!(looks(&mut steer, [1, 1, 0, 1, 1, 2, 2, 2]), [None, None, None, None, None, None, None, Some(2)]);
        assert_eq!(looks(&mut steer, [0; 4]), [None; 4], "it is there already");
    }

    #[test]
    fn a_lane_gets_no_more_than_its_share() {
        let seats = seats(&[3, 5]);
        let mut steer = Steer::new(seats.clone(), 0);
        assert_eq!(looks(&mut steer, [1; 4]), [None; 4]);
        seats.0[1].open.store(4, Ordering::Relaxed);
        let claim = steer.learn(1).expect("there is room now");
        assert_eq!(seats.0[1].open.load(Ordering::Relaxed), 5, "it is counted from here on");
        assert!(steer.learn(1).is_none());
        drop(claim);
        assert_eq!(seats.0[1].open.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn processors_belong_to_lanes() {
        let two = seats(&[0, 0]);
        assert_eq!([4, 5, 6].map(|processor| two.lane_at(processor)), [Some(0), Some(1), None]);
        assert_eq!([0, 1, 2].map(|lane| two.processor(lane)), [Some(4), Some(5), None]);
        assert_eq!(Seats::new(None, &[Arc::default()]).processor(0), None);
    }
}
