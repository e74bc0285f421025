//! From a trace file to the lines that would be sent, without a server: exact sums of
//! real and made-up traces, fan-out and repetition against independent arithmetic.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use odometer_schemas::time::TimeMs;
use proptest::prelude::*;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::batch::{BATCH_RECORDS_MAX, Compression};
use super::feed::{Fed, Plan, Prepared, feed};
use super::map::Map;
use super::pace::Speed;
use super::rows::Trace;
use super::stop::Stop;

/// One line as the gateway reads it.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Line {
    source: String,
    id: String,
    tenant: String,
    meter: String,
    quantity: serde_json::Value,
    time: Option<String>,
    subject: Option<String>,
    #[serde(default)]
    dimensions: BTreeMap<String, String>,
}

impl Line {
    fn units(&self) -> i128 {
        self.quantity.as_i64().unwrap().into()
    }

    fn time_ms(&self) -> i64 {
        TimeMs::parse_rfc3339(self.time.as_ref().unwrap()).unwrap().0
    }

    fn key(&self) -> (String, String, String, String) {
        (self.tenant.clone(), self.source.clone(), self.id.clone(), self.meter.clone())
    }
}

fn plan(file: &Path, map: &str) -> Plan {
    Plan {
        map: Map::parse(map).unwrap_or_else(|error| panic!("{error}")),
        trace: Trace::find(file).unwrap(),
        tenants: 1,
        repeat: 1,
        speed: Speed::Max,
        skip_bad_rows: false,
        compression: Compression::None,
    }
}

/// Feeds a plan and hands every line to `each`.
fn lines_of(plan: Plan, mut each: impl FnMut(Line)) -> Fed {
    let prepared = Prepared::new(plan).unwrap();
    let (sender, mut receiver) = mpsc::channel(2);
    std::thread::scope(|scope| {
        let feeder = scope.spawn(|| feed(&prepared, sender, &Stop::new()));
        while let Some(batch) = receiver.blocking_recv() {
            assert!((1..=BATCH_RECORDS_MAX).contains(&batch.records));
            assert_eq!(batch.due.iter().map(|(_, records)| records).sum::<u32>(), batch.records);
            let text = str::from_utf8(&batch.body).unwrap();
            assert_eq!(text.lines().count(), batch.records as usize);
            assert!(text.ends_with('\n'));
            for line in text.lines() {
                each(serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
            }
        }
        feeder.join().unwrap()
    })
}

fn collect(plan: Plan) -> (Vec<Line>, Fed) {
    let mut lines = Vec::new();
    let fed = lines_of(plan, |line| lines.push(line));
    (lines, fed)
}

fn write(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

const MAP: &str = r#"
    source = "s"
    format = "csv"
    [time]
    field = "at"
    unit = "s"
    origin = "2026-01-01T00:00:00Z"
    [tenant]
    field = "who"
    [[record]]
    meter = "a"
    quantity = { field = "n" }
    [[record]]
    meter = "b"
    quantity = 2
    where = { field = "n", equals = "7" }
    [[record]]
    meter = "a"
    quantity = "0.5"
    where = { field = "n", equals = "7" }
"#;

#[test]
fn a_row_becomes_the_records_of_its_map() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "t.csv", "at,who,n\n0,x,7\n1.5,y,\n2,x,0.250\n");
    let (lines, fed) = collect(plan(&file, MAP));
    let seen: Vec<_> = lines
        .iter()
        .map(|l| format!("{} {} {} {} {}", l.id, l.tenant, l.meter, l.quantity, l.time.as_ref().unwrap()))
        .collect();
    // The second row has no quantity, so it makes no record.
    assert_eq!(
        seen,
        [
            "1 x a 7 2026-01-01T00:00:00Z",
            "1 x b 2 2026-01-01T00:00:00Z",
            "1.2 x a \"0.5\" 2026-01-01T00:00:00Z",
            "3 x a \"0.250\" 2026-01-01T00:00:02Z",
        ]
    );
    assert_eq!((fed.rows, fed.skipped, fed.error.is_none()), (3, 0, true));
}

