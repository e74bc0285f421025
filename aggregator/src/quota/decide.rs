//! The decisions: check, reserve, extend, commit, release. Each changes all that it
//! must or nothing, and says what the log must be told.

use std::borrow::Cow;
use std::sync::Arc;

use odometer_schemas::quota::{
    Action, Check, Commit, Decision, Extend, HeldItem, Item, Kind, LimitState, OPERATIONS_REMEMBERED, QuotaError,
    QuotaOperation, Release, Reserve, SETTLE_MS,
};
use odometer_schemas::time::TimeMs;
use smallvec::{SmallVec, smallvec};

use super::account::{Counter, Gate, Policy};
use super::hold::{Awake, Counters, Hold, HoldState, Layers};
use super::holds::RESERVATIONS_MAX;
use super::ledger::{Ledger, Phase};
use super::live::{AllAsked, Asked, LiveQuota, amount_of};
use super::name::Name;
use super::places::Shortcut;
use super::several::{Ask, Seen, ask_all};
use super::word::{UNLIMITED, Word};

/// What was decided, and what the log must be told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// May it go on?
    pub decision: Decision,
    /// When the reservation ends by itself, where there is one.
    pub expires_at: Option<TimeMs>,
    /// Every limit that was looked at.
    pub limits: Vec<LimitState>,
    /// Policies that said no.
    pub violated: Vec<String>,
    /// Whether the reservation had expired before.
    pub late: bool,
    /// To be appended to the partition, in the order of decisions; nothing for a
    /// denial and a check, and a repetition that the log is known to have.
    pub operation: Option<QuotaOperation<'a>>,
}

impl Outcome<'_> {
    /// The same, borrowed from nobody: it may outlive the request.
    #[must_use]
    pub fn into_owned(self) -> Outcome<'static> {
        let Self { decision, expires_at, limits, violated, late, operation } = self;
        let operation = operation.map(QuotaOperation::into_owned);
        Outcome { decision, expires_at, limits, violated, late, operation }
    }
}

/// What was decided of a request, what it holds if it was not denied, and on what, by item.
struct Admitted<'a> {
    decided: Outcome<'a>,
    items: Vec<HeldItem<'a>>,
    counters: Counters,
}

