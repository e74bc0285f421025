//! CloudEvents as the specification says: every example of it, every case of the
//! HTTP binding's feature file, and the rules of its JSON schema.
//!
//! The examples and the feature file are read from `$ODOMETER_DATA/cloudevents`, by
//! default beside the repository; without them those tests say so and pass.

use std::path::{Path, PathBuf};

use odometer_ingest::gateway::GatewayOptions;
use odometer_schemas::definitions::Definitions;
use odometer_schemas::meter::{Aggregation, Dimension, Meter};
use odometer_schemas::record::Record;
use odometer_schemas::time::TimeMs;
use serde_json::{Value, json};

use crate::stored::StoredLog;
use crate::support::{Bench, Call, MemoryLog, Reply, TestLog};

pub(crate) const STRUCTURED: &str = "application/cloudevents+json";
pub(crate) const BATCH: &str = "application/cloudevents-batch+json";
const TYPE: &str = "com.example.someevent";

fn meter(name: &str, value: Option<&str>) -> Meter {
    Meter {
        name: name.into(),
        unit: "event".into(),
        base_unit: "event".into(),
        scale: 0,
        aggregation: Aggregation::Sum,
        event_type: Some(TYPE.into()),
        value: value.map(Into::into),
        dimensions: vec![
            Dimension { name: "message".into(), path: None },
            Dimension { name: "who".into(), path: Some("$.appinfoA".into()) },
        ],
    }
}

/// One meter that counts every event of the examples' type, and two that sum values
/// which only some of them hold.
pub(crate) fn mapped() -> Definitions {
    Definitions::with_meters(vec![meter("events", None), meter("b", Some("$.appinfoB")), meter("xyz", Some("$.xyz"))])
}

/// Sends one request to a gateway of its own; the answer, and what the log has got.
fn send_to(log: &impl TestLog, definitions: Definitions, call: &Call) -> (Reply, Vec<Record>) {
    let before = log.records().len();
    let reply = Bench::new(log.appender(), definitions, GatewayOptions::default()).call(call);
    (reply, log.records().split_off(before))
}

/// The same with a log of its own.
fn send(definitions: Definitions, call: &Call) -> (Reply, Vec<Record>) {
    send_to(&MemoryLog::shared(), definitions, call)
}

#[test]
fn every_example_and_every_case_of_the_specification() {
    check_specification(&MemoryLog::shared());
}

#[test]
fn the_specification_before_the_embedded_log() {
    check_specification(&StoredLog::embedded());
}

#[test]
fn the_specification_before_kafka() {
    check_specification(&StoredLog::kafka());
}

fn check_specification(log: &impl TestLog) {
    let Some(dir) = data_dir() else { return };
    every_example(log, &dir);
    every_case_of_the_http_binding(log, &dir);
}

/// What became of each event: `stored`, or the word and field of its refusal.
fn outcomes(reply: &Reply) -> Vec<String> {
    let results = reply.body["results"].as_array().unwrap_or_else(|| panic!("{reply:?}"));
    let outcome = |result: &Value| match result["reason"].as_str().and_then(|reason| reason.split_once(':')) {
        None => result["status"].as_str().unwrap().to_owned(),
        Some((word, _)) => format!("{word} {}", result["field"].as_str().unwrap_or("-")),
    };
    results.iter().map(outcome).collect()
}

/// (meter, quantity) of each record, in order of meters.
pub(crate) fn amounts(records: &[Record]) -> Vec<(&str, i64)> {
    let mut amounts: Vec<_> = records.iter().map(|r| (r.meter.as_str(), r.quantity.0)).collect();
    amounts.sort_unstable();
    amounts
}

pub(crate) fn data_dir() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let dir = std::env::var_os("ODOMETER_DATA").map_or_else(beside, PathBuf::from).join("cloudevents");
    if dir.is_dir() {
        return Some(dir);
    }
    println!("skipped: {} is not there", dir.display());
    None
}

/// One file of examples, and what becomes of each of its events.
pub(crate) struct Example {
    pub(crate) file: &'static str,
    /// With built-in meters only.
    unmapped: &'static [&'static str],
    /// With meters of the type, as the file stands: it names no tenant.
    mapped: &'static [&'static str],
    /// With meters of the type and the attribute `tenant` added.
    pub(crate) complete: &'static [&'static str],
    /// What the complete one counts.
    pub(crate) amounts: &'static [(&'static str, i64)],
}