#[test]
fn tenants_and_repetitions_multiply_every_quantity_and_never_share_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "t.csv", "at,who,n\n61,x,7\n0,y,5\n");
    let (tenants, repeat) = (3_u32, 4_u32);
    let fanned = Plan { tenants, repeat, ..plan(&file, MAP) };
    let (lines, fed) = collect(fanned);
    assert_eq!(fed.rows, 2 * u64::from(repeat));
    let keys: BTreeSet<_> = lines.iter().map(Line::key).collect();
    assert_eq!(keys.len(), lines.len());
    let mut sums: HashMap<(String, String), i128> = HashMap::new();
    for line in lines.iter().filter(|line| line.quantity.is_i64()) {
        *sums.entry((line.tenant.clone(), line.meter.clone())).or_default() += line.units();
    }
    let mut expected = HashMap::new();
    for copy in 1..=tenants {
        expected.insert((format!("x#{copy}"), "a".to_owned()), 7 * i128::from(repeat));
        expected.insert((format!("x#{copy}"), "b".to_owned()), 2 * i128::from(repeat));
        expected.insert((format!("y#{copy}"), "a".to_owned()), 5 * i128::from(repeat));
    }
    assert_eq!(sums, expected);
    // From second 0 to second 61 and a millisecond: two minutes.
    let start_ms = 1_767_225_600_000;
    let times: BTreeSet<_> = lines.iter().filter(|l| l.tenant == "y#1").map(|l| (l.id.clone(), l.time_ms())).collect();
    let expected = (0..4).map(|k| (if k == 0 { "2".into() } else { format!("2.r{k}") }, start_ms + k * 120_000));
    assert_eq!(times, expected.collect());
}

#[test]
fn the_map_may_say_how_long_a_repetition_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "t.csv", "at,who,n\n0,x,1\n3600,x,1\n");
    let with_span = |span: &str| MAP.replace("unit =", &format!("span = \"{span}\"\nunit ="));
    let (lines, _) = collect(Plan { repeat: 2, ..plan(&file, &with_span("1d")) });
    let times: Vec<_> = lines.iter().map(|line| line.time_ms() - 1_767_225_600_000).collect();
    assert_eq!(times, [0, 3_600_000, 86_400_000, 90_000_000]);
    let error = Prepared::new(Plan { repeat: 2, ..plan(&file, &with_span("1h")) }).unwrap_err();
    assert!(error.to_string().starts_with("the map's `time.span` is 3600000 ms"), "{error}");
}

#[test]
fn without_a_time_none_is_sent_and_repetitions_differ_by_id() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "t.csv", "n\n1\n");
    let map = "source='s'\nformat='csv'\n[tenant]\nvalue='t'\n[[record]]\nmeter='m'\nquantity={field='n'}";
    let (lines, _) = collect(Plan { repeat: 2, ..plan(&file, map) });
    assert_eq!(lines.iter().map(|l| (l.id.as_str(), &l.time)).collect::<Vec<_>>(), [("1", &None), ("1.r1", &None)]);
    let paced = Plan { speed: Speed::Factor(1.0), ..plan(&file, map) };
    assert!(Prepared::new(paced).unwrap_err().to_string().starts_with("--speed FACTOR needs event times"));
}

#[test]
fn a_bad_row_stops_or_is_left_out_and_never_moves_ids() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "t.csv", "at,who,n\n0,x,1\n1,x,many\n2,x,3\n,x,4\n3,,5\n4,x,6,7\n5,x,8\n");
    let (lines, fed) = collect(plan(&file, MAP));
    assert_eq!(lines.len(), 1);
    assert_eq!(fed.error.unwrap().to_string(), "row 2 (line 3): field `n` is no quantity: `many` not a decimal number");
    let (lines, fed) = collect(Plan { skip_bad_rows: true, ..plan(&file, MAP) });
    assert_eq!(lines.iter().map(|l| l.id.as_str()).collect::<Vec<_>>(), ["1", "3", "7"]);
    assert_eq!((fed.rows, fed.skipped, fed.error.is_none()), (7, 4, true));
    assert_eq!(
        fed.skipped_named,
        [
            "row 2 (line 3): field `n` is no quantity: `many` not a decimal number",
            "row 4 (line 5): field `at` is empty; every row needs its time",
            "row 5 (line 6): field `who` is empty; every row needs its tenant",
            "row 6 (line 7): has 4 cells where the file has 3 columns",
        ]
    );
}

