//! The planted faults: what each copy of the sources has instead of the sound text, and
//! which checker must find it. The build script and the tests read the same table.

/// Which sources are copied, and on whose primitives they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// The word and decisions over several, under loom.
    Words,
    /// The same on real threads and atomics, whose histories are recorded.
    Noisy,
    /// All of quota, under shuttle.
    Life,
}

impl Tree {
    /// Every tree has a sound copy of its name.
    pub const ALL: [Self; 3] = [Self::Words, Self::Noisy, Self::Life];

    /// Of its sound copy.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Words => "words",
            Self::Noisy => "noisy",
            Self::Life => "life",
        }
    }

    /// The file of the models that run on it.
    #[must_use]
    pub const fn models(self) -> &'static str {
        match self {
            Self::Words => "words",
            Self::Noisy => "histories",
            Self::Life => "life",
        }
    }

    /// Its primitives.
    #[must_use]
    pub const fn sync(self) -> &'static str {
        match self {
            Self::Words => "pub(crate) use crate::sync::loom::*;",
            Self::Noisy => "pub(crate) use crate::sync::noisy::*;",
            Self::Life => "pub(crate) use crate::sync::shuttle::*;",
        }
    }
}

/// One fault, and where it is planted.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Of the module with the faulty copy.
    pub name: &'static str,
    /// What is copied besides.
    pub tree: Tree,
    /// Below `aggregator/src`.
    pub file: &'static str,
    /// The sound text, found exactly once, and what stands there instead.
    pub changes: &'static [[&'static str; 2]],
    /// The model that must fail on it.
    pub found_by: &'static str,
}

const WORD: &str = "quota/word.rs";
const SEVERAL: &str = "quota/several.rs";
const HOLD: &str = "quota/hold.rs";
const BOOK: &str = "quota/book.rs";
const DECIDE: &str = "quota/decide.rs";
const LEDGER: &str = "quota/ledger.rs";
const LIVE: &str = "quota/live.rs";
const HOLDS: &str = "quota/holds.rs";
const SHORTCUTS: &str = "quota/shortcuts.rs";
const PLACES: &str = "quota/places.rs";
const WORDS: &str = "quota/words.rs";

const EXCHANGE: [&str; 2] = [
    "match self.raw.compare_exchange_weak(raw, raw_of(whole), Ordering::AcqRel, Ordering::Acquire) {",
    "self.raw.store(raw_of(whole), Ordering::Release);\n            match Ok::<u64, u64>(raw) {",
];
const ADMIT_WAITS: [&str; 2] = ["if raw & STILL != 0 {", "if false {"];
const CHECK_WAITS: [&str; 2] = ["raw = self.moved_on();", "raw &= !STILL;"];
const MOVE: [&str; 2] = [
    "self.raw.fetch_add(raw_of(amount), Ordering::AcqRel);",
    "let raw = self.raw.load(Ordering::Acquire);\n        \
     self.raw.store(raw.wrapping_add(raw_of(amount)), Ordering::Release);",
];
const LET_GO: &str = "self.raw.fetch_add(raw_of(amount).wrapping_sub(STILL), Ordering::AcqRel);";
const LET_GO_RELAXED: [&str; 2] =
    [LET_GO, "self.raw.fetch_add(raw_of(amount).wrapping_sub(STILL), Ordering::Relaxed);"];
const HOLD_STILL: [&str; 2] =
    ["held_of(self.raw.fetch_or(STILL, Ordering::AcqRel))", "held_of(self.raw.load(Ordering::Acquire))"];
const LET_GO_OF_NOTHING: [&str; 2] = [LET_GO, "self.raw.fetch_add(raw_of(amount), Ordering::AcqRel);"];
const LOCK: [&str; 2] = [
    "let _alone = several.lock().unwrap_or_else(PoisonError::into_inner);",
    "drop(several.lock().unwrap_or_else(PoisonError::into_inner));",
];
const LOOK: [&str; 2] = [
    ".map(|ask| ask.word.hold_still()).collect();",
    ".map(|ask| (ask.word.hold_still(), ask.word.let_go(0)).0).collect();",
];
const TAKE: [&str; 2] = [
    "ask.word.let_go(if fits && take { ask.amount } else { 0 });",
    "ask.word.move_by(if fits && take { ask.amount } else { 0 });",
];

