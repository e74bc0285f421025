//! A live reservation: its ledger, the counters that it holds on, and how much it holds
//! on them now. Whoever changes the one changes the other, under one lock.
//!
//! What is over is only remembered, for a day and mostly asked for by nobody: it sleeps,
//! which takes little room, until somebody asks.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use odometer_schemas::quota::{Action, OPERATIONS_REMEMBERED, Scope};
use smallvec::SmallVec;

use super::account::Counter;
use super::book::{decoded, kept};
use super::early::Early;
use super::ledger::{Ledger, Phase};
use super::name::Name;
use super::sync::{Mutex, MutexGuard, PoisonError};
use crate::cells::Cell;
use crate::prefetch::prefetch_whole;

/// How long a reservation whose time is over is waited for in the log, in milliseconds.
/// An append that was not confirmed may still arrive for as long as a producer tries.
const UNBOOKED_MS: i64 = 120_000;
/// When one is looked at again that is over and could neither sleep nor be forgotten: what
/// was decided about it is in the log within milliseconds.
pub(crate) const AWAKE_MS: i64 = 1_000;

/// The counters that one line holds on, by scope; mostly the tenant's alone.
pub(crate) type Layers = SmallVec<[(Scope, Counter); 1]>;
/// Those of all lines; mostly one.
pub(crate) type Counters = SmallVec<[Layers; 1]>;

/// A reservation that is being held, or remembered.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) name: Name,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// By which the log's side finds it; none until the log has it, as far as this node has
    /// read.
    number: Option<u64>,
    /// It is found no more; whoever still has it in hand decides nothing about it.
    is_forgotten: bool,
    life: Life,
}

#[derive(Debug)]
enum Life {
    Awake(Box<HoldState>),
    /// Its ledger. It holds nothing, the log has it, and all that was decided about it.
    Asleep(Box<[u8]>),
}

/// One that the log has: its number and its ledger there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Booked<'a> {
    pub(crate) number: u64,
    pub(crate) ledger: &'a Ledger,
}

/// What there is of one that is awake.
#[derive(Debug)]
pub(crate) struct HoldState {
    pub(crate) ledger: Ledger,
    /// By line.
    pub(crate) counters: Counters,
    /// What its words hold for it, by line.
    held: SmallVec<[i64; 1]>,
    /// Its time is over: it holds nothing until a commit says otherwise.
    pub(crate) is_over: bool,
    /// Operations that were decided here and that the log may not have yet.
    on_the_way: usize,
    /// When the newest of them was decided, Unix milliseconds.
    decided_ms: i64,
}

/// One that is awake, and nobody else changes it meanwhile.
pub(crate) struct Awake<'a>(MutexGuard<'a, State>);

impl Hold {
    /// A reservation whose amounts were admitted just now.
    pub(crate) fn admitted(name: Name, counters: Counters, ledger: Ledger) -> Self {
        let held = ledger.lines.iter().map(|line| ledger.held(line)).collect();
        Self::awake(name, None, HoldState::new(ledger, counters, held))
    }

    /// A reservation from the log or the book; takes what it holds, limits or not.
    pub(crate) fn booked(name: Name, counters: Counters, Booked { number, ledger }: Booked<'_>) -> Self {
        let held = SmallVec::from_elem(0, ledger.lines.len());
        let mut state = HoldState::new(ledger.clone(), counters, held);
        state.settle();
        Self::awake(name, Some(number), state)
    }

    /// One that has ended and that the log has.
    pub(crate) fn remembered(name: Name, Booked { number, ledger }: Booked<'_>) -> Self {
        Self::new(name, Some(number), Life::Asleep(kept(ledger)))
    }

    fn awake(name: Name, number: Option<u64>, state: HoldState) -> Self {
        Self::new(name, number, Life::Awake(Box::new(state)))
    }