#[test]
fn paced_rows_go_out_in_the_order_of_their_times() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "t.csv", "at,who,n\n2,x,1\nx,x,2\n0,x,3\n1,x,4\n");
    let paced = Plan { speed: Speed::Factor(1e6), skip_bad_rows: true, repeat: 2, ..plan(&file, MAP) };
    let (lines, fed) = collect(paced);
    assert_eq!(lines.iter().map(|l| l.id.as_str()).collect::<Vec<_>>(), ["3", "4", "1", "3.r1", "4.r1", "1.r1"]);
    assert_eq!((fed.rows, fed.skipped), (8, 2));
}

#[test]
fn the_json_lines_example_reads_the_row_in_its_comment() {
    let map = example_map("llm-gateway-jsonl.toml");
    let comment: String = map.lines().take(3).map(|line| line.trim_start_matches('#')).collect();
    let row = comment.split_once(':').unwrap().1.replace('\n', " ");
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "t.jsonl", &row);
    let (lines, _) = collect(plan(&file, &map));
    let seen: Vec<_> = lines.iter().map(|line| (line.meter.as_str(), line.units())).collect();
    assert_eq!(
        seen,
        [("llm.prompt_tokens", 812), ("llm.generated_tokens", 96), ("agent_minute", 3250), ("api_call", 1)]
    );
    for line in &lines {
        assert_eq!((line.id.as_str(), line.tenant.as_str(), line.subject.as_deref()), ("1", "acme", Some("ada")));
        assert_eq!(line.dimensions, BTreeMap::from([("model".to_owned(), "m-large".to_owned())]));
        assert_eq!(line.time_ms(), 1_767_225_600_123);
    }
}

#[test]
fn a_stop_ends_reading() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "t.csv", "at,who,n\n0,x,1\n100000,x,1\n");
    let paced = Prepared::new(Plan { speed: Speed::Factor(1.0), ..plan(&file, MAP) }).unwrap();
    let (sender, mut receiver) = mpsc::channel(2);
    let stop = Stop::new();
    std::thread::scope(|scope| {
        let feeder = scope.spawn(|| feed(&paced, sender, &stop));
        // The first row leaves although the second is due in a day.
        assert_eq!(receiver.blocking_recv().unwrap().records, 1);
        stop.request(super::stop::StopReason::Interrupted);
        while receiver.blocking_recv().is_some() {}
        feeder.join().unwrap();
    });
}

#[test]
fn a_field_that_no_json_row_has_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "t.jsonl", "{\"n\":1}\n{\"n\":2}\n");
    let map = "source='s'\nformat='jsonl'\n[tenant]\nvalue='t'\n[[record]]\nmeter='m'\nquantity={field='m'}";
    let (lines, fed) = collect(plan(&file, map));
    assert_eq!((lines.len(), fed.fields_never_present), (0, vec!["m".to_owned()]));
}

proptest! {
    #[test]
    fn every_text_survives_its_json(
        source in "\\PC{1,8}", tenant in any::<String>(), subject in any::<String>(), value in any::<String>(), name in "\\PC{1,8}"
    ) {
        let quoted = |text: &str| toml::Value::String(text.into()).to_string();
        let map = format!(
            "source = {}\nformat = 'jsonl'\n[tenant]\nfield = 't'\n[subject]\nfield = 's'\n[dimensions]\n{} = 'd'\n\
             [[record]]\nmeter = 'm'\nquantity = 1",
            quoted(&source),
            serde_json::to_string(&name).unwrap(),
        );
        prop_assume!(!tenant.is_empty());
        let row = serde_json::json!({"t": tenant, "s": subject, "d": value});
        let folder = tempfile::tempdir().unwrap();
        let file = write(&folder, "t.jsonl", &row.to_string());
        let (lines, _) = collect(plan(&file, &map));
        prop_assert_eq!(&lines[0].tenant, &tenant);
        prop_assert_eq!(&lines[0].source, &source);
        prop_assert_eq!(lines[0].subject.clone().unwrap_or_default(), subject);
        prop_assert_eq!(lines[0].dimensions.get(&name).cloned().unwrap_or_default(), value);
    }
}