const NOT_BASE64: &str = "invalid data_base64";
const NO_METER: &str = "unknown_type type";
const NO_TENANT: &str = "missing tenant";

/// The specification's examples: two hold a `data_base64` that is not base64.
pub(crate) const EXAMPLES: [Example; 8] = [
    Example {
        file: "spec_example_00.json",
        unmapped: &[NOT_BASE64],
        mapped: &[NOT_BASE64],
        complete: &[NOT_BASE64],
        amounts: &[],
    },
    Example {
        file: "spec_example_01.json",
        unmapped: &[NO_METER],
        mapped: &[NO_TENANT],
        complete: &["stored"],
        amounts: &[("events", 1)],
    },
    Example {
        file: "spec_example_02.json",
        unmapped: &[NO_METER],
        mapped: &[NO_TENANT],
        complete: &["stored"],
        amounts: &[("b", 123), ("events", 1)],
    },
    Example {
        file: "spec_example_03.json",
        unmapped: &[NO_METER],
        mapped: &[NO_TENANT],
        complete: &["stored"],
        amounts: &[("events", 1)],
    },
    Example {
        file: "spec_example_04.json",
        unmapped: &[NO_METER],
        mapped: &[NO_TENANT],
        complete: &["stored"],
        amounts: &[("events", 1)],
    },
    Example {
        file: "spec_example_05.json",
        unmapped: &[NO_METER],
        mapped: &[NO_TENANT],
        complete: &["stored"],
        amounts: &[("events", 1), ("xyz", 123)],
    },
    // The second event is of a type that stays unmapped.
    Example {
        file: "spec_example_06.json",
        unmapped: &[NOT_BASE64, NO_METER],
        mapped: &[NOT_BASE64, NO_METER],
        complete: &[NOT_BASE64, NO_METER],
        amounts: &[],
    },
    Example { file: "spec_example_07.json", unmapped: &[], mapped: &[], complete: &[], amounts: &[] },
];

fn every_example(log: &impl TestLog, dir: &Path) {
    let mut files: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("spec_example_"))
        .collect();
    files.sort();
    assert_eq!(files, EXAMPLES.map(|example| example.file), "an example has no expectation");
    for example in &EXAMPLES {
        let text = std::fs::read_to_string(dir.join(example.file)).unwrap();
        check_example(log, example, &text);
    }
}

fn check_example(log: &impl TestLog, example: &Example, text: &str) {
    let file = example.file;
    let content_type = if text.trim_start().starts_with('[') { BATCH } else { STRUCTURED };
    let (reply, records) = send_to(log, Definitions::built_in(), &Call::new(content_type, text));
    assert_eq!(outcomes(&reply), example.unmapped, "{file}");
    assert!(records.is_empty(), "{file}");
    for (result, outcome) in reply.body["results"].as_array().unwrap().iter().zip(example.unmapped) {
        let names_type = result["reason"].as_str().unwrap().contains("com.example.some");
        assert_eq!(names_type, *outcome == NO_METER, "{file}: {result}");
    }
    let (reply, records) = send_to(log, mapped(), &Call::new(content_type, text));
    assert_eq!(outcomes(&reply), example.mapped, "{file}");
    assert!(records.is_empty(), "{file}");
    for (path, content_type, attribute) in [
        ("/v1/events", content_type, "tenant"),
        ("/v1/events", content_type, "subject"),
        ("/v1/events", "application/json", "tenant"),
        ("/api/v1/events", "application/json", "subject"),
    ] {
        let text = with_attribute(text, attribute, "acme");
        let (reply, records) = send_to(log, mapped(), &Call::new(content_type, text).to(path));
        assert_eq!(outcomes(&reply), example.complete, "{file} with {attribute} at {path}");
        assert_eq!(amounts(&records), example.amounts, "{file} with {attribute} at {path}");
        let status = if example.complete.iter().all(|o| *o == "stored") { 202 } else { 400 };
        assert_eq!(reply.status, status, "{file}");
        assert!(
            records.iter().all(|r| r.tenant == "acme" && r.subject.is_none() && r.source == "/mycontext"),
            "{file}"
        );
    }
}

