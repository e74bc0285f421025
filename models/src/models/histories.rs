//! Short histories of real threads on real atomics: what was asked and answered, and
//! when, must be what one thread alone could have seen.
//!
//! What the log moves goes in at any time, also while a decision over two words stands
//! between them, so with moves each word's part of a history is searched by itself.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::several::{Ask, Seen, ask_all};
use super::sync::{Mutex, seed};
use super::word::{Full, Word, within};
use crate::search::{Event, is_linearizable};

const THREADS: u64 = 3;
const OPERATIONS: u64 = 4;
/// A fault shows within a few hundred.
const HISTORIES: u64 = 1_500;
/// Small amounts and limits, so that nearly every operation meets the limit.
const LIMIT: i64 = 6;

#[derive(Clone, Debug)]
enum Operation {
    Admit { at: usize, amount: i64, told: Result<i64, Full> },
    Check { at: usize, amount: i64, told: Result<i64, Full> },
    Both { amount: i64, take: bool, seen: Seen },
    Move { at: usize, amount: i64 },
}

/// What two words hold, by the model.
type Held = [i64; 2];

/// The state after an operation; `None` if it cannot have been answered like that.
fn apply(held: &Held, operation: &Operation) -> Option<Held> {
    let mut next = *held;
    let single = |at: usize, amount| within(held[at], amount, LIMIT).ok_or(Full { held: held[at] });
    let as_told = match operation {
        Operation::Check { at, amount, told } => single(*at, *amount) == *told,
        Operation::Admit { at, amount, told } => {
            next[*at] = told.unwrap_or(held[*at]);
            single(*at, *amount) == *told
        }
        Operation::Both { amount, take, seen } => {
            let fits = held.iter().all(|held| held + amount <= LIMIT);
            next = if fits && *take { held.map(|held| held + amount) } else { *held };
            seen.fits == fits && seen.held == held
        }
        Operation::Move { at, amount } => {
            next[*at] += amount;
            true
        }
    };
    as_told.then_some(next)
}

/// The same for one word; whether the other had room is believed.
fn apply_to(at: usize, held: i64, operation: &Operation) -> Option<i64> {
    match operation {
        Operation::Both { amount, take, seen } => {
            let as_told = seen.held[at] == held && (!seen.fits || held + amount <= LIMIT);
            as_told.then_some(if seen.fits && *take { held + amount } else { held })
        }
        Operation::Admit { at: of, .. } | Operation::Check { at: of, .. } | Operation::Move { at: of, .. } => {
            if *of == at { apply(&[held; 2], operation).map(|next| next[at]) } else { Some(held) }
        }
    }
}

struct Site {
    words: [Word; 2],
    several: Mutex<()>,
    clock: AtomicU64,
}

impl Site {
    fn perform(&self, number: u64, moves: bool) -> Operation {
        let (at, amount) = (usize::from(number & 1 != 0), 1 + i64::from(number & 2 != 0));
        match (number >> 2) % if moves { 5 } else { 4 } {
            0 => Operation::Admit { at, amount, told: self.words[at].admit(amount, LIMIT) },
            1 => Operation::Check { at, amount, told: self.words[at].check(amount, LIMIT) },
            4 => {
                let amount = if number & 64 == 0 { amount } else { -amount };
                self.words[at].move_by(amount);
                Operation::Move { at, amount }
            }
            kind => {
                let take = kind == 2;
                let asks = self.words.each_ref().map(|word| Ask { word, amount, hard_limit: LIMIT });
                Operation::Both { amount, take, seen: ask_all(&self.several, &asks, take) }
            }
        }
    }

    fn record(&self, number: u64, moves: bool) -> Event<Operation> {
        let began = self.clock.fetch_add(1, SeqCst);
        let operation = self.perform(number, moves);
        Event { operation, began, ended: self.clock.fetch_add(1, SeqCst) }
    }
}

/// SplitMix64.
fn mixed(number: u64) -> u64 {
    let z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 27)
}

/// What the threads did, and what the words held in the end.
fn history(number: u64, moves: bool) -> (Vec<Event<Operation>>, Held) {
    let site = Site { words: [Word::new(0), Word::new(0)], several: Mutex::new(()), clock: AtomicU64::new(0) };
    let ready = AtomicU64::new(0);
    let run = |thread: u64| {
        let first = (number * THREADS + thread) * OPERATIONS;
        seed(mixed(first));
        ready.fetch_add(1, SeqCst);
        while ready.load(SeqCst) < THREADS {
            std::thread::yield_now();
        }
        (first..first + OPERATIONS).map(|number| site.record(mixed(number), moves)).collect::<Vec<_>>()
    };
    let run = &run;
    let mut events = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || run(thread))).collect();
        for thread in threads {
            events.extend(thread.join().unwrap_or_else(|_| panic!("a thread of history {number} ended in a panic")));
        }
    });
    let end = site.words.each_ref().map(Word::held);
    (events, end)
}

/// One more event after all others, that sees what the words hold in the end.
fn ended(end: Held) -> Event<Operation> {
    let seen = Seen { held: end.to_vec(), fits: end.iter().all(|held| *held <= LIMIT) };
    Event { operation: Operation::Both { amount: 0, take: false, seen }, began: u64::MAX - 1, ended: u64::MAX }
}

/// Decisions alone: both words in one order.
pub fn decisions() {
    for number in 0..HISTORIES {
        let (mut events, end) = history(number, false);
        events.push(ended(end));
        assert!(is_linearizable(&events, [0, 0], apply), "history {number}: {events:#?}");
    }
}

/// Decisions and what the log moves: each word in an order of its own.
pub fn decisions_and_moves() {
    for number in 0..HISTORIES {
        let (mut events, end) = history(number, true);
        events.push(ended(end));
        for at in [0, 1] {
            let apply = |held: &i64, operation: &Operation| apply_to(at, *held, operation);
            assert!(is_linearizable(&events, 0, apply), "history {number}, word {at}: {events:#?}");
        }
    }
}

/// By name.
pub const ALL: &[(&str, fn())] = &[("decisions", decisions), ("decisions_and_moves", decisions_and_moves)];