    fn new(name: Name, number: Option<u64>, life: Life) -> Self {
        Self { name, state: Mutex::new(State { number, is_forgotten: false, life }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To look at it and change it. One that sleeps is woken first: `wake` says on which
    /// counters it holds.
    pub(crate) fn open(&self, wake: impl FnOnce(&Ledger) -> Counters) -> Awake<'_> {
        let mut state = self.lock();
        if let Life::Asleep(asleep) = &state.life {
            let ledger: Ledger = decoded(asleep).expect("what sleeps was written here");
            let (counters, held) = (wake(&ledger), SmallVec::from_elem(0, ledger.lines.len()));
            state.life = Life::Awake(Box::new(HoldState { is_over: true, ..HoldState::new(ledger, counters, held) }));
        }
        Awake(state)
    }

    /// Hints that it will be looked at soon.
    pub(crate) fn prefetch(&self) {
        if let Life::Awake(awake) = &self.lock().life {
            prefetch_whole(&raw const **awake);
        }
    }

    /// Hints that what it holds on will be moved, and let go of.
    pub(crate) fn prefetch_counters(&self) {
        if let Life::Awake(awake) = &self.lock().life {
            awake.counters.iter().flatten().for_each(|(_, counter)| counter.prefetch());
        }
    }

    /// By which the log's side finds it; none until the log has it.
    pub(crate) fn number(&self) -> Option<u64> {
        self.lock().number
    }

    /// Whether the log never had it and it holds nothing.
    pub(crate) fn is_vain(&self) -> bool {
        let state = self.lock();
        state.number.is_none() && matches!(&state.life, Life::Awake(awake) if awake.is_over)
    }

    #[cfg(test)]
    pub(crate) fn is_asleep(&self) -> bool {
        matches!(self.lock().life, Life::Asleep(_))
    }

    /// The log has it, as this one.
    pub(crate) fn book(&self, number: u64) {
        self.lock().number = Some(number);
    }

    /// It is found no more: frees what it held, for good.
    pub(crate) fn forget(&self) {
        let mut state = self.lock();
        state.is_forgotten = true;
        if let Life::Awake(awake) = &mut state.life {
            awake.is_over = true;
            awake.settle();
        }
    }

    /// Its time may be over: frees what it held if so, and puts it to sleep once the log has
    /// all of it. Also whether this ended it.
    pub(crate) fn expire(&self, now_ms: i64) -> (Next, bool) {
        let mut state = self.lock();
        let is_booked = state.number.is_some();
        let Life::Awake(awake) = &mut state.life else { return (Next::Remember, false) };
        if let Some(ends_ms) = awake.ledger.ends_ms().filter(|ends_ms| *ends_ms > now_ms) {
            return (Next::Look { at_ms: ends_ms }, false);
        }
        let was_open = awake.is_open();
        let was_over = std::mem::replace(&mut awake.is_over, true);
        awake.settle();
        let next = match (is_booked, was_over) {
            (true, _) if awake.is_told(now_ms) => {
                let asleep = kept(&awake.ledger);
                state.life = Life::Asleep(asleep);
                Next::Remember
            }
            (true, _) => Next::Look { at_ms: now_ms.saturating_add(AWAKE_MS) },
            (false, false) => Next::Look { at_ms: now_ms.saturating_add(UNBOOKED_MS) },
            (false, true) => Next::Forget,
        };
        (next, was_open)
    }
}

/// What becomes of a reservation that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is looked at again then, Unix milliseconds.
    Look { at_ms: i64 },
    /// The log has it, and says when it is forgotten.
    Remember,
    /// The log never had it.
    Forget,
}

impl Awake<'_> {
    /// Whether the log has it.
    pub(crate) fn is_booked(&self) -> bool {
        self.0.number.is_some()
    }

    /// Whether it is found no more, though the caller found it before.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.0.is_forgotten
    }
}

impl Deref for Awake<'_> {
    type Target = HoldState;

    fn deref(&self) -> &HoldState {
        match &self.0.life {
            Life::Awake(state) => state,
            Life::Asleep(_) => unreachable!("it was woken under this lock"),
        }
    }
}

