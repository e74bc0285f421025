//! Runs of benchmarks in, one dated result out: medians, the machine and the commands,
//! as JSON for comparing and as Markdown for reading. Names no host and no path.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, stdin};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Parser;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::report::{now, round};

/// Reads runs from standard input, one JSON object a line:
/// {"command": "...", "figures": {...}}.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// What the result is called: YYYY-MM-DD-NAME.
    #[arg(long)]
    name: String,
    /// The commit that was measured.
    #[arg(long)]
    commit: String,
    /// Criterion's directory, to keep the newest figure of every stage.
    #[arg(long)]
    criterion: Option<PathBuf>,
    /// Where results are kept.
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
}

#[derive(Deserialize)]
struct Run {
    command: String,
    figures: Map<String, Value>,
}

#[derive(Serialize)]
struct Kept {
    /// UTC.
    date: String,
    commit: String,
    machine: Machine,
    benchmarks: Vec<Benchmark>,
    stages: Vec<Stage>,
}

#[derive(Serialize)]
struct Machine {
    cpu: String,
    cores: usize,
    memory_gib: f64,
    kernel: String,
    rust: String,
}

#[derive(Serialize)]
struct Benchmark {
    command: String,
    runs: usize,
    /// Of numbers the median, of all else the first run's.
    figures: Value,
}

#[derive(Serialize)]
struct Stage {
    name: String,
    median_ns: u64,
    per_s: Option<u64>,
}

/// Criterion's `benchmark.json`.
#[derive(Deserialize)]
struct CriterionId {
    group_id: String,
    function_id: Option<String>,
    throughput: Option<CriterionThroughput>,
}

#[derive(Deserialize)]
struct CriterionThroughput {
    #[serde(rename = "Elements")]
    elements: Option<u64>,
}

/// Criterion's `estimates.json`.
#[derive(Deserialize)]
struct CriterionEstimates {
    median: CriterionEstimate,
}

#[derive(Deserialize)]
struct CriterionEstimate {
    point_estimate: f64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let date = now().to_string().chars().take("2026-01-15".len()).collect::<String>();
    let stages = args.criterion.as_deref().map_or_else(|| Ok(vec![]), stages)?;
    let benchmarks = benchmarks(stdin().lock())?;
    ensure!(!benchmarks.is_empty() || !stages.is_empty(), "there is nothing to keep");
    let kept = Kept { date, commit: args.commit.clone(), machine: machine(), benchmarks, stages };
    fs::create_dir_all(&args.results)?;
    for (extension, text) in [("json", serde_json::to_string_pretty(&kept)? + "\n"), ("md", markdown(&kept)?)] {
        let path = args.results.join(format!("{}-{}.{extension}", kept.date, args.name));
        fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

fn benchmarks(lines: impl BufRead) -> anyhow::Result<Vec<Benchmark>> {
    let mut grouped: Vec<(String, Vec<Value>)> = Vec::new();
    for line in lines.lines() {
        let Run { command, figures } = serde_json::from_str(&line?).context("a line is not a run")?;
        match grouped.iter_mut().find(|(known, _)| *known == command) {
            Some((_, runs)) => runs.push(figures.into()),
            None => grouped.push((command, vec![figures.into()])),
        }
    }
    let benchmark = |(command, runs): (String, Vec<Value>)| Benchmark {
        command,
        runs: runs.len(),
        figures: median(&runs.iter().collect::<Vec<_>>()),
    };
    Ok(grouped.into_iter().map(benchmark).collect())
}

/// The median of numbers, member by member of objects, else the first.
fn median(values: &[&Value]) -> Value {
    let first = values[0];
    if let Value::Object(members) = first {
        let of = |name: &String| median(&values.iter().filter_map(|value| value.get(name)).collect::<Vec<_>>());
        return members.keys().map(|name| (name.clone(), of(name))).collect::<Map<_, _>>().into();
    }
    let mut numbers: Vec<&Value> = values.iter().copied().filter(|value| value.is_number()).collect();
    numbers.sort_by(|a, b| a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)));
    // Of an even number of runs the lower one, which was really measured.
    numbers.get(numbers.len().saturating_sub(1) / 2).map_or_else(|| first.clone(), |median| (*median).clone())
}