impl LiveQuota {
    /// May this much be used now? Changes nothing.
    ///
    /// # Errors
    /// [`QuotaError::Invalid`] for a meter that nothing can limit.
    pub fn check(&self, check: &Check, now: TimeMs) -> Result<Outcome<'static>, QuotaError> {
        if let Some(outcome) = self.check_one(check, now) {
            return Ok(outcome);
        }
        let asked = self.shared.asked(&check.who, &check.items, now)?;
        let seen = self.look(&check.who.tenant, &asked, false)?;
        Ok(outcome(&asked, &seen, false))
    }

    /// Whether a tenant may use `amount` base units of one meter now: the shortest way
    /// to a decision, for callers in this process. `None`: ask [`check`](Self::check).
    #[inline]
    #[must_use]
    pub fn may_use(&self, tenant: &str, meter: &str, amount: i64, now: TimeMs) -> Option<Decision> {
        self.shared.shortcut((tenant, meter), now, move |shortcut| shortcut.check(amount))
    }

    /// As [`may_use`](Self::may_use) of several (tenant, meter, amount), one for each; in
    /// less time, because what has to come from memory comes for many at once.
    #[must_use]
    pub fn may_use_each(&self, asks: &[(&str, &str, i64)], now: TimeMs) -> Vec<Option<Decision>> {
        let mut decided = vec![None; asks.len()];
        let of = asks.iter().map(|(tenant, meter, _)| (*tenant, *meter));
        self.shared.shortcuts(of, now, |at, shortcut| decided[at] = Some(shortcut.check(asks[at].2)));
        decided
    }

    /// The same with everything that an answer shows.
    fn check_one(&self, check: &Check, now: TimeMs) -> Option<Outcome<'static>> {
        let [item] = check.items.as_slice() else { return None };
        let amount = amount_of(item);
        let look = move |shortcut: &Shortcut<'_>| single(shortcut.gate(), shortcut.counter(), amount, false);
        self.shared.shortcut((&check.who.tenant, &item.meter), now, look)
    }

    /// Holds all items of a request, or nothing.
    ///
    /// # Errors
    /// [`QuotaError::Reused`], [`QuotaError::Invalid`], [`QuotaError::Unavailable`].
    pub fn reserve<'a>(&self, reserve: &'a Reserve, body: u128, now: TimeMs) -> Result<Outcome<'a>, QuotaError> {
        let (tenant, id) = (&*reserve.who.tenant, &*reserve.id);
        // The id is taken or found in one step; whoever repeats it meanwhile waits.
        let name = Name::of(tenant, id);
        let vacancy = match self.shared.holds.find_or_place(&name, Arc::clone) {
            Ok(hold) => return self.repeated(&hold, reserve, (body, now)),
            Err(vacancy) if vacancy.has_room() => vacancy,
            Err(_) => return Err(full()),
        };
        let admitted = match self.admit_one(reserve, now) {
            Some(admitted) => admitted,
            None => self.admit_all(reserve, now)?,
        };
        let Admitted { mut decided, items, counters } = admitted;
        if decided.decision == Decision::Deny {
            return Ok(decided);
        }
        let expires_ms = now.0.saturating_add(reserve.ttl_ms);
        let action = Action::Reserve {
            subject: reserve.who.subject.as_deref().map(Cow::Borrowed),
            key: reserve.who.key.as_deref().map(Cow::Borrowed),
            items,
            expires_ms,
            body,
            decision: decided.decision,
        };
        let ledger = Ledger::open(&action).expect("a reserving action opens a ledger");
        let hold = Arc::new(Hold::admitted(name, counters, ledger));
        self.shared.expiries.watch(&hold, expires_ms);
        vacancy.put(hold);
        decided.expires_at = Some(TimeMs(expires_ms));
        decided.operation = Some(operation(tenant, id, now, action));
        Ok(decided)
    }

    /// Asks for the only item of a request, where only the tenant's own word has a say.
    fn admit_one<'a>(&self, reserve: &'a Reserve, now: TimeMs) -> Option<Admitted<'a>> {
        let [item] = reserve.items.as_slice() else { return None };
        let amount = amount_of(item);
        self.shared.shortcut((&reserve.who.tenant, &item.meter), now, |shortcut| {
            let (gate, counter) = (shortcut.gate(), shortcut.counter());
            let decided = single(gate, counter, amount, true);
            let held = HeldItem { meter: Cow::Borrowed(&item.meter), amount, period_ms: gate.period_ms() };
            let layers: Layers = smallvec![(gate.policy.scope, counter.0.clone())];
            Admitted { decided, items: vec![held], counters: smallvec![layers] }
        })
    }

    /// Asks for all items of a request.
    fn admit_all<'a>(&self, reserve: &'a Reserve, now: TimeMs) -> Result<Admitted<'a>, QuotaError> {
        let asked = self.shared.asked(&reserve.who, &reserve.items, now)?;
        let decided = match asked.as_slice() {
            [only] => single(&only.gate, (&only.gate.counter, only.gate.counter.word()), only.amount, true),
            several => outcome(several, &self.look(&reserve.who.tenant, several, true)?, true),
        };
        let items = held_items(&reserve.items, &asked);
        let counters = items.iter().map(|item| counters(&asked, &item.meter)).collect();
        Ok(Admitted { decided, items, counters })
    }

    /// The answer to a request that was answered before. The log is told again unless it is
    /// known to have it.
    fn repeated<'a>(
        &self,
        hold: &Arc<Hold>,
        reserve: &'a Reserve,
        (body, now): (u128, TimeMs),
    ) -> Result<Outcome<'a>, QuotaError> {
        let asked = self.shared.asked(&reserve.who, &reserve.items, now)?;
        let state = self.shared.open(hold);
        if state.ledger.body != body {
            return Err(QuotaError::Reused { id: reserve.id.clone() });
        }
        let at = TimeMs(state.ledger.expires_ms.saturating_sub(reserve.ttl_ms));
        let action = || state.ledger.reserving(as_made(held_items(&reserve.items, &asked), &state.ledger));
        let operation = (!state.is_booked()).then(|| operation(&reserve.who.tenant, &reserve.id, at, action()));
        Ok(Outcome { decision: state.ledger.decision, operation, ..standing_of(&state, &asked) })
    }

    /// Holds a reservation for longer, and what is asked besides, or nothing of it.
    ///
    /// # Errors
    /// [`QuotaError::Unknown`], [`QuotaError::Ended`], [`QuotaError::Invalid`],
    /// [`QuotaError::Unavailable`].
    pub fn extend<'a>(&self, extend: &'a Extend, op: u64, now: TimeMs) -> Result<Outcome<'a>, QuotaError> {
        let hold = self.known(&extend.tenant, &extend.id)?;
        let mut state = self.still_known(&hold, &extend.id)?;
        not_reused(&state, op, &extend.op_id)?;
        let asked = self.asked_again(&hold.name, &state, &extend.add, now)?;
        if state.ledger.knows(op) {
            // Said again: nobody knows here whether the log has it, and it takes it once.
            let action =
                Action::Extend { op, expires_ms: state.ledger.expires_ms, add: held_items(&extend.add, &asked) };
            let operation = Some(operation(&extend.tenant, &extend.id, now, action));
            return Ok(Outcome { operation, ..standing_of(&state, &asked) });
        }
        if !state.is_open() {
            return Err(QuotaError::Ended { id: extend.id.clone() });
        }
        has_room(&state, now)?;
        let mut decided = outcome(&asked, &self.look(&extend.tenant, &asked, true)?, true);
        if decided.decision == Decision::Deny {
            return Ok(decided);
        }
        let expires_ms = now.0.saturating_add(extend.ttl_ms);
        let action = Action::Extend { op, expires_ms, add: held_items(&extend.add, &asked) };
        let admitted = admitted(&state, &extend.add);
        let ended_ms = state.ledger.expires_ms;
        state.decide(&action, &admitted, now.0);
        // Else it is looked at when it would have ended, and then again.
        if expires_ms < ended_ms {
            self.shared.expiries.watch(&hold, expires_ms);
        }
        decided.expires_at = Some(TimeMs(expires_ms));
        decided.operation = Some(operation(&extend.tenant, &extend.id, now, action));
        Ok(decided)
    }

    /// Takes down what was used in all. More than was reserved is taken too: it is
    /// spent.
    ///
    /// # Errors
    /// [`QuotaError::Unknown`], [`QuotaError::Ended`], [`QuotaError::Invalid`],
    /// [`QuotaError::Unavailable`].
    pub fn commit<'a>(&self, commit: &'a Commit, op: u64, now: TimeMs) -> Result<Outcome<'a>, QuotaError> {
        let hold = self.known(&commit.tenant, &commit.id)?;
        let mut state = self.still_known(&hold, &commit.id)?;
        not_reused(&state, op, &commit.op_id)?;
        let asked = self.asked_again(&hold.name, &state, &commit.items, now)?;
        if state.ledger.knows(op) {
            let settle_until_ms = if commit.is_final { state.ledger.ends_ms() } else { None };
            let action = Action::Commit { op, items: held_items(&commit.items, &asked), settle_until_ms };
            let operation = Some(operation(&commit.tenant, &commit.id, now, action));
            return Ok(Outcome { operation, ..standing_of(&state, &asked) });
        }
        if state.ledger.phase == Phase::Ended {
            return Err(QuotaError::Ended { id: commit.id.clone() });
        }
        has_room(&state, now)?;
        let too_large = |asked: &Asked| asked.amount > UNLIMITED - asked.gate.counter.word().held().max(0);
        if let Some(asked) = asked.iter().find(|asked| too_large(asked)) {
            let problem = format!("is more of `{}` than can be counted", asked.gate.policy.meter);
            return Err(QuotaError::Invalid { field: "items.amount", problem });
        }
        let late = state.is_over;
        let settle_until_ms = commit.is_final.then(|| now.0.saturating_add(SETTLE_MS));
        let action = Action::Commit { op, items: held_items(&commit.items, &asked), settle_until_ms };
        state.decide(&action, &[], now.0);
        if let Some(until_ms) = settle_until_ms {
            self.shared.expiries.watch(&hold, until_ms);
        }
        let mut decided = standing_of(&state, &asked);
        decided.late = late;
        decided.operation = Some(operation(&commit.tenant, &commit.id, now, action));
        Ok(decided)
    }

    /// Ends a reservation; nothing is held any more.
    ///
    /// # Errors
    /// [`QuotaError::Unknown`], [`QuotaError::Unavailable`].
    pub fn release<'a>(&self, release: &'a Release, op: u64, now: TimeMs) -> Result<Outcome<'a>, QuotaError> {
        let hold = self.known(&release.tenant, &release.id)?;
        let mut state = self.still_known(&hold, &release.id)?;
        not_reused(&state, op, &release.op_id)?;
        let action = Action::Release { op };
        if !state.ledger.knows(op) {
            has_room(&state, now)?;
            state.decide(&action, &[], now.0);
        }
        let mut decided = standing_of(&state, &[]);
        decided.operation = Some(operation(&release.tenant, &release.id, now, action));
        Ok(decided)
    }

    /// Looks at all words at one moment, and takes what is asked of them if it fits.
    fn look(&self, tenant: &str, asked: &[Asked], take: bool) -> Result<Seen, QuotaError> {
        let account = self.shared.account(tenant)?;
        let ask = asked.iter().map(|Asked { gate, amount }| Ask {
            word: gate.counter.word(),
            amount: *amount,
            hard_limit: gate.policy.hard_limit,
        });
        let asks: SmallVec<[Ask<'_>; 4]> = ask.collect();
        Ok(ask_all(&account.several, &asks, take))
    }

    fn known(&self, tenant: &str, id: &str) -> Result<Arc<Hold>, QuotaError> {
        self.shared.holds.find(&Name::of(tenant, id)).ok_or_else(|| QuotaError::Unknown { id: id.to_owned() })
    }

    /// One that was found, to look at it and change it, unless it was forgotten since.
    fn still_known<'a>(&self, hold: &'a Arc<Hold>, id: &str) -> Result<Awake<'a>, QuotaError> {
        let state = self.shared.open(hold);
        if state.is_forgotten() { Err(QuotaError::Unknown { id: id.to_owned() }) } else { Ok(state) }
    }

    /// What an operation asks of the counters that a reservation holds on already, in
    /// the period in which it was made.
    fn asked_again(&self, name: &Name, state: &HoldState, items: &[Item], now: TimeMs) -> Result<AllAsked, QuotaError> {
        let account = self.shared.account_of_log(name.parts().0);
        let terms = &self.shared.standing(&account, now).terms;
        let mut asked = AllAsked::new();
        for item in items {
            let at = state.ledger.lines.iter().position(|line| line.meter == *item.meter);
            let at = at.ok_or_else(|| QuotaError::Invalid {
                field: "items.meter",
                problem: format!("`{}` is not one of the reservation's meters", item.meter),
            })?;
            if asked.iter().any(|asked| *asked.gate.policy.meter == *item.meter) {
                let problem = format!("names `{}` twice", item.meter);
                return Err(QuotaError::Invalid { field: "items", problem });
            }
            let line = &state.ledger.lines[at];
            let kind = if line.period_ms.is_some() { Kind::Usage } else { Kind::Concurrency };
            for (scope, counter) in &state.counters[at] {
                let policy = terms.policy_or_none(&line.meter, *scope, kind);
                let gate = Gate { policy, counter: counter.clone(), period: line.period() };
                asked.push(Asked { gate: Arc::new(gate), amount: amount_of(item) });
            }
        }
        Ok(asked)
    }
}