impl DerefMut for Awake<'_> {
    fn deref_mut(&mut self) -> &mut HoldState {
        match &mut self.0.life {
            Life::Awake(state) => state,
            Life::Asleep(_) => unreachable!("it was woken under this lock"),
        }
    }
}

impl HoldState {
    fn new(ledger: Ledger, counters: Counters, held: SmallVec<[i64; 1]>) -> Self {
        Self { ledger, counters, held, is_over: false, on_the_way: 0, decided_ms: 0 }
    }

    /// Takes what is decided here at `now_ms`, and what it was admitted for besides is on
    /// the words already.
    pub(crate) fn decide(&mut self, action: &Action<'_>, admitted: &[(usize, i64)], now_ms: i64) {
        self.on_the_way = if self.is_silent(now_ms) { 1 } else { self.on_the_way + 1 };
        self.decided_ms = now_ms;
        self.take(action, admitted);
    }

    /// Applies what was decided about it, and brings the words along.
    pub(crate) fn take(&mut self, action: &Action<'_>, admitted: &[(usize, i64)]) {
        // Operations reach the log in their order: what was decided before one that is
        // read is on its way no more.
        if let Some(newer) = self.ledger.newer_than(action) {
            self.on_the_way = self.on_the_way.min(newer);
        }
        let is_new = self.ledger.apply(action);
        // Another owner extended it in time, or it is spent all the same.
        if let Action::Extend { .. } | Action::Commit { settle_until_ms: Some(_), .. } = action {
            self.is_over &= !is_new;
        }
        for (line, amount) in admitted {
            self.held[*line] += amount;
        }
        self.settle();
    }

    /// Brings the words to what the ledger holds.
    fn settle(&mut self) {
        self.settle_around(None);
    }

    /// The same, but for one total, whose word the caller moves together with what it
    /// counted: by how much.
    fn settle_around(&mut self, around: Option<&Arc<Cell>>) -> i64 {
        let mut left_to_caller = 0;
        for ((line, held), counters) in self.ledger.lines.iter().zip(&mut self.held).zip(&self.counters) {
            let holds = if self.is_over { 0 } else { self.ledger.held(line) };
            let change = holds - *held;
            *held = holds;
            if change == 0 {
                continue;
            }
            for (_, counter) in counters {
                if around.is_some_and(|cell| counter.is_cell(cell)) {
                    left_to_caller += change;
                } else {
                    counter.word().move_by(change);
                }
            }
        }
        left_to_caller
    }

    /// An accepted record drew on it, and was counted in `cell`: by how much the
    /// cell's word moves for that, besides the record itself.
    pub(crate) fn draw(&mut self, meter: &str, quantity: i64, cell: &Arc<Cell>) -> i64 {
        if !self.ledger.draw(meter, quantity) {
            return 0;
        }
        self.settle_around(Some(cell))
    }

    /// Accepted records drew on it before the log had it.
    pub(crate) fn draw_early(&mut self, early: &Early) {
        for (meter, quantity) in early.drawn() {
            self.ledger.draw(meter, quantity);
        }
        self.settle();
    }

    /// Whether one more operation can be decided: it must not drive one out of memory
    /// that the log still brings, which would be taken again then.
    pub(crate) fn has_room(&self, now_ms: i64) -> bool {
        self.on_the_way < OPERATIONS_REMEMBERED || self.is_silent(now_ms)
    }

    /// Whether nothing can be on its way any more.
    fn is_silent(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.decided_ms) > UNBOOKED_MS
    }

    /// Whether the log has what was decided about it, or never will.
    fn is_told(&self, now_ms: i64) -> bool {
        self.on_the_way == 0 || self.is_silent(now_ms)
    }

    /// Whether it can still be extended.
    pub(crate) fn is_open(&self) -> bool {
        self.ledger.phase == Phase::Open && !self.is_over
    }
}
