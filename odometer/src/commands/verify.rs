//! `odometer verify`: the proof that both books agree.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use odometer_schemas::period::parse_month;
use odometer_sink::verify::{Attendant, Findings, Lag, Phase, Progress, Report, VerifyScope, verify};
use serde_json::{Value, json};

use super::totals::{month, place};
use crate::node::files::Files;
use crate::node::footing::BookPlace;

/// Time between two looks at a raw book that lags.
const LOOK_EVERY: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "\
Examples:
  odometer verify                                       # ./odometer-data, beside a running process or on a stopped one
  odometer verify --data-dir /var/lib/odometer --json
  odometer verify --tenant acme --period 2023-11
  odometer verify --config examples/cluster.toml        # PostgreSQL against ClickHouse

What it does: takes totals and cursors in one snapshot, waits until the raw book has reached them, recomputes count, \
sum and digest of every (tenant, meter, period) and the counts by verdict from the raw rows, checks every row's \
checksum, and looks for missing, extra and twice-accepted rows. --tenant and --period leave out what concerns whole \
partitions.

Exit codes: 0 the books agree; 1 they differ, each difference is named; 2 unproven: the raw book has not caught up \
(start odometer on the data directory, or wait longer).";

/// Prove that the totals book and the raw book agree.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The data directory.
    #[arg(long, value_name = "DIR", env = "ODOMETER_DATA_DIR", default_value = "./odometer-data")]
    data_dir: PathBuf,

    /// Read the books of the cluster that this file describes instead.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Only this tenant.
    #[arg(long)]
    tenant: Option<String>,

    /// Only periods that share a moment with this month, YYYY-MM.
    #[arg(long, value_name = "YYYY-MM", value_parser = month)]
    period: Option<String>,

    /// Seconds to wait for the raw book to catch up.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let files = BookPlace::Files(Files::new(&args.data_dir));
    let place = place(None, args.config.as_deref())?.unwrap_or(files);
    let (mut totals, mut raw) = (place.totals()?, place.raw()?);
    let period = args.period.as_deref().and_then(parse_month);
    let scope = VerifyScope { tenant: args.tenant.clone(), period };
    let bar = bar(args.json);
    let deadline = Instant::now() + Duration::from_secs(args.wait);
    let mut progress = |progress: Progress| show(&bar, progress);
    let mut wait = |_: &[Lag]| {
        std::thread::sleep(LOOK_EVERY);
        Instant::now() < deadline
    };
    let mut attendant = Attendant { progress: &mut progress, wait: &mut wait };
    let report = verify(totals.as_mut(), raw.as_mut(), &scope, &mut attendant)?;
    bar.finish_and_clear();
    if args.json {
        println!("{:#}", as_json(&report));
    } else {
        print(&report);
    }
    Ok(ExitCode::from(report.exit_code()))
}

fn bar(json: bool) -> ProgressBar {
    // indicatif itself draws nothing where standard error is no terminal.
    let target = if json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = ProgressStyle::with_template("{msg:20} {wide_bar} {human_pos}/{human_len} rows  {eta}");
    ProgressBar::with_draw_target(None, target).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_message(match progress.phase {
        Phase::Waiting => "waiting for raw rows",
        Phase::Rows => "checking rows",
        Phase::Keys => "looking for keys",
    });
    bar.set_length(progress.rows_expected);
    bar.set_position(progress.rows_checked);
}

fn print(report: &Report) {
    match report {
        Report::Unproven(lags) => {
            println!("unproven: the raw book has not reached the totals");
            for lag in lags {
                println!("  {lag}");
            }
        }
        Report::Proven(findings) => print_findings(findings),
    }
}

fn print_findings(findings: &Findings) {
    for difference in &findings.differences {
        println!("{difference}");
    }
    let unshown = findings.difference_count - findings.differences.len() as u64;
    if unshown > 0 {
        println!("… and {unshown} more");
    }
    let verdict = if findings.difference_count == 0 { "the books agree" } else { "the books differ" };
    let Findings { totals, rows, rollups, rejected_envelopes, copies, difference_count, .. } = findings;
    println!(
        "{verdict}: {difference_count} differences; {totals} totals, {rows} rows, {rollups} rollups, \
         {rejected_envelopes} undecodable envelopes checked; {copies} harmless copies"
    );
}

fn as_json(report: &Report) -> Value {
    match report {
        Report::Unproven(lags) => json!({
            "result": "unproven",
            "lags": lags.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
        Report::Proven(findings) => json!({
            "result": if findings.difference_count == 0 { "agree" } else { "differ" },
            "differences": findings.differences.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "difference_count": findings.difference_count,
            "totals": findings.totals,
            "rows": findings.rows,
            "rollups": findings.rollups,
            "rejected_envelopes": findings.rejected_envelopes,
            "copies": findings.copies,
        }),
    }
}
