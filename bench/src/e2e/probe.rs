//! How soon acknowledged usage shows: a tenant of its own gets one record at a time,
//! and live usage or quota is asked until it has it. Runs on its own thread, so that the
//! load does not hold it up more than it would a stranger.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use odometer_bench::traffic::{Sum, Tally};
use odometer_ingest::emitter::{Emitter, EmitterOptions};
use odometer_schemas::quantity::Quantity;
use odometer_schemas::record::Record;
use serde_json::Value;

use super::http::micros;
use super::site::Access;
use crate::report::{now, percentiles_ms};

const TENANT: &str = "probe";
const METER: &str = "api_call";
/// Pause between two probes: some twenty a second weigh nothing beside the load.
const PAUSE: Duration = Duration::from_millis(50);
/// Pause between two questions, which bounds what the figures can tell apart.
const POLL: Duration = Duration::from_micros(100);
/// After so long, what does not show is lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running probe.
pub(crate) struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Seen>>,
}

/// Where it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Eye {
    /// At the tenant's live usage.
    #[default]
    Usage,
    /// At what a check of its quota stands on.
    Decision,
}

impl Eye {
    fn figure(self) -> &'static str {
        match self {
            Self::Usage => "visible_ms",
            Self::Decision => "decided_ms",
        }
    }

    /// Records of the probes' tenant that show.
    async fn records(self, access: &Access) -> anyhow::Result<u64> {
        match self {
            Self::Usage => access.live_records(TENANT).await,
            // Each of quantity one.
            Self::Decision => access.decided_on(TENANT, METER).await,
        }
    }
}

/// What a probe has seen.
pub(crate) struct Seen {
    eye: Eye,
    records: u64,
    /// From emitting a record to its acknowledgement.
    acknowledged_us: Histogram<u64>,
    /// From its acknowledgement until it shows.
    visible_us: Histogram<u64>,
}

impl Probe {
    pub(crate) fn start(access: Access, eye: Eye) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("probe".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(probe(access, eye, &stopped))
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends it after the probe under way.
    pub(crate) fn finish(self) -> anyhow::Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.join().map_err(|_| anyhow::anyhow!("the probe panicked"))?;
        seen.context("the probe failed")
    }
}

async fn probe(access: Access, eye: Eye, stop: &AtomicBool) -> anyhow::Result<Seen> {
    let emitter = Emitter::start(access.appender().await?, EmitterOptions::default())?;
    let mut seen = Seen { eye, records: 0, acknowledged_us: Histogram::new(3)?, visible_us: Histogram::new(3)? };
    while !stop.load(Ordering::Relaxed) {
        let emitted = Instant::now();
        emitter.emit(record()).await?.wait().await?;
        seen.acknowledged_us.record(micros(emitted.elapsed()))?;
        seen.records += 1;
        let acknowledged = Instant::now();
        while eye.records(&access).await? < seen.records {
            ensure!(acknowledged.elapsed() < PATIENCE, "an acknowledged record did not show within {PATIENCE:?}");
            // Finer than the runtime's timer; nothing else runs on this thread.
            std::thread::sleep(POLL);
        }
        seen.visible_us.record(micros(acknowledged.elapsed()))?;
        tokio::time::sleep(PAUSE).await;
    }
    emitter.close().await?;
    Ok(seen)
}

fn record() -> Record {
    Record {
        tenant: TENANT.into(),
        source: "probe".into(),
        id: None,
        meter: METER.into(),
        quantity: Quantity(1),
        time: Some(now()),
        subject: None,
        dimensions: vec![],
        reservation: None,
    }
}

impl Seen {
    /// Adds the probes' own records to what was sent.
    pub(crate) fn add_to(&self, tally: &mut Tally) {
        let sum = Sum { quantity: self.records.into(), records: self.records };
        tally.insert((TENANT.into(), METER.into()), sum);
    }

    pub(crate) fn figures(&self) -> [(&'static str, Value); 3] {
        [
            ("probes", self.records.into()),
            ("probe_acknowledged_ms", percentiles_ms(&self.acknowledged_us)),
            (self.eye.figure(), percentiles_ms(&self.visible_us)),
        ]
    }
}