/// Asks the one word of a gate, without any lock.
#[inline]
fn single(gate: &Gate, (counter, word): (&Counter, &Word), amount: i64, take: bool) -> Outcome<'static> {
    let hard_limit = gate.policy.hard_limit;
    let asked = if take { word.admit(amount, hard_limit) } else { word.check(amount, hard_limit) };
    let (decision, held) = match asked {
        Ok(whole) => (granted(&gate.policy, whole), if take { whole } else { whole - amount }),
        Err(full) => (Decision::Deny, full.held),
    };
    let violated = if decision == Decision::Deny { vec![gate.policy.name.to_string()] } else { Vec::new() };
    Outcome { violated, ..answered(decision, vec![limit_state(gate, counter.used(), held)]) }
}

fn outcome(asked: &[Asked], seen: &Seen, took: bool) -> Outcome<'static> {
    let whole = |(asked, held): (&Asked, &i64)| (held.saturating_add(asked.amount), asked.gate.policy.clone());
    let wholes = || asked.iter().zip(&seen.held).map(whole);
    let decision = match seen.fits {
        true => wholes().map(|(whole, policy)| granted(&policy, whole)).max().unwrap_or(Decision::Allow),
        false => Decision::Deny,
    };
    let violated = wholes().filter(|(whole, policy)| !seen.fits && *whole > policy.hard_limit);
    let violated = violated.map(|(_, policy)| policy.name.to_string()).collect();
    let held = |(asked, held): (&Asked, &i64)| {
        let gate = &asked.gate;
        limit_state(gate, gate.counter.used(), if took && seen.fits { held + asked.amount } else { *held })
    };
    Outcome { violated, ..answered(decision, asked.iter().zip(&seen.held).map(held).collect()) }
}

