//! A trace and its map in, batches out, each no earlier than it is due. Runs on a
//! thread of its own; never looks at an answer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use odometer_schemas::time::TimeMs;
use tokio::sync::mpsc;

use super::batch::{Batch, Batcher, Compression};
use super::convert::{Facts, time_of};
use super::encode::{Encoder, Pass};
use super::map::Map;
use super::order::Passes;
use super::pace::{Schedule, Speed, Survey};
use super::rows::{Row, RowError, RowsError, Trace};
use super::stop::Stop;

/// How long a paced record may wait for company. Adds at most this to a latency that
/// counts from its due time, and bounds requests to twenty a second.
const GATHER: Duration = Duration::from_millis(50);
/// Skipped rows that are named; the others are only counted.
const SKIPPED_NAMED_MAX: usize = 10;

/// What is replayed, and how.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) map: Map,
    pub(super) trace: Trace,
    /// Copies of each tenant.
    pub(super) tenants: u32,
    /// Passes over the trace.
    pub(super) repeat: u32,
    pub(super) speed: Speed,
    /// Whether a bad row is left out instead of ending the replay.
    pub(super) skip_bad_rows: bool,
    pub(super) compression: Compression,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Fed {
    /// Rows read, over all passes, bad ones included.
    pub(super) rows: u64,
    /// Bad rows that were left out.
    pub(super) skipped: u64,
    /// The first few of them.
    pub(super) skipped_named: Vec<String>,
    /// Fields of the map that no row had.
    pub(super) fields_never_present: Vec<String>,
    /// Why reading ended before the file did.
    pub(super) error: Option<RowsError>,
}

/// What makes a plan impossible, known before anything is sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlanError {
    /// The file.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// Options that need what the map or file does not have.
    #[error("{0}")]
    Impossible(String),
}

/// A plan whose trace has been looked at as far as it needs.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) plan: Plan,
    /// How far each pass moves event times, in milliseconds.
    span_ms: i64,
    survey: Option<Survey>,
    /// Rows handed to the senders so far, for the progress bar.
    pub(super) fed_rows: Arc<AtomicU64>,
}

impl Prepared {
    /// Looks at the trace's times when repetitions or pacing need them.
    ///
    /// # Errors
    /// When the file cannot be read, a row is bad and that ends the replay, or an
    /// option needs a time that the map does not have.
    pub(super) fn new(plan: Plan) -> Result<Self, PlanError> {
        let paced = matches!(plan.speed, Speed::Factor(_));
        let Some(rule) = &plan.map.time else {
            if paced {
                return Err(PlanError::Impossible(
                    "--speed FACTOR needs event times: give the map a [time] section, or use --speed max".into(),
                ));
            }
            return Ok(Self { plan, span_ms: 0, survey: None, fed_rows: Arc::default() });
        };
        let survey = if paced || plan.repeat > 1 { survey(&plan)? } else { None };
        let span_ms = match (survey, rule.span_ms) {
            (Some(survey), Some(span_ms)) if span_ms < survey.length_ms() && plan.repeat > 1 => {
                return Err(PlanError::Impossible(format!(
                    "the map's `time.span` is {span_ms} ms, but the trace takes {} ms from its first to its last \
                     event: repetitions would overlap; make it longer, or remove it",
                    survey.length_ms()
                )));
            }
            (_, Some(span_ms)) => span_ms,
            (Some(survey), None) => survey.span_ms(),
            (None, None) => 0,
        };
        Ok(Self { plan, span_ms, survey, fed_rows: Arc::default() })
    }

    /// How much has been handed to the senders, from 0 to 1.
    pub(super) fn progress(&self) -> f64 {
        let passes = u64::from(self.plan.repeat);
        let (done, all) = match self.survey {
            Some(survey) => (self.fed_rows.load(Ordering::Relaxed), survey.rows * passes),
            None => (self.plan.trace.read_bytes.load(Ordering::Relaxed), self.plan.trace.file_bytes * passes),
        };
        #[expect(clippy::cast_precision_loss, reason = "a progress bar")]
        let fraction = if all == 0 { 0.0 } else { done as f64 / all as f64 };
        fraction.min(1.0)
    }
}