/// The events with one attribute set.
pub(crate) fn with_attribute(text: &str, attribute: &str, value: &str) -> String {
    let mut json: Value = serde_json::from_str(text).unwrap();
    match &mut json {
        Value::Array(events) => events.iter_mut().for_each(|event| event[attribute] = value.into()),
        event => event[attribute] = value.into(),
    }
    json.to_string()
}

/// One case of the feature file.
#[derive(Debug)]
pub(crate) struct BindingCase {
    name: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    attributes: Vec<(String, String)>,
    data: Value,
}

impl BindingCase {
    /// The request.
    fn call(&self) -> Call {
        let call = Call { headers: Vec::new(), ..Call::new(STRUCTURED, self.body.as_str()) };
        let headers = self.headers.iter().filter(|(name, _)| name == "content-type" || name.starts_with("ce-"));
        headers.fold(call, |call, (name, value)| call.header(name, value.as_str()))
    }

    /// The request with a tenant.
    pub(crate) fn complete(&self) -> Call {
        let call = self.call();
        if self.headers.iter().any(|(_, value)| value.starts_with(STRUCTURED)) {
            return Call { body: with_attribute(&self.body, "tenant", "acme").into(), ..call };
        }
        call.header("ce-tenant", "acme")
    }
}

fn every_case_of_the_http_binding(log: &impl TestLog, dir: &Path) {
    let cases = binding_cases(&std::fs::read_to_string(dir.join("http-protocol-binding.feature")).unwrap());
    assert_eq!(cases.len(), 4, "{cases:?}");
    for case in &cases {
        let call = case.call();
        let (reply, _) = send_to(log, Definitions::built_in(), &call);
        assert_eq!((outcomes(&reply), reply.status.as_u16()), (vec![NO_METER.to_owned()], 400), "{}", case.name);
        assert!(reply.result(0)["reason"].as_str().unwrap().contains(TYPE), "{}", case.name);
        let (reply, _) = send_to(log, mapped(), &call);
        assert_eq!(outcomes(&reply), [NO_TENANT], "{}", case.name);
        let (reply, records) = send_to(log, mapped(), &case.complete());
        assert_eq!((outcomes(&reply), reply.status.as_u16()), (vec!["stored".to_owned()], 202), "{}", case.name);
        check_binding(case, &records);
    }
}

/// The record says what the feature file's table of attributes and its data say.
fn check_binding(case: &BindingCase, records: &[Record]) {
    assert_eq!(amounts(records), [("events", 1)], "{}", case.name);
    let record = &records[0];
    for (key, value) in &case.attributes {
        match key.as_str() {
            "id" => assert_eq!(record.id.as_ref(), Some(value)),
            "source" => assert_eq!(&record.source, value),
            "time" => assert_eq!(record.time, Some(TimeMs::parse_rfc3339(value).unwrap())),
            "type" => assert_eq!(value, TYPE),
            "specversion" => assert_eq!(value, "1.0"),
            "datacontenttype" => assert!(value.starts_with("application/json")),
            other => panic!("an attribute without expectation: {other}"),
        }
    }
    let data = record.dimensions.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
    assert_eq!(Value::Object(data.collect()), case.data, "{}", case.name);
}

/// The scenarios of a feature file, one case for each row of their examples.
pub(crate) fn binding_cases(feature: &str) -> Vec<BindingCase> {
    let mut cases = Vec::new();
    for scenario in feature.split("Scenario Outline:").skip(1) {
        let (steps, examples) = scenario.split_once("Examples:").unwrap();
        let rows = table(examples);
        for row in &rows[1..] {
            cases.push(binding_case(&steps.replace(&format!("<{}>", rows[0][0]), &row[0])));
        }
    }
    cases
}

