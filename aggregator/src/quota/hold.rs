//! A live reservation: its ledger, the counters that it holds on, and how much it holds
//! on them now. Whoever changes the one changes the other, under one lock.

use std::sync::Arc;

use odometer_schemas::quota::{Action, OPERATIONS_REMEMBERED, Scope};
use smallvec::SmallVec;

use super::account::{Account, Counter};
use super::early::Early;
use super::ledger::{Ledger, Phase};
use super::sync::{Mutex, MutexGuard, PoisonError};
use crate::cells::Cell;

/// How long a reservation whose time is over is waited for in the log, in milliseconds.
/// An append that was not confirmed may still arrive for as long as a producer tries.
const UNBOOKED_MS: i64 = 120_000;

/// The counters that one line holds on, by scope; mostly the tenant's alone.
pub(crate) type Layers = SmallVec<[(Scope, Counter); 1]>;
/// Those of all lines; mostly one.
pub(crate) type Counters = SmallVec<[Layers; 1]>;

/// A reservation that is being held, or remembered.
#[derive(Debug)]
pub(crate) struct Hold {
    /// The tenant's account.
    pub(crate) account: Arc<Account>,
    /// Its id.
    pub(crate) id: Box<str>,
    /// By line.
    pub(crate) counters: Counters,
    state: Mutex<HoldState>,
}

/// What changes about it.
#[derive(Debug)]
pub(crate) struct HoldState {
    pub(crate) ledger: Ledger,
    /// What its words hold for it, by line.
    held: SmallVec<[i64; 1]>,
    /// Its time is over: it holds nothing until a commit says otherwise.
    pub(crate) is_over: bool,
    /// Whether the log has it, as far as this node has read.
    pub(crate) is_booked: bool,
    /// Operations that were decided here and that the log may not have yet.
    on_the_way: usize,
    /// When the newest of them was decided, Unix milliseconds.
    decided_ms: i64,
}

impl Hold {
    /// A reservation whose amounts were admitted just now.
    pub(crate) fn admitted(account: Arc<Account>, id: &str, counters: Counters, ledger: Ledger) -> Self {
        let held = ledger.lines.iter().map(|line| ledger.held(line)).collect();
        Self { account, id: id.into(), counters, state: Mutex::new(HoldState::new(ledger, held, false)) }
    }

    /// A reservation from the log or the book; takes what it holds, limits or not.
    pub(crate) fn booked(account: Arc<Account>, id: &str, counters: Counters, ledger: Ledger) -> Self {
        let held = SmallVec::from_elem(0, ledger.lines.len());
        let hold = Self { account, id: id.into(), counters, state: Mutex::new(HoldState::new(ledger, held, true)) };
        hold.settle(&mut hold.lock());
        hold
    }

    /// One that is only remembered: its time is over, and the log has it.
    pub(crate) fn remembered(account: Arc<Account>, id: &str, counters: Counters, ledger: Ledger) -> Self {
        let held = SmallVec::from_elem(0, ledger.lines.len());
        let state = HoldState { is_over: true, ..HoldState::new(ledger, held, true) };
        Self { account, id: id.into(), counters, state: Mutex::new(state) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, HoldState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what is decided here at `now_ms`, and what it was admitted for besides is on
    /// the words already.
    pub(crate) fn decide(&self, state: &mut HoldState, action: &Action, admitted: &[(usize, i64)], now_ms: i64) {
        state.on_the_way = if state.is_silent(now_ms) { 1 } else { state.on_the_way + 1 };
        state.decided_ms = now_ms;
        self.take(state, action, admitted);
    }

    /// Applies what was decided about it, and brings the words along.
    pub(crate) fn take(&self, state: &mut HoldState, action: &Action, admitted: &[(usize, i64)]) {
        // Operations reach the log in their order: what was decided before one that is
        // read is on its way no more.
        if let Some(newer) = state.ledger.newer_than(action) {
            state.on_the_way = state.on_the_way.min(newer);
        }
        let is_new = state.ledger.apply(action);
        // Another owner extended it in time, or it is spent all the same.
        if let Action::Extend { .. } | Action::Commit { settle_until_ms: Some(_), .. } = action {
            state.is_over &= !is_new;
        }
        for (line, amount) in admitted {
            state.held[*line] += amount;
        }
        self.settle(state);
    }

    /// Brings the words to what the ledger holds.
    pub(crate) fn settle(&self, state: &mut HoldState) {
        self.settle_around(state, None);
    }

    /// The same, but for one total, whose word the caller moves together with what it
    /// counted: by how much.
    fn settle_around(&self, state: &mut HoldState, around: Option<&Arc<Cell>>) -> i64 {
        let mut left_to_caller = 0;
        for ((line, held), counters) in state.ledger.lines.iter().zip(&mut state.held).zip(&self.counters) {
            let holds = if state.is_over { 0 } else { state.ledger.held(line) };
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
    pub(crate) fn draw(&self, meter: &str, quantity: i64, cell: &Arc<Cell>) -> i64 {
        let mut state = self.lock();
        if !state.ledger.draw(meter, quantity) {
            return 0;
        }
        self.settle_around(&mut state, Some(cell))
    }

    /// The log has it; accepted records may have drawn on it before.
    pub(crate) fn book(&self, early: Option<&Early>) {
        let mut state = self.lock();
        state.is_booked = true;
        let Some(early) = early else { return };
        for (meter, quantity) in early.drawn() {
            state.ledger.draw(meter, quantity);
        }
        self.settle(&mut state);
    }

    /// Its time may be over: frees what it held if so.
    pub(crate) fn expire(&self, now_ms: i64) -> Next {
        let mut state = self.lock();
        if let Some(ends_ms) = state.ledger.ends_ms().filter(|ends_ms| *ends_ms > now_ms) {
            return Next::Look { at_ms: ends_ms };
        }
        let was_over = std::mem::replace(&mut state.is_over, true);
        self.settle(&mut state);
        match (state.is_booked, was_over) {
            (true, _) => Next::Remember,
            (false, false) => Next::Look { at_ms: now_ms.saturating_add(UNBOOKED_MS) },
            (false, true) => Next::Forget,
        }
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

impl HoldState {
    fn new(ledger: Ledger, held: SmallVec<[i64; 1]>, is_booked: bool) -> Self {
        Self { ledger, held, is_over: false, is_booked, on_the_way: 0, decided_ms: 0 }
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

    /// All that there is to know of it, once it holds nothing, and the log has it and what
    /// was decided about it, or never will.
    pub(crate) fn at_rest(&self, now_ms: i64) -> Option<&Ledger> {
        let is_told = self.on_the_way == 0 || self.is_silent(now_ms);
        (self.is_over && self.is_booked && is_told).then_some(&self.ledger)
    }

    /// Whether it can still be extended.
    pub(crate) fn is_open(&self) -> bool {
        self.ledger.phase == Phase::Open && !self.is_over
    }
}
