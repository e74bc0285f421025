//! What all tests of the real binary share: starting and stopping it, and traffic
//! whose totals are known.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

pub(crate) const ODOMETER: &str = env!("CARGO_BIN_EXE_odometer");

/// A running `odometer dev` or `odometer serve`, killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
}

impl Process {
    /// Starts the binary and waits until it takes requests.
    pub(crate) fn spawn(args: &[&str]) -> Self {
        let mut child = Command::new(ODOMETER)
            .args(args)
            .args(["--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .env("ODOMETER_LOG", "warn")
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.find_map(|line| line.unwrap().strip_prefix("ready: ").map(str::to_owned));
        Self { child, url: ready.expect("the process ended before it was ready") }
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by its name, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// SIGTERM, and wait: everything acknowledged must be in both books afterwards.
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        assert!(self.child.wait().unwrap().success(), "the process did not stop cleanly");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone after `kill` and `stop`; a failed test must not leave it behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the binary to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    Command::new(ODOMETER).args(args).output().unwrap()
}

/// The JSON that a command prints.
pub(crate) fn json(args: &[&str]) -> Value {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs `verify` on the books that `place` names and returns its exit code and what it
/// printed.
pub(crate) fn verify_at(place: [&str; 2]) -> (i32, String) {
    let output = run(&["verify", "--wait", "240", place[0], place[1]]);
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// (tenant, meter) → (quantity, records).
pub(crate) type Totals = BTreeMap<(String, String), (i128, u64)>;

/// The content of the totals book that `place` names, summed over periods.
pub(crate) fn totals_at(place: [&str; 2]) -> Totals {
    let mut totals = Totals::new();
    for row in json(&["totals", "--json", place[0], place[1]]).as_array().unwrap() {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        let total = totals.entry((text("tenant"), text("meter"))).or_default();
        total.0 += text("quantity").parse::<i128>().unwrap();
        total.1 += row["records"].as_u64().unwrap();
    }
    totals
}

/// A file to replay, its map, and what must come of it.
pub(crate) struct Trace {
    pub(crate) file: PathBuf,
    pub(crate) map: PathBuf,
    pub(crate) expected: Totals,
    pub(crate) records: u64,
}

impl Trace {
    pub(crate) fn replay_args<'a>(&'a self, url: &'a str) -> Vec<&'a str> {
        let (file, map) = (self.file.to_str().unwrap(), self.map.to_str().unwrap());
        vec!["replay", file, "--map", map, "--url", url, "--json", "--retry-for", "1s"]
    }

    /// Replays to the end; every record must be acknowledged as stored.
    pub(crate) fn replay(&self, url: &str) {
        let report = json(&self.replay_args(url));
        assert_eq!(report["records_acknowledged"].as_u64(), Some(self.records), "{report}");
    }
}

/// A trace in the shape of the public ones: CRLF, seven digits, no final newline,
/// equal rows, an empty field now and then.
pub(crate) fn synthetic(directory: &Path, rows: u64) -> Trace {
    let mut text = String::from("TIMESTAMP,tenant,prompt,generated");
    let mut expected = Totals::new();
    let mut records = 0;
    let mut count = |tenant: &str, meter: &str, quantity: u64| {
        let total = expected.entry((tenant.to_owned(), meter.to_owned())).or_default();
        *total = (total.0 + i128::from(quantity), total.1 + 1);
        records += 1;
    };
    for row in 0..rows {
        let (tenant, prompt) = (format!("tenant-{}", row * row % 37), row * 7919 % 5000);
        let (minute, second) = (row / 60 % 60, row % 60);
        write!(text, "\r\n2023-11-16 18:{minute:02}:{second:02}.9799600,{tenant},{prompt},").unwrap();
        count(&tenant, "api_call", 1);
        count(&tenant, "llm.prompt_tokens", prompt);
        if row % 5 != 0 {
            let generated = row * 104_729 % 900;
            write!(text, "{generated}").unwrap();
            count(&tenant, "llm.generated_tokens", generated);
        }
    }
    let (file, map) = (directory.join("trace.csv"), directory.join("trace.toml"));
    std::fs::write(&file, text).unwrap();
    std::fs::write(&map, MAP).unwrap();
    Trace { file, map, expected, records }
}

const MAP: &str = r#"
source = "synthetic"
format = "csv"
[time]
field = "TIMESTAMP"
format = "%Y-%m-%d %H:%M:%S%.f"
[tenant]
field = "tenant"
[[record]]
meter = "llm.prompt_tokens"
quantity = { field = "prompt" }
[[record]]
meter = "llm.generated_tokens"
quantity = { field = "generated" }
[[record]]
meter = "api_call"
quantity = 1
"#;

/// The folder of real traces; `None`, and says so, where it is not there.
pub(crate) fn real_data() -> Option<PathBuf> {
    let beside = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data"));
    let data = std::env::var_os("ODOMETER_DATA").map_or(beside, PathBuf::from);
    if data.is_dir() {
        return Some(data);
    }
    println!("skipped: no real traces at {}; set ODOMETER_DATA", data.display());
    None
}

/// The two Azure traces and their published totals.
pub(crate) fn azure(data: &Path) -> Vec<Trace> {
    let trace = |tenant: &str, records: u64, prompt: i128, generated: i128| {
        let total = |meter: &str, quantity: i128| ((tenant.to_owned(), meter.to_owned()), (quantity, records));
        Trace {
            file: data.join(format!("azure-llm/AzureLLMInferenceTrace_{tenant}.csv")),
            map: example_map(&format!("azure-{tenant}.toml")),
            expected: [
                total("api_call", i128::from(records)),
                total("llm.prompt_tokens", prompt),
                total("llm.generated_tokens", generated),
            ]
            .into(),
            records: records * 3,
        }
    };
    vec![trace("code", 8819, 18_059_974, 245_896), trace("conv", 19_366, 22_361_870, 4_088_665)]
}

pub(crate) fn example_map(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/maps")).join(name)
}

/// The trace of ServeGen; `None` where it is not there.
pub(crate) fn servegen(data: &Path) -> Trace {
    let reference: Value =
        serde_json::from_slice(&std::fs::read(data.join("servegen/reference.json")).unwrap()).unwrap();
    let mut expected = Totals::new();
    for (pool, facts) in reference["pools"].as_object().unwrap() {
        for (client, requests) in facts["per_client"].as_object().unwrap() {
            let total = (format!("{pool}/{client}"), "api_call".to_owned());
            // How many rows make up a client's requests, the reference does not say.
            expected.insert(total, (i128::from(requests.as_i64().unwrap()), 0));
        }
    }
    Trace {
        file: data.join("servegen/servegen_requests_10min.csv.zst"),
        map: example_map("servegen.toml"),
        expected,
        records: 251_524,
    }
}

/// The quantities alone, of those that are not zero.
pub(crate) fn quantities(totals: &Totals) -> BTreeMap<&(String, String), i128> {
    totals.iter().map(|(key, (quantity, _))| (key, *quantity)).filter(|(_, quantity)| *quantity != 0).collect()
}
