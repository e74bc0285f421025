//! Usage through the emitter: records in as fast as it takes them, done when every one
//! of them is acknowledged.

use anyhow::Context;
use odometer_bench::traffic::{Ids, Spread, Tally, Traffic};
use odometer_ingest::emitter::{Emitter, EmitterOptions};
use serde_json::json;
use tokio::task::JoinSet;

use super::Sent;
use super::pace::Pace;
use super::site::Access;
use crate::report::now;

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) records: u64,
    pub(crate) tenants: u64,
    pub(crate) ids: Ids,
    pub(crate) spread: Spread,
    /// Tasks or connections that share it.
    pub(crate) senders: u64,
}

impl Load {
    /// The traffic of one sender and how many records of it.
    pub(crate) fn share(&self, sender: u64) -> (Traffic, u64) {
        let records = self.records / self.senders + u64::from(sender < self.records % self.senders);
        (Traffic::new(sender, self.tenants, self.ids).spread(self.spread), records)
    }

    /// Emits everything and waits for all acknowledgements.
    pub(crate) async fn emit(self, access: Access, pace: Pace) -> anyhow::Result<Sent> {
        let emitter = Emitter::start(access.appender().await?, EmitterOptions::default())?;
        let mut senders = JoinSet::new();
        for sender in 0..self.senders {
            let (traffic, records) = self.share(sender);
            senders.spawn(emit(emitter.clone(), traffic, records, pace));
        }
        let mut tally = Tally::new();
        while let Some(sender) = senders.join_next().await {
            merge(&mut tally, sender??);
        }
        emitter.flush().await?;
        let retries = emitter.retries();
        emitter.close().await?;
        Ok(Sent { tally, figures: vec![("envelopes_retried", json!(retries))] })
    }
}

async fn emit(emitter: Emitter, mut traffic: Traffic, records: u64, pace: Pace) -> anyhow::Result<Tally> {
    let mut sent = 0;
    while sent < records {
        pace.wait(sent).await;
        let (now, until) = (now(), records.min(sent + pace.stride()));
        while sent < until {
            // The flush at the end waits for all acknowledgements.
            drop(emitter.emit(traffic.record(now)).await.context("a record was not taken")?);
            sent += 1;
        }
    }
    Ok(traffic.tally())
}

/// Adds what one sender sent.
pub(crate) fn merge(into: &mut Tally, tally: Tally) {
    for (key, sum) in tally {
        let total = into.entry(key).or_default();
        total.quantity += sum.quantity;
        total.records += sum.records;
    }
}
