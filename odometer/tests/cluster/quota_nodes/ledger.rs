//! The test's own account of every tenant: what is held for certain, and what may be.
//! Each answer of a node is judged by it; what contradicts it is a fault.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

/// One tenant, as far as the answers tell.
#[derive(Default)]
pub(super) struct Entry {
    pub(super) limit: i64,
    /// Admitted for certain and not given back.
    pub(super) held: i64,
    /// Admitted perhaps, or perhaps not given back yet: never less than any node holds.
    most: i64,
    /// Requests without an answer by their id: how much they ask, and the most that
    /// others may have held since they were sent.
    open: BTreeMap<String, (i64, i64)>,
    /// What may be given back.
    pub(super) free: Vec<(String, i64)>,
    /// Tokens that were acknowledged.
    pub(super) tokens: i64,
}

impl Entry {
    /// A request is sent; again, if its id is known.
    fn ask(&mut self, id: &str, amount: i64) {
        if self.open.contains_key(id) {
            return;
        }
        self.most += amount;
        for (own, others) in self.open.values_mut() {
            *others = (*others).max(self.most - *own);
        }
        self.open.insert(id.to_owned(), (amount, self.most - amount));
    }
}

/// All tenants, and whatever was wrong.
pub(super) struct Ledger {
    entries: Vec<Mutex<Entry>>,
    faults: Mutex<Vec<String>>,
}

impl Ledger {
    pub(super) fn new(limits: impl Iterator<Item = i64>) -> Self {
        let entry = |limit| Mutex::new(Entry { limit, ..Entry::default() });
        Self { entries: limits.map(entry).collect(), faults: Mutex::default() }
    }

    pub(super) fn of(&self, tenant: usize) -> MutexGuard<'_, Entry> {
        self.entries[tenant].lock().unwrap()
    }

    pub(super) fn fault(&self, what: String) {
        self.faults.lock().unwrap().push(what);
    }

    pub(super) fn asks(&self, tenant: usize, id: &str, amount: i64) {
        self.of(tenant).ask(id, amount);
    }

    /// An owner said yes.
    pub(super) fn admitted(&self, tenant: usize, id: &str) {
        let mut entry = self.of(tenant);
        let (amount, _) = entry.open.remove(id).unwrap();
        entry.held += amount;
        let (held, limit) = (entry.held, entry.limit);
        drop(entry);
        if held > limit {
            self.fault(format!("tenant {tenant}: {held} are admitted of {limit}"));
        }
    }

    /// An owner said no.
    pub(super) fn denied(&self, tenant: usize, id: &str) {
        let mut entry = self.of(tenant);
        let (amount, others) = entry.open.remove(id).unwrap();
        entry.most -= amount;
        let limit = entry.limit;
        drop(entry);
        if others + amount <= limit {
            self.fault(format!("tenant {tenant}: {amount} were denied beside at most {others} of {limit}"));
        }
    }

    /// Something that may be given back; it is not certain any more.
    pub(super) fn take_free(&self, tenant: usize) -> Option<(String, i64)> {
        let mut entry = self.of(tenant);
        let (id, amount) = entry.free.pop()?;
        entry.held -= amount;
        Some((id, amount))
    }

    /// It was given back.
    pub(super) fn released(&self, tenant: usize, amount: i64) {
        self.of(tenant).most -= amount;
    }

    /// Fails if anything was wrong.
    pub(super) fn judge(&self) {
        let faults = self.faults.lock().unwrap();
        assert!(faults.is_empty(), "{} wrong decisions, such as: {:#?}", faults.len(), &faults[..faults.len().min(10)]);
    }
}
