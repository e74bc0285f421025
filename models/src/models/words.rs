//! Two or three threads at one or two words, every interleaving of them.

use super::several::{Ask, Seen, ask_all};
use super::sync::{Arc, Mutex, thread};
use super::word::{Full, Word};

/// Two words that decisions ask together.
struct Pair {
    words: [Word; 2],
    several: Mutex<()>,
}

impl Pair {
    fn new(held: [i64; 2]) -> Arc<Self> {
        Arc::new(Self { words: held.map(Word::new), several: Mutex::new(()) })
    }

    fn ask(&self, amount: i64, hard_limits: [i64; 2], take: bool) -> Seen {
        let ask = |at: usize| Ask { word: &self.words[at], amount, hard_limit: hard_limits[at] };
        ask_all(&self.several, &[ask(0), ask(1)], take)
    }

    fn held(&self) -> [i64; 2] {
        self.words.each_ref().map(Word::held)
    }
}

fn spawn<T: 'static>(pair: &Arc<Pair>, run: impl FnOnce(&Pair) -> T + 'static) -> thread::JoinHandle<T> {
    let pair = Arc::clone(pair);
    thread::spawn(move || run(&pair))
}

fn join<T>(thread: thread::JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|_| panic!("a thread of the model ended in a panic"))
}

/// Three at a limit with room for two: exactly two are admitted, and each is told
/// another whole.
pub fn three_at_a_limit() {
    let pair = Pair::new([5, 0]);
    let others = [(); 2].map(|()| spawn(&pair, |pair| pair.words[0].admit(1, 7)));
    let mut told = vec![pair.words[0].admit(1, 7)];
    told.extend(others.map(join));
    told.sort_unstable_by_key(|told| told.map_or_else(|full| full.held + 1, |whole| whole));
    assert_eq!(told, [Ok(6), Ok(7), Err(Full { held: 7 })]);
    assert_eq!(pair.held(), [7, 0]);
}

/// The log settles and frees while two ask: nothing is lost, and of what was there at
/// no moment nothing is given.
pub fn moved_while_two_ask() {
    let pair = Pair::new([8, 0]);
    let other = spawn(&pair, |pair| pair.words[0].admit(2, 10).is_ok());
    let writer = spawn(&pair, |pair| {
        pair.words[0].move_by(2);
        pair.words[0].move_by(-1);
    });
    let admitted = i64::from(pair.words[0].admit(2, 10).is_ok()) + i64::from(join(other));
    join(writer);
    assert!(admitted <= 1, "{admitted} of 2 at once beyond 10");
    assert_eq!(pair.held(), [9 + 2 * admitted, 0]);
}

/// Two decisions over both words, where there is room for one.
pub fn two_over_both() {
    let pair = Pair::new([0, 1]);
    let other = spawn(&pair, |pair| pair.ask(2, [3, 3], true));
    let told = [pair.ask(2, [3, 3], true), join(other)];
    let held = pair.held();
    assert_eq!(held, [2, 3]);
    let fits = |held: [i64; 2]| told.iter().any(|told| told.fits == (held == [0, 1]) && told.held == held);
    assert!(fits([0, 1]) && fits([2, 3]), "{told:?}");
    assert_eq!(pair.words[0].admit(1, 3), Ok(3), "held still for nobody");
}

/// One over both words while another takes from each alone: nobody takes what the other
/// was just told is there.
pub fn both_and_each_alone() {
    let pair = Pair::new([0, 0]);
    let single = spawn(&pair, |pair| [1, 0].map(|at| pair.words[at].admit(2, 3).is_ok()));
    let both = pair.ask(2, [3, 3], true);
    let [second, first] = join(single);
    let held = pair.held();
    let count = |single: bool| 2 * (i64::from(single) + i64::from(both.fits));
    assert_eq!(held, [count(first), count(second)]);
    assert!(held[0] <= 3 && held[1] <= 3, "{held:?} beyond 3");
    assert!(both.fits || second || first, "somebody had room");
}

/// Whoever looks at one word after the other sees a decision over both on none, on
/// both, or begun before the second look; never on the first only.
pub fn nobody_sees_half() {
    let pair = Pair::new([0, 0]);
    let looker = spawn(&pair, |pair| [0, 1].map(|at| pair.words[at].check(0, i64::MAX).expect("it has room")));
    assert!(pair.ask(1, [1, 1], true).fits);
    let seen = join(looker);
    assert_ne!(seen, [1, 0], "half of a decision");
}

/// The same for one that looks at both words together.
pub fn looks_at_both_see_all_or_nothing() {
    let pair = Pair::new([0, 0]);
    let looker = spawn(&pair, |pair| pair.ask(0, [9, 9], false));
    assert!(pair.ask(1, [1, 1], true).fits);
    let seen = join(looker).held;
    assert!(seen == [0, 0] || seen == [1, 1], "{seen:?}");
}

/// A decision over both that is denied, while the log moves one word and another asks
/// it: nothing of it stays.
pub fn a_denial_changes_nothing() {
    let pair = Pair::new([0, 3]);
    let writer = spawn(&pair, |pair| pair.words[0].move_by(1));
    let single = spawn(&pair, |pair| pair.words[0].admit(1, 9).is_ok());
    let denied = pair.ask(1, [9, 3], true);
    assert!(!denied.fits && denied.held[1] == 3);
    join(writer);
    assert!(join(single));
    assert_eq!(pair.held(), [2, 3]);
}

/// By name.
pub const ALL: &[(&str, fn())] = &[
    ("three_at_a_limit", three_at_a_limit),
    ("moved_while_two_ask", moved_while_two_ask),
    ("two_over_both", two_over_both),
    ("both_and_each_alone", both_and_each_alone),
    ("nobody_sees_half", nobody_sees_half),
    ("looks_at_both_see_all_or_nothing", looks_at_both_see_all_or_nothing),
    ("a_denial_changes_nothing", a_denial_changes_nothing),
];