fn answered(decision: Decision, limits: Vec<LimitState>) -> Outcome<'static> {
    Outcome { decision, expires_at: None, limits, violated: Vec::new(), late: false, operation: None }
}

#[inline]
fn granted(policy: &Policy, whole: i64) -> Decision {
    if policy.limit.is_some_and(|limit| whole > limit) { Decision::Grace } else { Decision::Allow }
}

fn limit_state(gate: &Gate, used: i64, held: i64) -> LimitState {
    let policy = &gate.policy;
    LimitState {
        policy: policy.name.to_string(),
        scope: policy.scope,
        meter: policy.meter.to_string(),
        limit: policy.limit,
        hard_limit: policy.limit.map(|_| policy.hard_limit),
        used,
        reserved: held.saturating_sub(used).max(0),
        remaining: policy.limit.map(|limit| limit.saturating_sub(held).max(0)),
        resets_at: gate.period.map(|period| period.end),
    }
}

fn full() -> QuotaError {
    QuotaError::Unavailable { why: format!("{RESERVATIONS_MAX} reservations are remembered, as many as allowed") }
}

fn not_reused(state: &HoldState, op: u64, op_id: &str) -> Result<(), QuotaError> {
    if state.ledger.contradicts(op) { Err(QuotaError::Reused { id: op_id.to_owned() }) } else { Ok(()) }
}

