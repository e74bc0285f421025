//! What one check costs in this process: nanoseconds of one thread, with one counter
//! and with many at random, each library in turn in every round.

use std::collections::HashMap;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser;
use governor::Quota;
use governor::clock::{Clock, FakeRelativeClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use limitador::RateLimiter;
use limitador::counter::Counter;
use limitador::limit::{Context, Expression, Namespace};
use limitador::storage::CounterStorage as _;
use limitador::storage::in_memory::InMemoryStorage;
use odometer_aggregator::LiveQuota;
use odometer_bench::random::Random;
use odometer_schemas::quota::{Check, Decision, Item, Who};
use serde_json::{Map, Value, json};

use super::{METER, NOW, WINDOW_S, site};
use crate::report;

/// No check of a run comes near it.
const LIMIT: i64 = 1 << 40;
/// Requests of a round, made before and in the order in which they are asked, as if just
/// parsed: ten for each of 100,000 counters, so that what another library has left in the
/// caches matters at its beginning only.
const REQUESTS: usize = 1 << 20;
/// Of them, those that slower ways are asked in a round, each of which takes longer to
/// make and more memory. A counter comes twice then seldom, and what has to come from memory
/// is in their figures: they are to be compared with each other.
const LONG_REQUESTS: usize = REQUESTS / 64;

/// Every tenant is known after the first, and the next shows how much room is wanted: the
/// first round, which the median leaves out, finds it.
const PASSES: usize = 2;

#[derive(Parser)]
pub(crate) struct Args {
    /// Counters, where there are many.
    #[arg(long, default_value_t = 100_000)]
    cells: u64,
    /// Rounds; the median is reported.
    #[arg(long, default_value_t = 51)]
    rounds: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let one = measure(1, args.rounds)?;
    let many = measure(args.cells, args.rounds)?;
    let mut figures = vec![("rounds", json!(args.rounds)), ("cells", json!(args.cells))];
    let rows: Vec<(String, Value)> = one.into_iter().zip(many).map(row).collect();
    figures.extend(rows.iter().map(|(name, row)| (name.as_str(), row.clone())));
    report::print(args.json, &figures);
    Ok(())
}

fn row(((name, one), (_, many)): ((&'static str, f64), (&'static str, f64))) -> (String, Value) {
    let row = Map::from_iter([
        ("one_ns".to_owned(), json!(report::round(one, 1))),
        ("many_ns".to_owned(), json!(report::round(many, 1))),
    ]);
    (format!("{name}_ns"), row.into())
}

/// One way to ask.
struct Contender<'a> {
    name: &'static str,
    /// Requests of a round.
    asks: usize,
    /// Asks them all; how many are let through.
    round: Box<dyn Fn() -> usize + 'a>,
}

impl<'a> Contender<'a> {
    /// Asks `requests` in their order.
    fn new<T>(name: &'static str, requests: &'a [T], lets_through: impl Fn(&T) -> bool + 'a) -> Self {
        let round = move || requests.iter().filter(|request| lets_through(request)).count();
        Self { name, asks: requests.len(), round: Box::new(round) }
    }
}

/// Median nanoseconds by contender.
fn measure(cells: u64, rounds: usize) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let mut random = Random::new(42);
    let known: Vec<String> = (0..cells).map(tenant).collect();
    let asked = Asked::new((0..REQUESTS).map(|_| known[random.below(cells) as usize].as_str()));
    let tenants: Vec<&str> = asked.names().collect();
    let (_processor, quota) = site(LIMIT)?;
    let checks: Vec<Check> = tenants.iter().take(LONG_REQUESTS).map(|tenant| check(tenant)).collect();
    for _ in 0..PASSES {
        for tenant in &known {
            quota.check(&check(tenant), NOW)?;
        }
        // As a node does a few times a second.
        while quota.expire(NOW, 1) {}
    }
    let limitador = Limitador::new(&known, &tenants)?;
    let governor = governor(&known);
    let contenders = [
        may_use(&quota, &tenants),
        full_check(&quota, &checks),
        of_governor(&governor, &tenants),
        limitador.storage(),
        limitador.limiter(),
    ];
    let mut taken: Vec<Vec<f64>> = contenders.iter().map(|_| Vec::with_capacity(rounds)).collect();
    for _ in 0..rounds {
        for (Contender { name, asks, round }, taken) in contenders.iter().zip(&mut taken) {
            let began = Instant::now();
            let said_yes = black_box(round());
            taken.push(began.elapsed().as_nanos() as f64 / *asks as f64);
            anyhow::ensure!(said_yes == *asks, "{name} let {said_yes} of {asks} through");
        }
    }
    Ok(contenders.iter().zip(taken).map(|(contender, taken)| (contender.name, median(taken))).collect())
}