/// The newest figure of every stage that Criterion has measured.
fn stages(directory: &Path) -> anyhow::Result<Vec<Stage>> {
    let mut stages = Vec::new();
    for group in fs::read_dir(directory).with_context(|| format!("no results in {}", directory.display()))? {
        for function in fs::read_dir(group?.path()).into_iter().flatten() {
            let newest = function?.path().join("new");
            let read = |name: &str| fs::read_to_string(newest.join(name)).ok();
            let (Some(id), Some(estimates)) = (read("benchmark.json"), read("estimates.json")) else { continue };
            let id: CriterionId = serde_json::from_str(&id)?;
            let estimates: CriterionEstimates = serde_json::from_str(&estimates)?;
            let median_ns = estimates.median.point_estimate;
            let elements = id.throughput.and_then(|throughput| throughput.elements);
            stages.push(Stage {
                name: format!("{}: {}", id.group_id, id.function_id.unwrap_or_default()),
                median_ns: median_ns.round() as u64,
                per_s: elements.map(|elements| (elements as f64 / median_ns * 1e9).round() as u64),
            });
        }
    }
    stages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(stages)
}

fn machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let memory_kib: f64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0.0);
    let rust = std::process::Command::new("rustc").arg("--version").output();
    Machine {
        cpu: field(&read("/proc/cpuinfo"), "model name"),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_gib: round(memory_kib / 1024.0 / 1024.0, 1),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        rust: rust.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default(),
    }
}

fn markdown(kept: &Kept) -> anyhow::Result<String> {
    let Machine { cpu, cores, memory_gib, kernel, rust } = &kept.machine;
    let mut text = format!(
        "# {}, commit {}\n\n{cpu}, {cores} cores, {memory_gib} GiB, Linux {kernel}, {rust}. Medians.\n",
        kept.date, kept.commit
    );
    for Benchmark { command, runs, figures } in &kept.benchmarks {
        write!(text, "\n## `{command}`\n\n{runs} runs\n\n| figure | median |\n| --- | ---: |\n")?;
        for (name, value) in figures.as_object().into_iter().flatten() {
            writeln!(text, "| {name} | {} |", inline(value))?;
        }
    }
    if !kept.stages.is_empty() {
        text.push_str("\n## Stages\n\n`cargo bench -p odometer-bench`\n\n| stage | per second | ns |\n");
        text.push_str("| --- | ---: | ---: |\n");
        for Stage { name, median_ns, per_s } in &kept.stages {
            writeln!(text, "| {name} | {} | {} |", inline(&json!(per_s)), inline(&json!(median_ns)))?;
        }
    }
    Ok(text)
}

/// A value inside a table's cell; large numbers in groups of three digits.
fn inline(value: &Value) -> String {
    match value {
        Value::Null => "–".into(),
        Value::String(text) => text.clone(),
        Value::Number(number) => grouped(number.as_f64().unwrap_or(f64::NAN)),
        Value::Object(members) => {
            members.iter().map(|(name, value)| format!("{name} {}", inline(value))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

fn grouped(number: f64) -> String {
    let text = number.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits = whole.len();
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (digits - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() { grouped } else { format!("{grouped}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_one_command_become_their_medians() {
        let lines = r#"{"command":"a","figures":{"per_s":5,"ms":{"p50":2.5},"raw":null}}
{"command":"b","figures":{"per_s":1}}
{"command":"a","figures":{"per_s":1,"ms":{"p50":1.5},"raw":null}}
{"command":"a","figures":{"per_s":3,"ms":{"p50":9.5},"raw":null}}"#;
        let kept = benchmarks(lines.as_bytes()).unwrap();
        assert_eq!((kept.len(), kept[0].runs, kept[1].runs), (2, 3, 1));
        assert_eq!(kept[0].figures, json!({"per_s": 3, "ms": {"p50": 2.5}, "raw": null}));
    }

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!([1.0, 999.0, 1000.0, 1_234_567.5].map(grouped), ["1", "999", "1,000", "1,234,567.5"]);
    }
}
