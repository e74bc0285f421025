//! Which partitions this node is assigned, shared by the thread that counts them and
//! the one that recovers them. Every assignment of a partition is a term of its own,
//! so that work for an earlier one is known and dropped.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use odometer_ingest::log::LogError;

use super::footing::{Change, Ownership};

pub(crate) struct Assignment {
    inner: Mutex<Inner>,
    is_exclusive: bool,
}

struct Inner {
    /// None once everything was given up.
    ownership: Option<Box<dyn Ownership>>,
    terms: BTreeMap<u32, u64>,
    last_term: u64,
}

/// One partition during one of its terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) partition: u32,
    number: u64,
}

impl Assignment {
    pub(crate) fn new(ownership: Box<dyn Ownership>) -> Self {
        let is_exclusive = ownership.is_exclusive();
        let inner = Inner { ownership: Some(ownership), terms: BTreeMap::new(), last_term: 0 };
        Self { inner: Mutex::new(inner), is_exclusive }
    }

    /// Whether no other node can ever own a partition.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.is_exclusive
    }

    /// What changed since the last call, without waiting: while the other thread
    /// proves an assignment, there is nothing new.
    pub(crate) fn poll(&self) -> Result<Vec<Change>, LogError> {
        match self.inner.try_lock().ok().as_deref_mut() {
            Some(Inner { ownership: Some(ownership), .. }) => ownership.poll(Duration::ZERO),
            _ => Ok(Vec::new()),
        }
    }

    /// Starts a new term of `partition`.
    pub(crate) fn begin(&self, partition: u32) -> Term {
        let mut inner = self.lock();
        inner.last_term += 1;
        let number = inner.last_term;
        inner.terms.insert(partition, number);
        Term { partition, number }
    }

    /// Ends the term of `partition`, whichever it is.
    pub(crate) fn end(&self, partition: u32) {
        self.lock().terms.remove(&partition);
    }

    /// Whether `term` has not ended.
    pub(crate) fn holds(&self, term: Term) -> bool {
        self.lock().holds(term)
    }

    /// Whether `term` has not ended, and whoever gives out partitions agrees.
    pub(crate) fn prove(&self, term: Term) -> Result<bool, LogError> {
        let mut inner = self.lock();
        let holds = inner.holds(term);
        match &mut inner.ownership {
            Some(ownership) if holds => ownership.prove(),
            _ => Ok(false),
        }
    }

    /// Whether this node is still assigned what it was, whatever that is.
    pub(crate) fn prove_all(&self) -> Result<bool, LogError> {
        self.lock().ownership.as_mut().map_or(Ok(false), |ownership| ownership.prove())
    }

    /// Tells that what was revoked has been given up.
    pub(crate) fn release(&self) -> Result<(), LogError> {
        self.lock().ownership.as_mut().map_or(Ok(()), |ownership| ownership.release())
    }

    /// Leaves marks for people who look at the log with its own tools.
    pub(crate) fn hint(&self, committed: &[(u32, u64)]) {
        // Not worth waiting for: the next commit leaves newer marks.
        if let Ok(mut inner) = self.inner.try_lock()
            && let Some(ownership) = &mut inner.ownership
        {
            committed.iter().for_each(|(partition, next_offset)| ownership.hint(*partition, *next_offset));
        }
    }

    /// Gives everything up; all terms end.
    pub(crate) fn leave(&self) {
        let mut inner = self.lock();
        inner.terms.clear();
        if let Some(ownership) = inner.ownership.take() {
            ownership.leave();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whole at every step.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn holds(&self, term: Term) -> bool {
        self.terms.get(&term.partition) == Some(&term.number)
    }
}
