//! The ingress topic as foreign producers use it: every content mode, any key, bad
//! messages among good ones, and bridges that die.

use std::io::Write as _;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};

use crate::support::{Cluster, PATIENCE, Process, Totals, Trace, await_ready, azure, get, json, part, real_data, run};
use crate::traffic::expected;

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
/// Events of one message in batch mode.
const BATCH_EVENTS: usize = 40;

/// A message of a foreign producer.
struct Message {
    headers: Vec<(String, String)>,
    body: String,
}

impl Message {
    fn of_type(content_type: &str, body: String) -> Self {
        Self { headers: vec![("content-type".into(), content_type.into())], body }
    }

    fn binary(event: &Value) -> Self {
        let mut message = Self::of_type("application/json", event["data"].to_string());
        for (name, value) in event.as_object().unwrap().iter().filter(|(name, _)| *name != "data") {
            message.headers.push((format!("ce_{name}"), value.as_str().unwrap().to_owned()));
        }
        message
    }

    fn batch(events: &[Value]) -> Self {
        Self::of_type(BATCH, json!(events).to_string())
    }
}

fn event(tenant: &str, id: &str, kind: &str, data: &Value) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/test/bridge", "type": kind, "tenant": tenant,
        "time": "2023-11-16T18:17:03Z", "data": data,
    })
}

/// Two events for each request of a public trace.
fn events(trace: &Trace) -> Vec<Value> {
    let tenant = trace.expected.keys().next().unwrap().0.as_str();
    let text = std::fs::read_to_string(&trace.file).unwrap();
    let mut events = Vec::new();
    for (number, line) in text.lines().skip(1).filter(|line| !line.trim().is_empty()).enumerate() {
        let [time, prompt, generated] = line.trim().split(',').collect::<Vec<_>>().try_into().unwrap();
        let tokens = |text: &str| text.parse::<u64>().unwrap();
        let data = json!({ "prompt_tokens": tokens(prompt), "generated_tokens": tokens(generated) });
        for (kind, data) in [("odometer.llm", data), ("odometer.api_call", json!({}))] {
            let mut event = event(tenant, &format!("{number}-{kind}"), kind, &data);
            event["time"] = json!(format!("{}Z", time.replace(' ', "T")));
            events.push(event);
        }
    }
    events
}

/// The traces as messages, in all content modes by turns.
fn messages(traces: &[Trace]) -> Vec<Message> {
    let mut messages = Vec::new();
    for (turn, events) in traces.iter().flat_map(events).collect::<Vec<_>>().chunks(BATCH_EVENTS).enumerate() {
        match turn % 3 {
            0 => messages.extend(events.iter().map(|event| Message::of_type(STRUCTURED, event.to_string()))),
            1 => messages.extend(events.iter().map(Message::binary)),
            _ => messages.push(Message::batch(events)),
        }
    }
    messages
}

/// Sends with keys that mean nothing, and waits until the broker has confirmed all.
fn produce(cluster: &Cluster, messages: &[Message]) {
    let brokers = part("ODOMETER_TEST_KAFKA");
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("acks", "all").create().unwrap();
    for Message { headers, body } in messages {
        let key: [u8; 8] = rand::random();
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
        let mut record = BaseRecord::to(cluster.ingress_topic()).key(&key).payload(body).headers(headers);
        while let Err((error, unsent)) = producer.send(record) {
            assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            producer.poll(Duration::from_millis(10));
            record = unsent;
        }
    }
    producer.flush(PATIENCE).unwrap();
}

pub(crate) fn metric(node: &Process, name: &str) -> u64 {
    let (status, _, text) = get(&format!("{}/metrics", node.url));
    assert_eq!(status, 200);
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no metric {name}")).parse::<f64>().unwrap() as u64
}

