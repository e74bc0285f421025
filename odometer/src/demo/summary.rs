//! What the demo shows: a live table on a terminal, a plain line every few seconds
//! anywhere else. Reads progress and live counters; changes nothing.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::send::Sent;
use crate::node::cells::Cells;
use crate::node::progress::{Progress, now};

/// Time between two drawings on a terminal.
const REDRAW_EVERY: Duration = Duration::from_millis(500);
/// Time between two lines elsewhere.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Tenants that the table shows.
const TENANTS_SHOWN: usize = 8;

/// What there is to show.
pub(super) struct Summary {
    pub(super) url: String,
    pub(super) names: Vec<&'static str>,
    pub(super) progress: Arc<Progress>,
    pub(super) cells: Cells,
    pub(super) sent: Arc<Sent>,
}

/// One tenant's live usage.
struct TenantUsage {
    name: &'static str,
    records: u64,
    /// Meter, quantity and unit as text.
    meters: Vec<(String, String)>,
}

/// Shows until it is dropped.
pub(super) async fn show(summary: Summary) {
    if std::io::stdout().is_terminal() { draw(summary).await } else { print(summary).await }
}

async fn draw(summary: Summary) {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
    // The template is a constant; should it ever be wrong, the plain bar does.
    if let Ok(style) = ProgressStyle::with_template("{msg}") {
        bar.set_style(style);
    }
    let bar = LeaveOnDrop(bar);
    let mut rate = Rate::new(&summary.progress);
    loop {
        tokio::time::sleep(REDRAW_EVERY).await;
        bar.0.set_message(summary.table(rate.per_s(&summary.progress)));
        bar.0.tick();
    }
}

/// Leaves the last drawing where it is.
struct LeaveOnDrop(ProgressBar);

impl Drop for LeaveOnDrop {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

async fn print(summary: Summary) {
    let Ok(printer) = printer() else { return };
    let mut rate = Rate::new(&summary.progress);
    loop {
        tokio::time::sleep(LINE_EVERY).await;
        // Whoever reads too slowly gets fewer lines.
        let _ = printer.try_send(summary.line(rate.per_s(&summary.progress)));
    }
}

/// A thread that writes lines to standard output. A pipe that nobody reads blocks it
/// and nothing else, so it is left to itself when the demo ends.
fn printer() -> std::io::Result<SyncSender<String>> {
    let (sender, lines) = sync_channel::<String>(1);
    std::thread::Builder::new().name("demo-lines".into()).spawn(move || {
        while let Ok(line) = lines.recv() {
            if writeln!(std::io::stdout(), "{line}").is_err() {
                return;
            }
        }
    })?;
    Ok(sender)
}

/// Records a second between two looks.
struct Rate {
    at: Instant,
    received: u64,
}

impl Rate {
    fn new(progress: &Progress) -> Self {
        Self { at: Instant::now(), received: progress.counts().received }
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a rate to look at")]
    #[expect(clippy::cast_sign_loss, reason = "counts only grow")]
    fn per_s(&mut self, progress: &Progress) -> u64 {
        let next = Self::new(progress);
        let elapsed_s = next.at.duration_since(self.at).as_secs_f64().max(0.001);
        let per_s = next.received.saturating_sub(self.received) as f64 / elapsed_s;
        *self = next;
        per_s.round() as u64
    }
}

impl Summary {
    fn line(&self, per_s: u64) -> String {
        let mut line = format!("demo: {} records/s, {}, lag {} ms", grouped(per_s), self.verdicts(), self.lag_ms());
        for tenant in self.tenants().iter().take(3) {
            let meters: Vec<String> = tenant.meters.iter().map(|(meter, sum)| format!("{meter} {sum}")).collect();
            // Writing into a text does not fail.
            let _ = write!(line, "; {}: {}", tenant.name, meters.join(", "));
        }
        line
    }

    fn table(&self, per_s: u64) -> String {
        let mut table = format!("{}   {} records/s   lag {} ms\n", self.url, grouped(per_s), self.lag_ms());
        let _ = writeln!(table, "{}\n", self.verdicts());
        for tenant in self.tenants().iter().take(TENANTS_SHOWN) {
            let _ = write!(table, "  {:10} {:>12} records", tenant.name, grouped(tenant.records));
            for (meter, sum) in &tenant.meters {
                let _ = write!(table, "   {meter} {sum}");
            }
            table.push('\n');
        }
        let _ = write!(table, "\ncurl -s {}/v1/tenants/umbrella/usage   Ctrl-C drains and stops", self.url);
        table
    }

    fn verdicts(&self) -> String {
        let mut text = String::new();
        for (verdict, count) in self.progress.counts().by_name() {
            let _ = write!(text, "{verdict} {}, ", grouped(count));
        }
        let _ = write!(text, "refused at the door {}", grouped(self.sent.refused.load(Relaxed)));
        let given_up = self.sent.given_up.load(Relaxed);
        if given_up > 0 {
            let _ = write!(text, ", requests given up {}", grouped(given_up));
        }
        text
    }

    fn lag_ms(&self) -> i64 {
        self.progress.partitions.iter().map(|partition| partition.lag_ms(now())).max().unwrap_or(0)
    }

    /// The demo's tenants, busiest first.
    fn tenants(&self) -> Vec<TenantUsage> {
        let usage_of = |name: &&'static str| {
            let usage = self.cells.of_tenant(name);
            TenantUsage {
                name,
                records: usage.iter().map(|usage| usage.cell.records()).sum(),
                meters: usage
                    .iter()
                    .map(|usage| (usage.meter.to_string(), grouped_signed(usage.cell.settled())))
                    .collect(),
            }
        };
        let mut tenants: Vec<TenantUsage> =
            self.names.iter().map(usage_of).filter(|tenant| tenant.records > 0).collect();
        tenants.sort_by_key(|tenant| std::cmp::Reverse(tenant.records));
        tenants
    }
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn grouped_signed(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", grouped(number.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(grouped_signed(-1234), "-1,234");
    }

    #[test]
    fn a_line_names_rate_verdicts_and_lag_before_there_is_any_usage() {
        let summary = Summary {
            url: "http://127.0.0.1:1".into(),
            names: vec!["acme"],
            progress: Arc::new(Progress::new(2)),
            cells: Cells::new(1),
            sent: Arc::default(),
        };
        let line = "demo: 1,500 records/s, accepted 0, duplicate 0, conflict 0, late 0, rejected 0, \
                    refused at the door 0, lag 0 ms";
        assert_eq!(summary.line(1500), line);
        assert!(summary.table(1).contains("http://127.0.0.1:1/v1/tenants/umbrella/usage"));
    }
}
