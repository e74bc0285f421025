//! Many threads at one hard limit: how many are let in beyond it.

use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use clap::Parser;
use limitador::RateLimiter;
use limitador::limit::{Context, Namespace};
use odometer_schemas::quota::{Decision, Item, Reserve, Who};
use serde_json::{Value, json};

use super::{METER, NOW, WINDOW_S, site};
use crate::report;

/// A reservation outlives the run.
const TTL_MS: i64 = 3_600_000;

#[derive(Parser)]
pub(crate) struct Args {
    /// Threads that ask at the same time.
    #[arg(long, default_value_t = 64)]
    threads: u64,
    /// The hard limit.
    #[arg(long, default_value_t = 500_000)]
    limit: u64,
    /// Attempts of all threads together.
    #[arg(long, default_value_t = 1_000_000)]
    attempts: u64,
    /// Runs; the largest overshoot is reported too.
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut odometer = Vec::new();
    let mut limitador = Vec::new();
    for _ in 0..args.rounds {
        odometer.push(of_odometer(args)?);
        limitador.push(of_limitador(args)?);
    }
    report::print(
        args.json,
        &[
            ("threads", json!(args.threads)),
            ("hard_limit", json!(args.limit)),
            ("attempts", json!(args.attempts / args.threads * args.threads)),
            ("rounds", json!(args.rounds)),
            ("odometer", figures(args.limit, &odometer)),
            ("limitador_in_memory", figures(args.limit, &limitador)),
        ],
    );
    Ok(())
}

fn figures(limit: u64, admitted: &[u64]) -> Value {
    let beyond = || admitted.iter().map(|admitted| admitted.saturating_sub(limit));
    json!({
        "admitted_min": admitted.iter().min(),
        "admitted_max": admitted.iter().max(),
        "overshoot_max": beyond().max(),
        "rounds_over": beyond().filter(|beyond| *beyond > 0).count(),
    })
}

/// Runs `attempt` on all threads at once, with a number of its own each time; how many
/// said yes. `of_thread` makes what a thread keeps.
fn admitted<T>(args: &Args, of_thread: impl Fn() -> T + Sync, attempt: impl Fn(&mut T, u64) -> bool + Sync) -> u64 {
    let (admitted, ready) = (AtomicU64::new(0), Barrier::new(args.threads as usize));
    let each = args.attempts / args.threads;
    std::thread::scope(|scope| {
        for thread in 0..args.threads {
            let (admitted, ready, of_thread, attempt) = (&admitted, &ready, &of_thread, &attempt);
            scope.spawn(move || {
                let mut own = of_thread();
                ready.wait();
                let count = (0..each).filter(|number| attempt(&mut own, thread * each + number)).count();
                admitted.fetch_add(count as u64, Relaxed);
            });
        }
    });
    admitted.into_inner()
}

fn of_odometer(args: &Args) -> anyhow::Result<u64> {
    let (_processor, quota) = site(i64::try_from(args.limit)?)?;
    let request = || Reserve {
        who: Who { tenant: "acme".into(), ..Who::default() },
        ttl_ms: TTL_MS,
        items: vec![Item { meter: METER.into(), amount: 1 }],
        ..Reserve::default()
    };
    Ok(admitted(args, request, |request, number| {
        request.id = format!("r{number}");
        quota.reserve(request, 0, NOW).is_ok_and(|outcome| outcome.decision != Decision::Deny)
    }))
}

fn of_limitador(args: &Args) -> anyhow::Result<u64> {
    let limiter = RateLimiter::new(1_000);
    limiter.add_limit(limitador::limit::Limit::new("acme", args.limit, WINDOW_S, vec![], vec![]));
    let own = || (Namespace::from("acme"), Context::from(HashMap::new()));
    Ok(admitted(args, own, |(namespace, context), _| {
        limiter.check_rate_limited_and_update(namespace, context, 1).is_ok_and(|result| !result.limited)
    }))
}
