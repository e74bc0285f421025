//! Carries alerts from the totals book to one channel, on a thread of its own: of the
//! partitions that this node owns, in order, again and again until each is taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use odometer_sink::BookError;
use odometer_sink::totals::{AlertFilter, AlertsOf, Told, TotalsBook};

use super::{Channel, Event};
use crate::node::progress::{PartitionProgress, Progress, Standing};

/// Time between two looks at what was committed: an alert is told this much later.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Pause after the first failure of a partition's channel; it doubles with each one.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause: a receiver that comes back hears of its alerts within minutes.
const PAUSE_MAX: Duration = Duration::from_secs(300);

const TOLD: &str = "odometer_alerts_told_total";
const FAILURES: &str = "odometer_alert_failures_total";

pub(crate) struct Courier {
    channel: Box<dyn Channel>,
    book: Box<dyn TotalsBook>,
    progress: Arc<Progress>,
    /// What events name as their source.
    source: String,
    places: Vec<Place>,
}

/// How far a partition is told.
#[derive(Default)]
struct Place {
    /// The epoch that this node owns it with; zero while another does.
    epoch: u64,
    /// Told below this sequence; none until the book was asked.
    next: Option<u64>,
    /// The book was read to its end, so that only this node's commits bring more.
    is_read: bool,
    again: Option<Again>,
}

/// When to try again what failed.
struct Again {
    at: Instant,
    pause: Duration,
}

impl Courier {
    pub(crate) fn new(
        channel: Box<dyn Channel>,
        book: Box<dyn TotalsBook>,
        progress: &Arc<Progress>,
        log_id: &str,
    ) -> Self {
        let places = progress.partitions.iter().map(|_| Place::default()).collect();
        Self { channel, book, progress: Arc::clone(progress), source: format!("odometer/{log_id}"), places }
    }

    /// The name of its thread.
    pub(crate) fn name(&self) -> &'static str {
        self.channel.name()
    }

    /// Runs until told to stop, at most for one answer of its channel longer: what is not
    /// told by then stands in the book, for whoever owns the partition next.
    pub(crate) fn run(mut self, stopping: &AtomicBool) {
        self.show();
        while !stopping.load(Ordering::Acquire) {
            self.round(stopping);
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Both metrics are there from the start, so that the first failure is a rise.
    fn show(&self) {
        metrics::describe_counter!(TOLD, "Alerts that were told, by channel");
        metrics::describe_counter!(FAILURES, "Attempts to tell alerts that failed and are made again, by channel");
        for name in [TOLD, FAILURES] {
            metrics::counter!(name, "channel" => self.channel.name()).increment(0);
        }
    }

    fn round(&mut self, stopping: &AtomicBool) {
        let progress = Arc::clone(&self.progress);
        for (partition, state) in (0_u32..).zip(&progress.partitions) {
            if stopping.load(Ordering::Acquire) {
                return;
            }
            if !self.is_to_visit(partition, state) {
                continue;
            }
            let visited = self.visit(partition, state, stopping);
            let place = &mut self.places[partition as usize];
            let Err(error) = visited else {
                place.again = None;
                continue;
            };
            metrics::counter!(FAILURES, "channel" => self.channel.name()).increment(1);
            let pause = place.again.as_ref().map_or(PAUSE_MIN, |again| (again.pause * 2).min(PAUSE_MAX));
            tracing::warn!("alerts of partition {partition} wait {} s: {error:#}", pause.as_secs());
            place.again = Some(Again { at: Instant::now() + pause, pause });
        }
    }

    /// Whether this node owns it and has something to tell, as far as is known.
    fn is_to_visit(&mut self, partition: u32, state: &PartitionProgress) -> bool {
        let place = &mut self.places[partition as usize];
        let epoch = match state.standing() {
            Standing::Authoritative => state.epoch.load(Ordering::Acquire),
            Standing::Elsewhere | Standing::Recovering => 0,
        };
        if epoch != place.epoch {
            if place.epoch != 0 {
                self.channel.leave(partition);
            }
            *place = Place { epoch, ..Place::default() };
        }
        let waits = place.again.as_ref().is_some_and(|again| again.at > Instant::now());
        let has_news = !place.is_read || place.next.is_none_or(|next| state.alerted.load(Ordering::Acquire) > next);
        epoch != 0 && has_news && !waits
    }

    fn visit(&mut self, partition: u32, state: &PartitionProgress, stopping: &AtomicBool) -> anyhow::Result<()> {
        let (alerted, name) = (state.alerted.load(Ordering::Acquire), self.channel.name());
        let mut next = self.told(partition)?;
        while !stopping.load(Ordering::Acquire) {
            let filter = AlertFilter {
                of: AlertsOf::Partition(partition),
                // Of nothing told, the first follows nothing.
                after: next.checked_sub(1),
                most: Some(self.channel.at_once()),
            };
            let rows = self.book.alerts(&filter)?;
            let Some((_, last)) = rows.last() else {
                let place = &mut self.places[partition as usize];
                (place.next, place.is_read) = (Some(next.max(alerted)), true);
                break;
            };
            let events: Vec<_> = rows.iter().map(|(_, row)| Event::new(&self.source, partition, row)).collect();
            self.channel.tell(partition, &events)?;
            self.book.tell(name, Told { partition, sequence: last.sequence })?;
            metrics::counter!(TOLD, "channel" => name).increment(events.len() as u64);
            next = last.sequence + 1;
            let place = &mut self.places[partition as usize];
            (place.next, place.again) = (Some(next), None);
        }
        Ok(())
    }

    fn told(&mut self, partition: u32) -> Result<u64, BookError> {
        if let Some(next) = self.places[partition as usize].next {
            return Ok(next);
        }
        let told = self.book.told(self.channel.name())?;
        Ok(told.iter().find(|told| told.partition == partition).map_or(0, |told| told.sequence + 1))
    }
}