fn has_room(state: &HoldState, now: TimeMs) -> Result<(), QuotaError> {
    if state.has_room(now.0) {
        return Ok(());
    }
    let why = format!("{OPERATIONS_REMEMBERED} operations of the reservation are on their way to the log");
    Err(QuotaError::Unavailable { why })
}

/// How a reservation stands, where nothing is asked of it.
fn standing_of(state: &HoldState, asked: &[Asked]) -> Outcome<'static> {
    let limits: Vec<_> = asked
        .iter()
        .map(|asked| limit_state(&asked.gate, asked.gate.counter.used(), asked.gate.counter.word().held()))
        .collect();
    let over = limits.iter().any(|state| state.limit.is_some_and(|limit| state.used + state.reserved > limit));
    let decision = if over { Decision::Grace } else { Decision::Allow };
    Outcome { expires_at: state.ledger.ends_ms().map(TimeMs), ..answered(decision, limits) }
}

/// What the log is told of the items: each meter once.
fn held_items<'a>(items: &'a [Item], asked: &[Asked]) -> Vec<HeldItem<'a>> {
    let mut held: Vec<HeldItem<'a>> = Vec::with_capacity(items.len());
    for item in items {
        let amount = amount_of(item);
        match held.iter_mut().find(|held| held.meter == item.meter) {
            Some(held) => held.amount = held.amount.saturating_add(amount),
            None => {
                let gate = asked.iter().map(|asked| &asked.gate).find(|gate| *gate.policy.meter == *item.meter);
                let period_ms = gate.and_then(|gate| gate.period_ms());
                held.push(HeldItem { meter: Cow::Borrowed(&item.meter), amount, period_ms });
            }
        }
    }
    held
}

/// The same in the periods in which the reservation was made, which may have ended since.
fn as_made<'a>(mut items: Vec<HeldItem<'a>>, ledger: &Ledger) -> Vec<HeldItem<'a>> {
    for item in &mut items {
        let line = ledger.lines.iter().find(|line| line.meter == *item.meter);
        item.period_ms = line.map_or(item.period_ms, |line| line.period_ms);
    }
    items
}

/// What an extension holds on its lines already, because it was admitted.
fn admitted(state: &HoldState, items: &[Item]) -> Vec<(usize, i64)> {
    let line = |item: &Item| state.ledger.lines.iter().position(|line| line.meter == *item.meter);
    items.iter().filter_map(|item| Some((line(item)?, amount_of(item)))).collect()
}

fn counters(asked: &[Asked], meter: &str) -> Layers {
    asked
        .iter()
        .filter(|asked| *asked.gate.policy.meter == *meter)
        .map(|asked| (asked.gate.policy.scope, asked.gate.counter.clone()))
        .collect()
}

fn operation<'a>(tenant: &'a str, id: &'a str, now: TimeMs, action: Action<'a>) -> QuotaOperation<'a> {
    QuotaOperation { tenant: Cow::Borrowed(tenant), id: Cow::Borrowed(id), at_ms: now.0, action }
}