const FLAG: [&str; 2] = ["std::mem::replace(&mut awake.is_over, true)", "awake.is_over"];
const DRAW_IN_ONE: [&str; 2] = ["self.settle_around(Some(cell))", "self.settle_around(None)"];
const DRAW_UNDER_LOCK: [&str; 2] = [
    "state.draw(meter, quantity, cell)",
    "state.ledger.draw(meter, quantity);\n        drop(state);\n        \
     self.shared.open(hold).draw(meter, 0, cell)",
];
const EXPIRE_UNDER_LOCK: [&str; 2] = [
    "let was_open = ",
    "drop(state);\n        let mut state = self.lock();\n        \
     let Life::Awake(awake) = &mut state.life else { return (Next::Remember, false) };\n        let was_open = ",
];
const ONCE: [&str; 2] =
    ["let is_new = self.remember(*op) && self.phase == Phase::Open;", "let is_new = self.phase == Phase::Open;"];
const COMMIT_UNDER_LOCK: [&str; 2] = [
    "let late = state.is_over;",
    "let late = state.is_over;\n        drop(state);\n        let mut state = self.shared.open(&hold);",
];
const FOUND_OR_PUT: [&str; 2] = [
    "vacancy.put(hold);",
    "drop(vacancy);\n        (0..4).for_each(super::sync::pause);\n        holds.forget(&hold.name);\n        \
     if let Err(vacancy) = holds.find_or_place(&hold.name, book) {\n            vacancy.put(Arc::clone(&hold));\n        }",
];
const LAID_DOWN_AS_IT_WAS: [&str; 2] =
    ["state.life = Life::Asleep(asleep);", "drop(state);\n                self.lock().life = Life::Asleep(asleep);"];
const GIVEN_UP: [&str; 2] = ["is_alone() && here.is_vain()", "is_alone()"];
const FORGOTTEN: [&str; 2] = ["if state.is_forgotten() {", "if false {"];
const ADMITTED_ALREADY: [&str; 2] = ["self.held[*line] += amount;", "let _ = (line, amount);"];
const VOIDED: [&str; 2] = ["self.shared.shortcuts.void_tenant(tenant);", ""];
const KEY_FIRST: [&str; 2] = [
    "let shortcut = Kept::new(key,",
    "let key = self.shortcuts.key(tenant, meter);\n        let shortcut = Kept::new(key,",
];
const OF_THE_CATALOGUE: [&str; 2] = [".filter(|table| table.version == version)", ""];
const CHECK_LAST: [&str; 2] = [
    "line.what[at].store(what, Ordering::Relaxed);\n        line.checks[at].store(key.check, Ordering::Release);",
    "line.checks[at].store(key.check, Ordering::Release);\n        line.what[at].store(what, Ordering::Relaxed);",
];
const PLACE_WON: [&str; 2] = [
    "match self.kept[place].0.set(kept) {",
    "self.publish(place, key, (word, bounds));\n            match self.kept[place].0.set(kept) {",
];
const NUMBER_KEPT: [&str; 2] = ["numbers.free.pop()", "numbers.given.checked_sub(1).map(number_of)"];