/// Names one after the other, as they stand in a buffer that was just read.
struct Asked {
    text: String,
    ends: Vec<usize>,
}

impl Asked {
    fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut asked = Self { text: String::new(), ends: vec![0] };
        for name in names {
            asked.text.push_str(name);
            asked.ends.push(asked.text.len());
        }
        asked
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.ends.windows(2).map(|ends| &self.text[ends[0]..ends[1]])
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn tenant(number: u64) -> String {
    format!("tenant-{number:06}")
}

fn check(tenant: &str) -> Check {
    let who = Who { tenant: tenant.to_owned(), ..Who::default() };
    Check { who, items: vec![Item { meter: METER.into(), amount: 1 }] }
}

fn may_use<'a>(quota: &'a LiveQuota, tenants: &'a [&str]) -> Contender<'a> {
    let may_use = |tenant: &&str| quota.may_use(tenant, METER, 1, NOW) == Some(Decision::Allow);
    Contender::new("odometer_may_use", tenants, may_use)
}

fn full_check<'a>(quota: &'a LiveQuota, checks: &'a [Check]) -> Contender<'a> {
    let allows = |check: &Check| quota.check(check, NOW).is_ok_and(|outcome| outcome.decision == Decision::Allow);
    Contender::new("odometer_check", checks, allows)
}

/// With a clock that stands: Odometer is told the time, too.
type Governor<'a> = governor::RateLimiter<
    &'a str,
    DashMapStateStore<&'a str>,
    FakeRelativeClock,
    NoOpMiddleware<<FakeRelativeClock as Clock>::Instant>,
>;

fn governor(known: &[String]) -> Governor<'_> {
    let quota = Quota::per_second(NonZeroU32::MAX);
    let limiter = Governor::dashmap_with_clock(quota, FakeRelativeClock::default());
    for tenant in known {
        // Only whether it is known counts here.
        let _ = limiter.check_key(&tenant.as_str());
    }
    limiter
}

/// It has no check that changes nothing: this one takes.
fn of_governor<'a, 'k>(limiter: &'a Governor<'k>, tenants: &'a [&'k str]) -> Contender<'a> {
    Contender::new("governor", tenants, |tenant| limiter.check_key(tenant).is_ok())
}

struct Limitador<'a> {
    storage: InMemoryStorage,
    counters: Vec<Counter>,
    limiter: RateLimiter,
    namespace: Namespace,
    contexts: Vec<Context<'a>>,
}

/// Contexts take kilobytes each.
const CONTEXTS: usize = LONG_REQUESTS / 8;

impl Limitador<'_> {
    /// One limit, counted by tenant.
    fn new(known: &[String], tenants: &[&str]) -> anyhow::Result<Self> {
        let by_tenant = Expression::parse("tenant").context("limitador cannot read its variable")?;
        let limit = limitador::limit::Limit::new("calls", 1 << 40, WINDOW_S, vec![], vec![by_tenant]);
        let context = |tenant: &str| Context::from(HashMap::from([("tenant".to_owned(), tenant.to_owned())]));
        let counter = |tenant: &str| {
            let counter = Counter::new(limit.clone(), &context(tenant)).ok().flatten();
            counter.context("limitador finds no counter")
        };
        let room = 2 * known.len() as u64;
        let (storage, limiter) = (InMemoryStorage::new(room), RateLimiter::new(room));
        limiter.add_limit(limit.clone());
        let namespace = Namespace::from("calls");
        for tenant in known {
            storage.update_counter(&counter(tenant)?, 1).ok().context("limitador cannot count")?;
            let counted = limiter.update_counters(&namespace, &context(tenant), 1);
            counted.ok().context("limitador cannot count")?;
        }
        let counters = tenants.iter().take(LONG_REQUESTS).map(|tenant| counter(tenant)).collect::<Result<_, _>>()?;
        let contexts = tenants.iter().take(CONTEXTS).map(|tenant| context(tenant)).collect();
        Ok(Self { storage, counters, limiter, namespace, contexts })
    }

    /// The storage alone, asked with counters that stand ready.
    fn storage(&self) -> Contender<'_> {
        let is_within = |counter: &Counter| self.storage.is_within_limits(counter, 1).is_ok_and(|is_within| is_within);
        Contender::new("limitador_storage", &self.counters, is_within)
    }

    /// As its users ask, with contexts that stand ready.
    fn limiter(&self) -> Contender<'_> {
        let is_within = |context: &Context<'_>| {
            self.limiter.is_rate_limited(&self.namespace, context, 1).is_ok_and(|result| !result.limited)
        };
        Contender::new("limitador", &self.contexts, is_within)
    }
}