fn await_messages(node: &Process, wanted: u64) {
    let deadline = Instant::now() + PATIENCE;
    while metric(node, "odometer_bridge_messages_total") < wanted {
        assert!(Instant::now() < deadline, "the bridge stands");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn rejects(cluster: &Cluster, args: &[&str]) -> Value {
    json(&[&["rejects"], args, &["--json", "--config", cluster.config()]].concat())
}

/// What is wrong with each, and where the reason must say so.
fn bad_messages() -> [(Message, &'static str); 3] {
    let storage = |id| event("acme", id, "storage.used", &json!({ "gigabytes": 3 }));
    let call = event("partial", "c-1", "odometer.api_call", &json!({}));
    [
        (Message::of_type(STRUCTURED, storage("s-1").to_string()), "storage.used"),
        (Message::batch(&[call, storage("s-2")]), "storage.used"),
        (Message::of_type(STRUCTURED, "{\"specversion\":".into()), "unreadable"),
    ]
}

const STORAGE: &str = "\n[[meter]]\nname = 'storage'\nunit = 'GB'\nbase_unit = 'byte'\nscale = 9\n\
                       event_type = 'storage.used'\nvalue = '$.gigabytes'\n";

/// Each bad message is there whole, with its reason.
fn assert_letters(cluster: &Cluster) -> Vec<Value> {
    let letters = rejects(cluster, &["list"]);
    let letters = letters.as_array().unwrap();
    assert_eq!(letters.len(), 3, "{letters:?}");
    for (message, reason) in bad_messages() {
        let place = |letter: &Value| letter["place"].as_str().unwrap().to_owned();
        let shown = letters.iter().map(|letter| rejects(cluster, &["show", &place(letter)]));
        let shown = shown.into_iter().find(|shown| shown["body"] == message.body.as_str());
        let shown = shown.unwrap_or_else(|| panic!("{} is not among {letters:?}", message.body));
        let said = shown["reason"].as_str().unwrap();
        assert!(said.contains(reason), "{said}");
        let headers: Vec<_> = message.headers.iter().map(|(n, v)| json!({ "name": n, "value": v })).collect();
        assert_eq!(shown["headers"], json!(headers));
        assert!(shown["key"].is_string() || shown["key_base64"].is_string(), "{shown}");
    }
    letters.clone()
}

#[test]
fn the_ingress_topic_is_counted_exactly_and_what_is_refused_can_be_sent_again() {
    let Some(data) = real_data() else { return };
    let (cluster, traces) = (Cluster::new(4), azure(&data));
    let mut messages = messages(&traces);
    let middle = messages.len() / 2;
    messages.splice(middle..middle, bad_messages().map(|(message, _)| message));
    produce(&cluster, &messages);
    let node = cluster.node();
    let mut wanted: Totals = expected(&traces);
    wanted.insert(("partial".into(), "api_call".into()), (1, 1));
    cluster.await_totals(&wanted);
    await_messages(&node, messages.len() as u64);
    cluster.prove();
    let letters = assert_letters(&cluster);
    node.stop();

    // The fix: a meter for what nobody had defined.
    let mut config = std::fs::OpenOptions::new().append(true).open(cluster.config()).unwrap();
    config.write_all(STORAGE.as_bytes()).unwrap();
    let node = cluster.node();
    await_ready(&node);
    let report = rejects(&cluster, &["replay", "--all"]);
    assert_eq!(report, json!({ "replayed": 3, "skipped": [] }));
    wanted.insert(("acme".into(), "storage".into()), (6_000_000_000, 2));
    cluster.await_totals(&wanted);
    await_messages(&node, 3);
    // What nobody can read comes back, and still says when it came first.
    let again = rejects(&cluster, &["list"]);
    let again = again.as_array().unwrap();
    assert_eq!(again.len(), 4, "{again:?}");
    let newest = again.iter().find(|letter| !letters.contains(letter)).unwrap();
    let first = |letter: &Value| letter["reason"] == newest["reason"] && letter["place"] != newest["place"];
    let first = letters.iter().find(|letter| first(letter)).unwrap();
    assert_eq!(newest["first_refused_at"], first["refused_at"], "{newest} {first}");

    let places: Vec<_> = letters.iter().map(|letter| letter["place"].as_str().unwrap()).collect();
    let report = rejects(&cluster, &[&["replay"], places.as_slice()].concat());
    assert_eq!(report["replayed"], 3);
    await_messages(&node, 6);
    node.stop();
    let node = cluster.node();
    await_ready(&node);
    cluster.prove();
    cluster.await_totals(&wanted);
    let missing = run(&["rejects", "show", "3/999", "--config", cluster.config()]);
    let said = String::from_utf8_lossy(&missing.stderr);
    assert!(!missing.status.success() && said.contains("there is no dead letter at 3/999"), "{said}");
    node.stop();
}

#[test]
fn a_bridge_killed_in_the_middle_loses_and_doubles_nothing() {
    let Some(data) = real_data() else { return };
    let (cluster, traces) = (Cluster::new(4), azure(&data));
    let messages = messages(&traces);
    let counting = cluster.node_with("aggregator,raw");
    let pieces: Vec<_> = messages.chunks(messages.len().div_ceil(4)).collect();
    for piece in &pieces[..3] {
        produce(&cluster, piece);
        let bridge = cluster.node_with("bridge");
        await_messages(&bridge, 1);
        bridge.kill();
    }
    produce(&cluster, pieces[3]);
    let bridges = [cluster.node_with("bridge"), cluster.node_with("bridge")];
    cluster.await_totals(&expected(&traces));
    cluster.prove();
    bridges.into_iter().for_each(Process::stop);
    counting.stop();
    assert_eq!(rejects(&cluster, &["list"]), json!([]));
}
