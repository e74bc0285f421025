//! A million reservations that end at the same moment: what a check costs meanwhile, on
//! another thread, beside what it costs when nothing ends.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use clap::Parser;
use hdrhistogram::Histogram;
use odometer_aggregator::{LiveQuota, Processor};
use odometer_bench::random::Random;
use odometer_schemas::control::Control;
use odometer_schemas::envelope::{Origin, encode_control};
use odometer_schemas::log::LogEntry;
use odometer_schemas::quota::{Check, Decision, Item, QuotaOperation, Reserve, Who};
use serde_json::{Value, json};

use super::{METER, NOW, site};
use crate::report;

const TTL_MS: i64 = 60_000;
/// No tenant comes near it.
const LIMIT: i64 = 1 << 40;
/// Operations of one log entry: well inside of its bytes.
const OPERATIONS: usize = 200;
/// As a node does: reservations looked at before others may have the core.
const AT_ONCE: usize = 512;
/// Checks are slower than this only where something stalls.
const SLOWEST_NS: u64 = 60_000_000_000;

#[derive(Parser)]
pub(crate) struct Args {
    /// Reservations that end.
    #[arg(long, default_value_t = 1_000_000)]
    holds: u64,
    /// Tenants that hold them.
    #[arg(long, default_value_t = 100_000)]
    tenants: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (mut processor, quota) = site(LIMIT)?;
    hold(args, &mut processor, &quota)?;
    let held = held(args, &quota)?;
    anyhow::ensure!(held == args.holds.cast_signed(), "{held} are held of {}", args.holds);
    let quiet = checks(args, &quota, || std::thread::sleep(Duration::from_secs(1)))?;
    let mut took = Duration::ZERO;
    let ending = checks(args, &quota, || took = end(&quota))?;
    let held = self::held(args, &quota)?;
    anyhow::ensure!(held == 0, "{held} are held of reservations that are over");
    report::print(
        args.json,
        &[
            ("holds", json!(args.holds)),
            ("tenants", json!(args.tenants)),
            ("ended_in_ms", json!(took.as_millis())),
            ("check_quiet", figures(&quiet)),
            ("check_while_they_end", figures(&ending)),
        ],
    );
    Ok(())
}

/// Makes the reservations; the log has them.
fn hold(args: &Args, processor: &mut Processor, quota: &LiveQuota) -> anyhow::Result<()> {
    // The entries before are the site's own.
    let mut offset = 2;
    let mut book = |operations: &mut Vec<QuotaOperation<'_>>| {
        let control = Control::Quota { epoch: 1, operations: std::mem::take(operations) };
        let bytes = encode_control(&control, Origin::default());
        offset += 1;
        processor
            .handle(&LogEntry { partition: 0, offset: offset - 1, append_time: NOW, bytes: bytes.into() })
            .map(|_| ())
    };
    let mut operations = Vec::with_capacity(OPERATIONS);
    for number in 0..args.holds {
        let reserve = Reserve {
            id: format!("run-{number}"),
            who: who(number % args.tenants),
            ttl_ms: TTL_MS,
            items: items(1),
            ..Reserve::default()
        };
        operations.extend(quota.reserve(&reserve, 0, NOW)?.into_owned().operation);
        if operations.len() == OPERATIONS {
            book(&mut operations)?;
            quota.expire(NOW, AT_ONCE);
        }
    }
    Ok(book(&mut operations)?)
}

/// What all tenants hold together.
fn held(args: &Args, quota: &LiveQuota) -> anyhow::Result<i64> {
    let of_tenant = |number| {
        let outcome = quota.check(&Check { who: who(number), items: items(0) }, NOW)?;
        Ok(outcome.limits.iter().map(|limit| limit.reserved).sum::<i64>())
    };
    (0..args.tenants).map(of_tenant).sum()
}

/// Frees all that is over, as a node does; how long that took.
fn end(quota: &LiveQuota) -> Duration {
    let began = Instant::now();
    while quota.expire(NOW.plus_ms(TTL_MS + 1_000), AT_ONCE) {
        std::thread::yield_now();
    }
    began.elapsed()
}

/// Nanoseconds of every check of a random tenant that another thread makes while
/// `meanwhile` runs.
fn checks(args: &Args, quota: &LiveQuota, meanwhile: impl FnOnce()) -> anyhow::Result<Histogram<u64>> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut random = Random::new(7);
            let mut taken = Histogram::new_with_bounds(1, SLOWEST_NS, 3)?;
            while !over.load(SeqCst) {
                let check = Check { who: who(random.below(args.tenants)), items: items(1) };
                let began = Instant::now();
                let outcome = quota.check(&check, NOW)?;
                taken.saturating_record(began.elapsed().as_nanos() as u64);
                anyhow::ensure!(outcome.decision == Decision::Allow, "a check was denied");
            }
            Ok(taken)
        });
        meanwhile();
        over.store(true, SeqCst);
        asking.join().map_err(|_| anyhow::anyhow!("the checking thread panicked"))?
    })
}

fn figures(taken: &Histogram<u64>) -> Value {
    let us = |ns: u64| json!(report::round(ns as f64 / 1e3, 2));
    json!({
        "checks": taken.len(),
        "p50_us": us(taken.value_at_quantile(0.5)),
        "p99_us": us(taken.value_at_quantile(0.99)),
        "p999_us": us(taken.value_at_quantile(0.999)),
        "max_us": us(taken.max()),
    })
}

fn who(number: u64) -> Who {
    Who { tenant: format!("tenant-{number:06}"), ..Who::default() }
}

fn items(amount: u64) -> Vec<Item> {
    vec![Item { meter: METER.into(), amount }]
}
