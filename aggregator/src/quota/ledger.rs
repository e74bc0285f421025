//! One reservation: what was reserved, drawn and committed, and so what it still holds.
//! The log's side and the live side keep one each and run the same transitions.

use std::borrow::Cow;

use bincode::{Decode, Encode};
use odometer_schemas::quota::{Action, Decision, HeldItem, OPERATIONS_REMEMBERED};
use odometer_schemas::time::{Interval, TimeMs};

use super::short::{Few, MeterName};

/// Where a reservation stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Phase {
    /// May be extended and drawn.
    Open,
    /// Its total is stated; the rest is held until its records are there.
    Settling {
        /// Or until then, Unix milliseconds.
        until_ms: i64,
    },
    /// Holds nothing.
    Ended,
}

/// One meter of a reservation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Line {
    pub(crate) meter: MeterName,
    /// The period that it was reserved in; none for concurrency.
    pub(crate) period_ms: Option<(i64, i64)>,
    /// Reserved in all, extensions included.
    reserved: i64,
    /// Accepted records that carried the reservation.
    drawn: i64,
    /// Used in all, as last committed.
    committed: Option<i64>,
}

impl Line {
    /// The period as an interval.
    pub(crate) fn period(&self) -> Option<Interval> {
        self.period_ms.map(|(start, end)| Interval { start: TimeMs(start), end: TimeMs(end) })
    }
}

/// The state of one reservation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Ledger {
    pub(crate) subject: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) lines: Few<Line>,
    pub(crate) phase: Phase,
    pub(crate) expires_ms: i64,
    /// Fingerprint of the request that made it.
    pub(crate) body: u128,
    pub(crate) decision: Decision,
    /// Hashes of the newest operations, oldest first.
    operations: Vec<u64>,
}

