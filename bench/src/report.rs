//! Results as text or JSON, and what they are taken from: clocks and CPU times.

use std::collections::BTreeMap;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use odometer_schemas::time::TimeMs;
use serde_json::{Map, Value, json};

/// Prints named figures, one a line or as one JSON object.
pub(crate) fn print(json: bool, figures: &[(&str, Value)]) {
    if json {
        let object: Map<String, Value> =
            figures.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        println!("{}", Value::Object(object));
        return;
    }
    for (name, value) in figures {
        println!("{name:>24}  {value}");
    }
}

/// CPU seconds that this thread has used, as the kernel counts them; on a busy
/// machine they tell more than the wall clock. Zero where there is no `/proc`.
pub(crate) fn thread_cpu_s() -> f64 {
    schedstat_s(&fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default())
}

/// CPU seconds by process and thread name.
#[derive(Debug, Default)]
pub(crate) struct CpuTimes {
    threads: BTreeMap<String, f64>,
    total_s: f64,
}

impl CpuTimes {
    /// What this process and, if there is one, `server` have used so far. Nothing
    /// where there is no `/proc`.
    pub(crate) fn now(server: Option<u32>) -> Self {
        let mut times = Self::default();
        match server {
            None => times.add("self", ""),
            Some(pid) => {
                times.add("self", "client/");
                times.add(&pid.to_string(), "server/");
            }
        }
        times
    }

    fn add(&mut self, process: &str, prefix: &str) {
        let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return };
        let mut alive_s = 0.0;
        for task in tasks.flatten() {
            let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let (name, used_s) = (read("comm"), schedstat_s(&read("schedstat")));
            *self.threads.entry(format!("{prefix}{}", name.trim())).or_default() += used_s;
            alive_s += used_s;
        }
        let process_s = stat_s(&fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default());
        self.threads.insert(format!("{prefix}(ended threads)"), (process_s - alive_s).max(0.0));
        self.total_s = self.threads.values().sum();
    }

    /// What was used since `before`.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        for (name, used_s) in &mut self.threads {
            *used_s -= before.threads.get(name).copied().unwrap_or(0.0);
        }
        self.total_s = self.threads.values().sum();
        self
    }

    /// Of the node's threads together: what the load costs is another matter.
    pub(crate) fn server_s(&self) -> f64 {
        self.threads.iter().filter(|(name, _)| name.starts_with("server/")).map(|(_, used_s)| used_s).sum()
    }

    /// Of all threads together.
    pub(crate) fn total_s(&self) -> f64 {
        self.total_s
    }

    /// By thread name, without those that did next to nothing.
    pub(crate) fn by_thread(&self) -> BTreeMap<&str, f64> {
        let busy = self.threads.iter().filter(|(_, used_s)| **used_s >= 0.01);
        busy.map(|(name, used_s)| (name.as_str(), round(*used_s, 2))).collect()
    }
}

/// CPU seconds that the processes have used so far, threads that have ended included.
pub(crate) fn processes_cpu_s(pids: &[u32]) -> f64 {
    let of = |pid: &u32| stat_s(&fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default());
    pids.iter().map(of).sum()
}

/// The CPU seconds in a `schedstat` file, whose first field is in nanoseconds.
fn schedstat_s(text: &str) -> f64 {
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    nanoseconds as f64 / 1e9
}

/// The CPU seconds in a process's `stat` file, threads that have ended included: fields
/// 14 and 15, user and system time in hundredths of a second (proc(5)).
fn stat_s(text: &str) -> f64 {
    // The second field, the name in parentheses, may hold anything.
    let after_name = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
    after_name.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Now, by the wall clock.
pub(crate) fn now() -> TimeMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimeMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Median, 99th percentile and maximum in milliseconds; null when there is nothing.
pub(crate) fn percentiles_ms(histogram_us: &Histogram<u64>) -> Value {
    if histogram_us.is_empty() {
        return Value::Null;
    }
    let ms = |us: u64| round(us as f64 / 1000.0, 3);
    let at = |quantile| ms(histogram_us.value_at_quantile(quantile));
    json!({ "p50": at(0.5), "p99": at(0.99), "max": ms(histogram_us.max()) })
}

/// Rounds to `digits` after the point.
pub(crate) fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_times_are_read_whatever_the_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 4 0 100 1 1";
        assert_eq!((stat_s(stat), stat_s("")), (2.0, 0.0));
        assert_eq!((schedstat_s("1500000000 7 3\n"), schedstat_s("")), (1.5, 0.0));
    }
}