/// The folder with the public traces, if it is there.
fn data() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");
    let folder = PathBuf::from(std::env::var("ODOMETER_DATA").unwrap_or_else(|_| default.into()));
    if !folder.is_dir() {
        println!("skipped: no public traces in {} (set ODOMETER_DATA)", folder.display());
        return None;
    }
    Some(folder)
}

fn example_map(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/maps").join(name)).unwrap()
}

fn reference(folder: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(folder.join("reference.json")).unwrap()).unwrap()
}

#[test]
fn azure_rows_give_the_published_sums_per_minute_and_hour() {
    let Some(data) = data() else { return };
    let folder = data.join("azure-llm");
    let published = reference(&folder);
    for (name, prompt, generated, rows) in
        [("code", 18_059_974, 245_896, 8_819), ("conv", 22_361_870, 4_088_665, 19_366)]
    {
        let file = folder.join(format!("AzureLLMInferenceTrace_{name}.csv"));
        let mut sums: BTreeMap<(String, String), i128> = BTreeMap::new();
        let map = example_map(&format!("azure-{name}.toml"));
        let fed = lines_of(plan(&file, &map), |line| {
            assert_eq!(line.tenant, name);
            let time = line.time.as_ref().unwrap().replace('T', " ");
            // `2023-11-16 18:17:03.979Z`: the total, its hour and its minute.
            for length in [0, 13, 16] {
                *sums.entry((line.meter.clone(), time[..length].to_owned())).or_default() += line.units();
            }
        });
        assert_eq!(fed.rows, rows);
        let sum = |meter: &str, prefix: &str| sums[&(meter.to_owned(), prefix.to_owned())];
        assert_eq!(sum("llm.prompt_tokens", ""), prompt);
        assert_eq!(sum("llm.generated_tokens", ""), generated);
        assert_eq!(sum("api_call", ""), i128::from(rows));
        let mut buckets = 0;
        for windows in ["per_hour", "per_minute"] {
            for (window, expected) in published["files"][name][windows].as_object().unwrap() {
                let number = |key: &str| i128::from(expected[key].as_i64().unwrap());
                assert_eq!(sum("llm.prompt_tokens", window), number("prompt"), "{name} {window}");
                assert_eq!(sum("llm.generated_tokens", window), number("gen"), "{name} {window}");
                assert_eq!(sum("api_call", window), number("rows"), "{name} {window}");
                buckets += 1;
            }
        }
        assert_eq!(sums.len(), 3 * (buckets + 1), "no other windows");
    }
}

#[test]
fn servegen_rows_give_the_published_sums_per_client() {
    let Some(data) = data() else { return };
    let folder = data.join("servegen");
    let published = reference(&folder);
    let mut sums: BTreeMap<String, i128> = BTreeMap::new();
    let file = folder.join("servegen_requests_10min.csv.zst");
    let mut last_ms = 0;
    let fed = lines_of(plan(&file, &example_map("servegen.toml")), |line| {
        assert_eq!(line.meter, "api_call");
        last_ms = last_ms.max(line.time_ms());
        *sums.entry(line.tenant.clone()).or_default() += line.units();
    });
    assert_eq!(fed.rows, 251_524);
    assert_eq!(sums.len(), 421);
    assert_eq!(sums.values().sum::<i128>(), 3_824_907_861);
    assert!(last_ms < 1_767_225_600_000 + 14 * 86_400_000, "the trace takes fourteen days");
    for (pool, expected) in published["pools"].as_object().unwrap() {
        for (client, requests) in expected["per_client"].as_object().unwrap() {
            let sum = sums.get(&format!("{pool}/{client}")).copied().unwrap_or_default();
            assert_eq!(sum, i128::from(requests.as_i64().unwrap()), "{pool}/{client}");
        }
    }
}