impl Ledger {
    /// The reservation that `action` makes; `None` when it makes none.
    pub(crate) fn open(action: &Action<'_>) -> Option<Self> {
        let Action::Reserve { subject, key, items, expires_ms, body, decision } = action else { return None };
        let line = |item: &HeldItem<'_>| {
            let (meter, period_ms) = ((&*item.meter).into(), item.period_ms);
            Line { meter, period_ms, reserved: item.amount, drawn: 0, committed: None }
        };
        Some(Self {
            subject: subject.as_deref().map(str::to_owned),
            key: key.as_deref().map(str::to_owned),
            lines: items.iter().map(line).collect(),
            phase: Phase::Open,
            expires_ms: *expires_ms,
            body: *body,
            decision: *decision,
            operations: Vec::new(),
        })
    }

    /// The action that made it, of `items`.
    pub(crate) fn reserving<'a>(&self, items: Vec<HeldItem<'a>>) -> Action<'a> {
        Action::Reserve {
            subject: self.subject.clone().map(Cow::Owned),
            key: self.key.clone().map(Cow::Owned),
            items,
            expires_ms: self.expires_ms,
            body: self.body,
            decision: self.decision,
        }
    }

    /// Whether the id of an operation was used with another body. Its hash has the id in
    /// its high half, the body in its low one.
    pub(crate) fn contradicts(&self, op: u64) -> bool {
        self.operations.iter().any(|known| known >> 32 == op >> 32 && *known != op)
    }

    /// Whether an operation was applied already, as far as that is remembered.
    pub(crate) fn knows(&self, op: u64) -> bool {
        self.operations.contains(&op)
    }

    /// Operations that are remembered and were taken after this one.
    pub(crate) fn newer_than(&self, action: &Action<'_>) -> Option<usize> {
        let (Action::Extend { op, .. } | Action::Commit { op, .. } | Action::Release { op }) = action else {
            return None;
        };
        self.operations.iter().rev().position(|known| known == op)
    }

    /// Applies what was decided about it, and whether it was news; a repetition changes
    /// nothing.
    pub(crate) fn apply(&mut self, action: &Action<'_>) -> bool {
        match action {
            Action::Reserve { .. } => false,
            Action::Extend { op, expires_ms, add } => {
                let is_new = self.remember(*op) && self.phase == Phase::Open;
                if is_new {
                    self.expires_ms = *expires_ms;
                    for item in add {
                        if let Some(line) = self.line_mut(&item.meter) {
                            line.reserved = line.reserved.saturating_add(item.amount);
                        }
                    }
                }
                is_new
            }
            Action::Commit { op, items, settle_until_ms } => {
                let is_new = self.remember(*op) && self.phase != Phase::Ended;
                if is_new {
                    for item in items {
                        if let Some(line) = self.line_mut(&item.meter) {
                            line.committed = Some(item.amount);
                        }
                    }
                    if let Some(until_ms) = *settle_until_ms {
                        self.phase = Phase::Settling { until_ms };
                    }
                }
                is_new
            }
            Action::Release { op } => {
                let is_new = self.remember(*op);
                if is_new {
                    self.phase = Phase::Ended;
                }
                is_new
            }
        }
    }

    /// An accepted record drew on it; whether it has such a line. Negative quantities
    /// correct usage and give nothing back.
    pub(crate) fn draw(&mut self, meter: &str, quantity: i64) -> bool {
        let line = self.line_mut(meter);
        let is_drawn = line.is_some();
        if let Some(line) = line {
            line.drawn = line.drawn.saturating_add(quantity.max(0));
        }
        is_drawn
    }

    /// What a line holds until its time is over; afterwards nothing.
    pub(crate) fn held(&self, line: &Line) -> i64 {
        let whole = match self.phase {
            Phase::Open => line.reserved.max(line.committed.unwrap_or(0)),
            Phase::Settling { .. } => line.committed.unwrap_or(line.drawn),
            Phase::Ended => 0,
        };
        whole.saturating_sub(line.drawn).max(0)
    }

    /// When what it holds ends by itself; `None` once it holds nothing.
    pub(crate) fn ends_ms(&self) -> Option<i64> {
        match self.phase {
            Phase::Open => Some(self.expires_ms),
            Phase::Settling { until_ms } => Some(until_ms),
            Phase::Ended => None,
        }
    }

    fn line_mut(&mut self, meter: &str) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.meter == *meter)
    }

    /// Whether the operation is new; remembers it.
    fn remember(&mut self, op: u64) -> bool {
        if self.knows(op) {
            return false;
        }
        if self.operations.len() == OPERATIONS_REMEMBERED {
            self.operations.remove(0);
        }
        self.operations.push(op);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(amount: i64) -> HeldItem<'static> {
        HeldItem { meter: "m".into(), amount, period_ms: Some((0, 10)) }
    }

    fn ledger(amount: i64) -> Ledger {
        let reserve = Action::Reserve {
            subject: None,
            key: None,
            items: vec![item(amount)],
            expires_ms: 100,
            body: 0,
            decision: Decision::Allow,
        };
        Ledger::open(&reserve).unwrap()
    }

    fn held(ledger: &Ledger) -> i64 {
        ledger.held(&ledger.lines[0])
    }

    #[test]
    fn records_draw_it_down_to_nothing_and_no_further() {
        let mut ledger = ledger(10);
        assert!(ledger.draw("m", 4) && !ledger.draw("other", 4));
        assert_eq!(held(&ledger), 6);
        ledger.draw("m", -4);
        assert_eq!(held(&ledger), 6);
        ledger.draw("m", 40);
        assert_eq!(held(&ledger), 0);
    }

    #[test]
    fn an_extension_counts_once() {
        let mut ledger = ledger(10);
        let extend = Action::Extend { op: 1, expires_ms: 200, add: vec![item(5)] };
        ledger.apply(&extend);
        ledger.apply(&extend);
        assert_eq!((held(&ledger), ledger.ends_ms()), (15, Some(200)));
    }

    #[test]
    fn a_final_commit_holds_what_its_records_have_not_said_yet() {
        let mut ledger = ledger(10);
        ledger.draw("m", 3);
        ledger.apply(&Action::Commit { op: 1, items: vec![item(25)], settle_until_ms: Some(500) });
        assert_eq!((held(&ledger), ledger.ends_ms()), (22, Some(500)));
        ledger.draw("m", 22);
        assert_eq!(held(&ledger), 0);
    }

    #[test]
    fn a_final_commit_without_amounts_holds_nothing() {
        let mut ledger = ledger(10);
        ledger.draw("m", 3);
        ledger.apply(&Action::Commit { op: 1, items: vec![], settle_until_ms: Some(500) });
        assert_eq!(held(&ledger), 0);
    }

    #[test]
    fn a_commit_on_the_way_raises_what_is_held_and_a_release_ends_it() {
        let mut ledger = ledger(10);
        ledger.apply(&Action::Commit { op: 1, items: vec![item(12)], settle_until_ms: None });
        assert_eq!(held(&ledger), 12);
        ledger.apply(&Action::Release { op: 2 });
        ledger.apply(&Action::Extend { op: 3, expires_ms: 900, add: vec![item(1)] });
        assert_eq!((held(&ledger), ledger.ends_ms()), (0, None));
    }
}