/// Reads the times of all rows.
fn survey(plan: &Plan) -> Result<Option<Survey>, PlanError> {
    let mut rows = plan.trace.rows(&plan.map.layout, &plan.map.fields)?;
    let mut row = Row::default();
    let mut found: Option<Survey> = None;
    let mut previous = TimeMs(i64::MIN);
    loop {
        let time = match rows.next(&mut row) {
            Ok(false) => return Ok(found),
            Ok(true) => time_of(&plan.map, &row).map_err(RowsError::Row),
            Err(error) => Err(error),
        };
        match time {
            Ok(Some(time)) => {
                let so_far = found.get_or_insert(Survey { rows: 0, first: time, last: time, in_order: true });
                so_far.rows = row.number;
                so_far.first = so_far.first.min(time);
                so_far.last = so_far.last.max(time);
                so_far.in_order &= previous <= time;
                previous = time;
            }
            Ok(None) => {}
            Err(RowsError::Row(_)) if plan.skip_bad_rows => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Hands all batches of the plan to `batches`, until the end, an error, or a stop.
pub(super) fn feed(prepared: &Prepared, batches: mpsc::Sender<Batch>, stop: &Stop) -> Fed {
    let plan = &prepared.plan;
    let schedule = match (plan.speed, prepared.survey) {
        (Speed::Factor(factor), Some(survey)) => Some(Schedule { start: Instant::now(), first: survey.first, factor }),
        _ => None,
    };
    let mut feeder = Feeder {
        prepared,
        stop,
        schedule,
        batches,
        batcher: Batcher::new(plan.compression),
        encoder: Encoder::new(&plan.map, plan.tenants),
        facts: Facts::default(),
        fed: Fed::default(),
    };
    // Rows before a bad one count: what has been gathered is sent in any case.
    let end = feeder.passes().and_then(|()| feeder.flush());
    if let Err(error) = end {
        if matches!(error, RowsError::Row(_)) {
            let _ = feeder.flush();
        }
        feeder.fed.error = Some(error);
    }
    feeder.fed
}

struct Feeder<'a> {
    prepared: &'a Prepared,
    stop: &'a Stop,
    schedule: Option<Schedule>,
    batches: mpsc::Sender<Batch>,
    batcher: Batcher,
    encoder: Encoder,
    facts: Facts,
    fed: Fed,
}

impl Feeder<'_> {
    fn passes(&mut self) -> Result<(), RowsError> {
        let plan = &self.prepared.plan;
        let disordered = self.prepared.survey.is_some_and(|survey| !survey.in_order);
        let mut passes = Passes::new(plan, self.schedule.is_some() && disordered)?;
        for number in 0..plan.repeat {
            let pass = Pass { number, shift_ms: self.prepared.span_ms.saturating_mul(i64::from(number)) };
            passes.start()?;
            while let Some(row) = passes.next() {
                if self.stop.is_requested() {
                    return Ok(());
                }
                self.fed.rows += 1;
                self.prepared.fed_rows.fetch_add(1, Ordering::Relaxed);
                match row {
                    Ok(row) => self.row(row, pass)?,
                    Err(RowsError::Row(error)) => self.bad_row(error)?,
                    Err(error) => return Err(error),
                }
            }
            if number == 0 {
                let missing = passes.never_present();
                self.fed.fields_never_present =
                    missing.into_iter().map(|slot| plan.map.field(slot).to_owned()).collect();
            }
        }
        Ok(())
    }

    fn bad_row(&mut self, error: RowError) -> Result<(), RowsError> {
        if !self.prepared.plan.skip_bad_rows {
            return Err(error.into());
        }
        self.fed.skipped += 1;
        if self.fed.skipped_named.len() < SKIPPED_NAMED_MAX {
            self.fed.skipped_named.push(error.to_string());
        }
        Ok(())
    }

    fn row(&mut self, row: &Row, pass: Pass) -> Result<(), RowsError> {
        let plan = &self.prepared.plan;
        if let Err(error) = self.facts.read(&plan.map, row) {
            return self.bad_row(error);
        }
        let due = match (self.schedule, self.facts.time) {
            (Some(schedule), Some(time)) => Some(schedule.due(time.plus_ms(pass.shift_ms))),
            _ => None,
        };
        if let Some(due) = due {
            self.wait_for(due)?;
            // A stop cuts the wait short, and what is not due is not sent.
            if self.stop.is_requested() {
                return Ok(());
            }
        }
        self.encoder.start_row(&plan.map, row, &self.facts, pass);
        for copy in 1..=plan.tenants {
            for (rule, amount) in &self.facts.amounts {
                self.encoder.write_record(*rule, amount, copy, self.batcher.body());
                self.batcher.added(due);
                if self.batcher.is_full() {
                    send(&mut self.batcher, &self.batches)?;
                }
            }
            if self.stop.is_requested() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Waits for a row's due time; what was gathered before leaves in time.
    fn wait_for(&mut self, due: Instant) -> Result<(), RowsError> {
        if let Some(oldest) = self.batcher.oldest_due() {
            let leave = oldest + GATHER;
            if due > leave {
                self.stop.sleep_until(leave);
                self.flush()?;
            }
        }
        self.stop.sleep_until(due);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), RowsError> {
        send(&mut self.batcher, &self.batches).map_err(Into::into)
    }
}

fn send(batcher: &mut Batcher, batches: &mpsc::Sender<Batch>) -> io::Result<()> {
    if let Some(batch) = batcher.finish()? {
        // Senders leave only after a stop, which the next row sees.
        let _ = batches.blocking_send(batch);
    }
    Ok(())
}