fn binding_case(steps: &str) -> BindingCase {
    let mut parts = steps.split("\"\"\"");
    let name = parts.next().unwrap().lines().next().unwrap().trim().to_owned();
    let request = parts.next().unwrap();
    let attributes = parts.next().unwrap().split_once("the attributes are:").unwrap().1;
    let data = serde_json::from_str(parts.next().unwrap()).unwrap();
    // Indented by the feature file; the white space is part of neither.
    let lines: Vec<&str> = request.trim().lines().map(str::trim).collect();
    let blank = lines.iter().position(|line| line.is_empty()).unwrap();
    let header =
        |line: &&str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())).unwrap();
    BindingCase {
        name,
        headers: lines[1..blank].iter().map(header).collect(),
        body: lines[blank..].join("\n"),
        attributes: table(attributes).split_off(1).into_iter().map(|row| (row[0].clone(), row[1].clone())).collect(),
        data,
    }
}

/// The cells of a table's rows, between the bars.
pub(crate) fn table(text: &str) -> Vec<Vec<String>> {
    let rows = text.lines().map(str::trim).filter(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// An event with one member changed; `null` removes none.
fn event(change: &Value) -> Value {
    let mut event = json!({"specversion": "1.0", "id": "e", "source": "/s", "type": TYPE, "tenant": "acme"});
    for (name, value) in change.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}

#[test]
fn the_rules_of_the_json_schema() {
    let stored = [
        json!({}),
        json!({"source": "https://github.com/cloudevents"}),
        json!({"source": "mailto:cncf-wg-serverless@lists.cncf.io"}),
        json!({"source": "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66"}),
        json!({"source": "cloudevents/spec/pull/123"}),
        json!({"source": "/sensors/tn-1234567/alerts"}),
        json!({"source": "1-555-123-4567"}),
        json!({"datacontenttype": null, "dataschema": null, "subject": null, "time": null, "data_base64": null}),
        json!({"datacontenttype": "text/xml", "data": "<much wow=\"xml\"/>"}),
        json!({"datacontenttype": "image/png", "data_base64": "Zm9vYg=="}),
        json!({"datacontenttype": "multipart/form-data; boundary=x", "data": "--x--"}),
        json!({"datacontenttype": "text/json", "data": {"message": "m"}}),
        json!({"datacontenttype": "application/problem+json", "data_base64": "e30="}),
        json!({"dataschema": "https://example.com/schema"}),
        json!({"subject": "mynewfile.jpg", "time": "2018-04-05T17:31:00Z"}),
        json!({"time": "2018-04-05T17:31:00.123456789+02:00"}),
        json!({"data": null}),
        json!({"data": 1.5}),
        json!({"data": "text"}),
        json!({"data": true}),
        json!({"data": [1, 2]}),
        json!({"data": {"message": null, "who": 5}}),
        json!({"data": null, "data_base64": "e30="}),
        json!({"data": {}, "data_base64": null}),
        json!({"comexampleextension": "value", "number": 5, "flag": true, "gone": null}),
        // Names and values that the attribute rules discourage but the schema allows; none is kept.
        json!({"traceParent": "x", "with_underscore": {"a": 1}}),
    ];
    for change in stored {
        let (reply, records) = send(mapped(), &Call::new(STRUCTURED, event(&change).to_string()));
        assert_eq!(outcomes(&reply), ["stored"], "{change}: {:?}", reply.body);
        assert_eq!(amounts(&records), [("events", 1)], "{change}");
    }
}

#[test]
fn one_event_feeds_every_meter_of_its_type_that_has_a_value() {
    let data = json!({"appinfoA": "who", "appinfoB": "7", "xyz": null, "message": 5});
    let body = event(&json!({"data": data, "subject": "user-1", "time": "2026-01-31T12:00:00Z"}));
    let (reply, records) = send(mapped(), &Call::new(STRUCTURED, body.to_string()));
    assert_eq!((&reply.body["stored"], &reply.body["records_stored"]), (&json!(1), &json!(2)));
    assert_eq!(amounts(&records), [("b", 7), ("events", 1)]);
    for record in &records {
        assert_eq!((record.tenant.as_str(), record.subject.as_deref()), ("acme", Some("user-1")));
        assert_eq!(record.time, Some(TimeMs::parse_rfc3339("2026-01-31T12:00:00Z").unwrap()));
        let dimensions = [("message", "5"), ("who", "who")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(record.dimensions, dimensions);
    }
}

#[test]
fn the_tenant_is_the_extension_else_the_subject_and_always_the_subject_for_open_meter() {
    let both = event(&json!({"subject": "sub"})).to_string();
    let subject = event(&json!({"subject": "sub", "tenant": null})).to_string();
    let cases = [
        ("/v1/events", &both, "acme", Some("sub")),
        ("/v1/events", &subject, "sub", None),
        ("/api/v1/events", &both, "sub", None),
        ("/api/v1/events", &subject, "sub", None),
    ];
    for (path, body, tenant, own_subject) in cases {
        for content_type in [STRUCTURED, "application/json"] {
            let (_, records) = send(mapped(), &Call::new(content_type, body.as_str()).to(path));
            let found = (records[0].tenant.as_str(), records[0].subject.as_deref());
            assert_eq!(found, (tenant, own_subject), "{path} {body}");
        }
    }
}

#[test]
fn binary_attributes_are_decoded_and_the_body_is_the_data() {
    let base = |content_type: &str, body: &str| {
        Call::new(content_type, body)
            .header("ce-specversion", "1.0")
            .header("CE-Type", TYPE)
            .header("ce-source", "\"/quoted source\"")
            .header("ce-subject", "Euro%20%E2%82%AC")
            .header("ce-tenant", "acme")
            .header("ce-other", "not kept")
    };
    let call = base("application/json", r#"{"appinfoB":5}"#).header("ce-id", "a%25b");
    let (reply, records) = send(mapped(), &call);
    assert_eq!(reply.result(0), &json!({"index": 0, "id": "a%b", "status": "stored"}));
    assert_eq!(amounts(&records), [("b", 5), ("events", 1)]);
    let record = &records[0];
    assert_eq!((record.source.as_str(), record.subject.as_deref()), ("/quoted source", Some("Euro €")));
    for (content_type, body) in
        [("image/png", "\u{1}\u{2}"), ("application/json", ""), ("text/plain; charset=latin1", "x")]
    {
        let (reply, records) = send(mapped(), &base(content_type, body).header("ce-id", "a"));
        assert_eq!(outcomes(&reply), ["stored"], "{content_type}");
        assert_eq!(amounts(&records), [("events", 1)], "{content_type}");
    }
    let mut untyped = base("x/y", r#"{"xyz":1}"#).header("ce-id", "a");
    untyped.headers.retain(|(name, _)| name != "content-type");
    assert_eq!(amounts(&send(mapped(), &untyped).1), [("events", 1), ("xyz", 1)]);
}

#[test]
fn a_distinct_count_takes_the_text_at_its_path() {
    let unique = Meter { aggregation: Aggregation::UniqueCount, ..meter("users", Some("$.user.name")) };
    let definitions = Definitions::with_meters(vec![unique]);
    for (data, value) in [(json!({"user": {"name": "ann"}}), "ann"), (json!({"user": {"name": 5}}), "5")] {
        let body = event(&json!({"data": data})).to_string();
        let (_, records) = send(definitions.clone(), &Call::new(STRUCTURED, body));
        assert_eq!(amounts(&records), [("users", 1)]);
        assert_eq!(records[0].dimensions, [("value".to_owned(), value.to_owned())]);
    }
    let body = event(&json!({"data": {"user": "ann"}})).to_string();
    assert_eq!(outcomes(&send(definitions, &Call::new(STRUCTURED, body)).0), ["no_value data.user.name"]);
}

#[test]
fn an_event_is_stored_whole_or_not_at_all() {
    let many: Vec<Meter> = (0..200).map(|i| meter(&format!("m{i}"), None)).collect();
    let body: Vec<Value> = (0..10).map(|i| event(&json!({"id": format!("e{i}")}))).collect();
    let log = MemoryLog::shared();
    let bench = Bench::new(log.appender(), Definitions::with_meters(many), GatewayOptions::default());
    let reply = bench.call(&Call::new(BATCH, json!(body).to_string()));
    assert_eq!((&reply.body["stored"], &reply.body["records_stored"]), (&json!(10), &json!(2000)));
    for entry in log.entries() {
        assert_eq!(crate::support::records_of(&[entry]).len() % 200, 0, "an event was cut");
    }
}