/// All of them.
pub const FAULTS: &[Fault] = &[
    Fault {
        name: "admit_stores_what_it_read",
        tree: Tree::Words,
        file: WORD,
        changes: &[EXCHANGE],
        found_by: "three_at_a_limit",
    },
    Fault {
        name: "admit_ignores_still",
        tree: Tree::Words,
        file: WORD,
        changes: &[ADMIT_WAITS],
        found_by: "both_and_each_alone",
    },
    Fault {
        name: "check_ignores_still",
        tree: Tree::Words,
        file: WORD,
        changes: &[CHECK_WAITS],
        found_by: "nobody_sees_half",
    },
    Fault {
        name: "move_stores_what_it_read",
        tree: Tree::Words,
        file: WORD,
        changes: &[MOVE],
        found_by: "moved_while_two_ask",
    },
    Fault {
        name: "hold_still_sets_nothing",
        tree: Tree::Words,
        file: WORD,
        changes: &[HOLD_STILL, LET_GO_OF_NOTHING],
        found_by: "both_and_each_alone",
    },
    Fault {
        name: "let_go_publishes_nothing",
        tree: Tree::Words,
        file: WORD,
        changes: &[LET_GO_RELAXED],
        found_by: "nobody_sees_half",
    },
    Fault {
        name: "let_go_before_the_check",
        tree: Tree::Words,
        file: SEVERAL,
        changes: &[LOOK, TAKE],
        found_by: "both_and_each_alone",
    },
    Fault {
        name: "several_without_the_lock",
        tree: Tree::Words,
        file: SEVERAL,
        changes: &[LOCK],
        found_by: "two_over_both",
    },
    Fault { name: "recorded_admit_stores", tree: Tree::Noisy, file: WORD, changes: &[EXCHANGE], found_by: "decisions" },
    Fault {
        name: "recorded_move_stores",
        tree: Tree::Noisy,
        file: WORD,
        changes: &[MOVE],
        found_by: "decisions_and_moves",
    },
    Fault {
        name: "recorded_check_ignores_still",
        tree: Tree::Noisy,
        file: WORD,
        changes: &[CHECK_WAITS],
        found_by: "decisions",
    },
    Fault {
        name: "recorded_without_the_lock",
        tree: Tree::Noisy,
        file: SEVERAL,
        changes: &[LOCK],
        found_by: "decisions",
    },
    Fault {
        name: "expire_without_the_flag",
        tree: Tree::Life,
        file: HOLD,
        changes: &[FLAG],
        found_by: "extended_when_it_ends",
    },
    Fault {
        name: "draw_in_two_steps",
        tree: Tree::Life,
        file: HOLD,
        changes: &[DRAW_IN_ONE],
        found_by: "drawing_opens_no_room",
    },
    Fault {
        name: "draw_settles_later",
        tree: Tree::Life,
        file: BOOK,
        changes: &[DRAW_UNDER_LOCK],
        found_by: "drawing_opens_no_room",
    },
    Fault {
        name: "expire_looks_before_it_locks",
        tree: Tree::Life,
        file: HOLD,
        changes: &[EXPIRE_UNDER_LOCK],
        found_by: "extended_when_it_ends",
    },
    Fault {
        name: "read_back_counts_again",
        tree: Tree::Life,
        file: LEDGER,
        changes: &[ONCE],
        found_by: "extended_when_it_ends",
    },
    Fault {
        name: "commit_decides_before_it_locks",
        tree: Tree::Life,
        file: DECIDE,
        changes: &[COMMIT_UNDER_LOCK],
        found_by: "committed_and_released",
    },
    Fault {
        name: "extension_held_twice",
        tree: Tree::Life,
        file: HOLD,
        changes: &[ADMITTED_ALREADY],
        found_by: "extended_when_it_ends",
    },
    Fault {
        name: "read_back_looks_before_it_puts",
        tree: Tree::Life,
        file: BOOK,
        changes: &[FOUND_OR_PUT],
        found_by: "repeated_while_read",
    },
    Fault {
        name: "given_up_though_the_log_has_it",
        tree: Tree::Life,
        file: HOLDS,
        changes: &[GIVEN_UP],
        found_by: "forgotten_when_read",
    },
    Fault {
        name: "decided_though_it_was_forgotten",
        tree: Tree::Life,
        file: DECIDE,
        changes: &[FORGOTTEN],
        found_by: "committed_when_forgotten",
    },
    Fault {
        name: "laid_down_as_it_was",
        tree: Tree::Life,
        file: HOLD,
        changes: &[LAID_DOWN_AS_IT_WAS],
        found_by: "committed_when_laid_down",
    },
    Fault {
        name: "terms_leave_shortcuts",
        tree: Tree::Life,
        file: LIVE,
        changes: &[VOIDED],
        found_by: "terms_while_asked",
    },
    Fault {
        name: "shortcut_keyed_after_it_is_read",
        tree: Tree::Life,
        file: LIVE,
        changes: &[KEY_FIRST],
        found_by: "terms_while_asked",
    },
    Fault {
        name: "shortcut_of_an_older_plan",
        tree: Tree::Life,
        file: SHORTCUTS,
        changes: &[OF_THE_CATALOGUE],
        found_by: "plan_asked_for_before",
    },
    Fault {
        name: "place_shown_before_it_says_what",
        tree: Tree::Life,
        file: PLACES,
        changes: &[CHECK_LAST],
        found_by: "each_by_its_own",
    },
    Fault {
        name: "place_shown_by_whoever_lost_it",
        tree: Tree::Life,
        file: PLACES,
        changes: &[PLACE_WON],
        found_by: "each_by_its_own",
    },
    Fault {
        name: "word_given_while_it_has_an_owner",
        tree: Tree::Life,
        file: WORDS,
        changes: &[NUMBER_KEPT],
        found_by: "each_by_its_own",
    },
];
