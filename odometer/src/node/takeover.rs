//! What the log is told before this node answers for a partition: definitions and
//! plans, where others are in force, and that this node owns it now. In order, each
//! once the one before is in the log.

use std::collections::VecDeque;

use anyhow::Context;
use odometer_ingest::log::{LogAppender, PendingAppend};

pub(crate) struct Takeover {
    envelopes: VecDeque<Vec<u8>>,
    /// The first of `envelopes`, on its way.
    pending: Option<PendingAppend>,
}

impl Takeover {
    pub(crate) fn new(envelopes: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self { envelopes: envelopes.into_iter().collect(), pending: None }
    }

    /// Goes on as far as it can without waiting; whether the log has everything.
    ///
    /// # Errors
    /// When the log refuses for good.
    pub(crate) fn go_on(&mut self, partition: u32, log: &dyn LogAppender) -> anyhow::Result<bool> {
        while let Some(envelope) = self.envelopes.front() {
            let pending = self.pending.get_or_insert_with(|| log.append(partition, envelope.clone()));
            match pending.try_wait() {
                None => return Ok(false),
                Some(Ok(_)) => drop(self.envelopes.pop_front()),
                // It may be there all the same; a second one says nothing new.
                Some(Err(error)) if error.is_retryable() => {
                    self.pending = None;
                    return Ok(false);
                }
                Some(Err(error)) => {
                    return Err(error).context("definitions cannot be appended to the log");
                }
            }
            self.pending = None;
        }
        Ok(true)
    }
}
