//! `/metrics`, read line by line as Prometheus does (text format 0.0.4).

use std::collections::BTreeMap;

use serde_json::json;

use super::{Rig, line};

#[derive(Debug, Default)]
struct Family {
    help: bool,
    kind: String,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
    };
    let label = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap();
        assert!(is_name(name), "{line}");
        (name.to_owned(), value.strip_prefix('"').unwrap().strip_suffix('"').unwrap().to_owned())
    };
    // None of our label values holds a comma or a quotation mark.
    let labels = labels.split(',').filter(|pair| !pair.is_empty()).map(label).collect();
    assert!(is_name(name), "{line}");
    Sample { name: name.to_owned(), labels, value: value.parse().unwrap() }
}

fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, what) = help.split_once(' ').unwrap();
            assert!(!what.is_empty() && !families.contains_key(name), "{line}");
            families.entry(name.to_owned()).or_default().help = true;
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            let family = families.entry(name.to_owned()).or_default();
            assert!(family.kind.is_empty(), "{name} has two types");
            family.kind = kind.to_owned();
            current = name.to_owned();
        } else {
            let sample = sample(line);
            let family = families.get_mut(&current).unwrap();
            let suffix = sample.name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} stands under {current}"));
            let suffixes: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line}");
            family.samples.push(sample);
        }
    }
    families
}

/// One series of a histogram: its buckets (bound, count) and its count.
#[derive(Default)]
struct Histogram {
    buckets: Vec<(f64, f64)>,
    count: f64,
}

fn check_histogram(name: &str, family: &Family) {
    let mut series: BTreeMap<BTreeMap<String, String>, Histogram> = BTreeMap::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        let bound = labels.remove("le").map(|le| le.parse().unwrap());
        let entry = series.entry(labels).or_default();
        match bound {
            Some(bound) => entry.buckets.push((bound, sample.value)),
            None if sample.name.ends_with("_count") => entry.count = sample.value,
            None => assert!(sample.value >= 0.0),
        }
    }
    for (labels, Histogram { buckets, count }) in series {
        assert!(buckets.is_sorted(), "{name} {labels:?}: {buckets:?}");
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{name} {labels:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_follow_the_conventions() {
    let rig = Rig::start();
    rig.send(
        line(1, "acme", &json!({}))
            + &line(1, "acme", &json!({}))
            + &line(1, "acme", &json!({"quantity": 7}))
            + "torn\n",
    )
    .await;
    rig.append(2, b"garbage".to_vec()).await;
    rig.settle().await;
    rig.get("/metrics").await;
    let answer = rig.get("/metrics").await;
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let families = parse(&answer.text);
    for (name, family) in &families {
        assert!(name.starts_with("odometer_") && family.help, "{name} has no help");
        assert!(!family.samples.is_empty(), "{name} is empty");
        assert_eq!(family.kind == "counter", name.ends_with("_total"), "{name} is a {}", family.kind);
        assert!(["counter", "gauge", "histogram"].contains(&family.kind.as_str()), "{name} is a {}", family.kind);
        if family.kind == "histogram" {
            check_histogram(name, family);
        }
        let mut series: Vec<_> = family.samples.iter().map(|s| (&s.name, &s.labels)).collect();
        series.sort();
        assert!(series.windows(2).all(|pair| pair[0] != pair[1]), "{name} has a series twice");
    }
    let names: Vec<&str> = super::super::metrics::names().collect();
    assert_eq!(families.keys().map(String::as_str).collect::<Vec<_>>(), names);
}
