//! Messages that were read together, on their way: their envelopes to the log, their
//! dead letters to theirs. A batch is done when all of them are stored; only then may
//! the offsets behind its messages be committed. What did not get through is sent
//! again with the same bytes, for as long as it takes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::dead::{DeadLetters, Letter};
use crate::gateway::Envelope;
use crate::log::{AppendError, LogAppender, PendingAppend};

/// How long a piece that did not get through waits before it is sent again.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// What a batch is sent through.
pub(super) struct Outlets<'a> {
    pub(super) log: &'a dyn LogAppender,
    pub(super) dead: &'a DeadLetters,
}

/// Messages on their way.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pieces: Vec<Piece>,
    /// Per ingress partition, the offset behind the last message.
    pub(super) next_offsets: BTreeMap<u32, u64>,
    pub(super) messages: usize,
    pub(super) events: usize,
    pub(super) records: usize,
    pub(super) letters: usize,
}

#[derive(Debug)]
struct Piece {
    load: Load,
    state: State,
}

#[derive(Debug)]
enum Load {
    Envelope(Envelope),
    Letter(Letter),
}

#[derive(Debug)]
enum State {
    /// To be sent, not before then.
    Waiting(Option<Instant>),
    UnderWay(PendingAppend),
}

/// Why a piece has not got through.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// It is tried again.
    Passing(String),
    /// It cannot get through any more.
    Final(String),
}

impl Batch {
    pub(super) fn add_envelopes(&mut self, envelopes: Vec<Envelope>) {
        let piece = |envelope| Piece { load: Load::Envelope(envelope), state: State::Waiting(None) };
        self.pieces.extend(envelopes.into_iter().map(piece));
    }

    pub(super) fn add_letter(&mut self, letter: Letter) {
        self.letters += 1;
        self.pieces.push(Piece { load: Load::Letter(letter), state: State::Waiting(None) });
    }

    pub(super) fn is_done(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Sends what waits and takes the answers that are there. Gives what stood in the
    /// way of some piece, if anything did.
    pub(super) fn advance(&mut self, outlets: &Outlets<'_>) -> Option<Obstacle> {
        let mut obstacle = None;
        let now = Instant::now();
        self.pieces.retain_mut(|piece| match piece.advance(outlets, now) {
            Ok(is_stored) => !is_stored,
            Err(found) => {
                if !matches!(obstacle, Some(Obstacle::Final(_))) {
                    obstacle = Some(found);
                }
                true
            }
        });
        obstacle
    }
}

impl Piece {
    /// Whether it is stored.
    fn advance(&mut self, outlets: &Outlets<'_>, now: Instant) -> Result<bool, Obstacle> {
        if let State::Waiting(not_before) = &self.state {
            if not_before.is_some_and(|not_before| now < not_before) {
                return Ok(false);
            }
            self.state = State::UnderWay(match &self.load {
                Load::Envelope(Envelope { partition, bytes }) => outlets.log.append(*partition, bytes.clone()),
                Load::Letter(letter) => outlets.dead.send(letter),
            });
        }
        let State::UnderWay(pending) = &mut self.state else { return Ok(false) };
        match pending.try_wait() {
            None => Ok(false),
            Some(Ok(_)) => Ok(true),
            Some(Err(error)) => {
                self.state = State::Waiting(Some(now + RETRY_AFTER));
                self.obstacle(&error).map_or(Ok(false), Err)
            }
        }
    }

    fn obstacle(&self, error: &AppendError) -> Option<Obstacle> {
        match (&self.load, error) {
            // A full queue is back-pressure, no trouble.
            (_, AppendError::Busy) => None,
            (_, AppendError::Unavailable(reason)) => Some(Obstacle::Passing(reason.clone())),
            (Load::Letter(letter), AppendError::TooLarge { .. }) => Some(Obstacle::Passing(format!(
                "the dead-letter topic does not take a letter of {} bytes; raise its max.message.bytes",
                letter.bytes()
            ))),
            (_, error) => Some(Obstacle::Final(error.to_string())),
        }
    }
}
