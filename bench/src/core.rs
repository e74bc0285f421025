//! One processor, envelopes already in memory: what a core can decode, judge and
//! count in a second. The log, the books and the network are not in it.

use std::time::Instant;

use clap::Parser;
use odometer_aggregator::{LiveState, Options, Processor};
use odometer_bench::random::Random;
use odometer_schemas::commit::PartitionState;
use odometer_schemas::control::Control;
use odometer_schemas::definitions::Definitions;
use odometer_schemas::envelope::{EnvelopeBuilder, Origin, encode_control};
use odometer_schemas::log::LogEntry;
use odometer_schemas::quantity::Quantity;
use odometer_schemas::record::Record;
use odometer_schemas::time::TimeMs;
use serde_json::json;

use crate::report;

/// 2026-01-15T00:00:00Z: any time will do, as long as every run has the same.
const BEGIN_MS: i64 = 1_768_435_200_000;
/// Share of `--records` counted in one round; the median is over rounds.
const ROUNDS: usize = 20;

#[derive(Parser)]
pub(crate) struct Args {
    /// Distinct 128-bit ids.
    #[arg(long, default_value_t = 20_000_000)]
    records: usize,
    /// Tenants that the records are spread over.
    #[arg(long, default_value_t = 10_000)]
    tenants: u64,
    /// Records per envelope.
    #[arg(long, default_value_t = 500)]
    envelope: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut source = Source { random: Random::new(42), tenants: args.tenants, offset: 1 };
    let options = Options {
        partition: 0,
        partitions: 1,
        hash_seed: Definitions::HASH_SEED_DEFAULT,
        ids_max: usize::MAX / 2,
        totals_max: usize::MAX / 2,
        placement_seed: 0x5eed,
    };
    let mut processor = Processor::restore(options, &PartitionState::default(), None, LiveState::default())?;
    let definitions = encode_control(&Control::Definitions(Definitions::built_in()), Origin::default());
    processor.handle(&LogEntry {
        partition: 0,
        offset: 0,
        append_time: TimeMs(BEGIN_MS),
        bytes: definitions.into(),
    })?;

    let per_round = args.records / ROUNDS;
    let (mut rates, mut bytes, mut total_s, mut cpu_s) = (Vec::new(), 0, 0.0, 0.0);
    for _ in 0..ROUNDS {
        let entries: Vec<LogEntry> = (0..per_round / args.envelope).map(|_| source.envelope(args.envelope)).collect();
        bytes += entries.iter().map(|entry| entry.bytes.len()).sum::<usize>();
        let (started, cpu_before_s) = (Instant::now(), report::thread_cpu_s());
        for entry in &entries {
            processor.handle(entry)?;
        }
        let elapsed_s = started.elapsed().as_secs_f64();
        cpu_s += report::thread_cpu_s() - cpu_before_s;
        total_s += elapsed_s;
        rates.push((entries.len() * args.envelope) as f64 / elapsed_s);
        processor.poll_commit();
    }
    let records = processor.counts().accepted;
    anyhow::ensure!(records == processor.counts().received, "not all records were accepted: {:?}", processor.counts());
    rates.sort_by(f64::total_cmp);
    report::print(
        args.json,
        &[
            ("records", json!(records)),
            ("records_per_s", json!((records as f64 / total_s).round())),
            ("records_per_cpu_s", json!((records as f64 / cpu_s).round())),
            ("round_median_per_s", json!(rates[rates.len() / 2].round())),
            ("round_min_per_s", json!(rates[0].round())),
            ("round_max_per_s", json!(rates[rates.len() - 1].round())),
            ("bytes_per_record", json!((bytes as f64 / records as f64 * 10.0).round() / 10.0)),
            ("tenants", json!(args.tenants)),
        ],
    );
    Ok(())
}

/// Random records: distinct UUIDs, tenants at random, two meters.
struct Source {
    random: Random,
    tenants: u64,
    offset: u64,
}

impl Source {
    fn envelope(&mut self, records: usize) -> LogEntry {
        let mut builder = EnvelopeBuilder::new();
        let append_time = TimeMs(BEGIN_MS + i64::try_from(self.offset).unwrap_or(0));
        for _ in 0..records {
            let id = self.random.uuid();
            let meter = if self.random.number() & 1 == 0 { "llm.prompt_tokens" } else { "api_call" };
            let record = Record {
                tenant: format!("tenant-{}", self.random.number() % self.tenants),
                source: "bench".into(),
                id: Some(id),
                meter: meter.into(),
                quantity: Quantity((self.random.number() % 5000).cast_signed()),
                time: Some(append_time.plus_ms(-((self.random.number() % 1000).cast_signed()))),
                subject: None,
                dimensions: vec![],
                reservation: None,
            };
            builder.push(&record).expect("short records fit");
        }
        let entry =
            LogEntry { partition: 0, offset: self.offset, append_time, bytes: builder.seal(Origin::default()).into() };
        self.offset += 1;
        entry
    }
}
