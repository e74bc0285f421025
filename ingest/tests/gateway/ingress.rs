//! The gateway's table of malformed requests and the specification's examples, as
//! messages of an ingress topic: what is refused ends whole and with its reason among
//! the dead letters, and counts nothing.

use odometer_ingest::bridge::rejects::Reject;
use odometer_ingest::gateway::SharedDefinitions;
use odometer_schemas::definitions::Definitions;

use crate::cloudevents::{
    self, BATCH, EXAMPLES, STRUCTURED, amounts, binding_cases, mapped, table as cells, with_attribute,
};
use crate::kafka::{Ingress, Message, eventually};
use crate::malformed::{Case, Expected, definitions, table};
use crate::support::Call;

/// What becomes of a message: the words that its refused events' reasons begin with,
/// one each; none when everything of it is stored.
type Words = Vec<&'static str>;

/// The request as a Kafka message: the binding writes attributes with an underscore.
fn message(call: &Call) -> Message {
    let message = Message::new(call.body.clone());
    call.headers.iter().fold(message, |message, (name, value)| {
        let name = name.strip_prefix("ce-").map_or_else(|| name.clone(), |attribute| format!("ce_{attribute}"));
        message.header(&name, value.clone())
    })
}

/// The word that a malformed request is refused with as a message; `None` where a
/// message cannot say the same, or what it says is good.
fn word(case: &Case) -> Option<&'static str> {
    let Case { call, expected, .. } = case;
    let is_json_by_default = call.headers.is_empty();
    // Means something in an HTTP header only.
    let is_escaped = |(name, value): &(String, Vec<u8>)| name == "ce-id" && value.iter().any(|b| b"%\"".contains(b));
    if call.path != "/v1/events" || is_json_by_default || call.headers.iter().any(is_escaped) {
        return None;
    }
    match *expected {
        Expected::Refused(word, _) => Some(word),
        Expected::Problem(_, "unreadable-body", _) => Some("unreadable_body"),
        Expected::Problem(_, "wrong-shape", _) => Some("wrong_shape"),
        Expected::Problem(_, "unsupported-media-type", _) => Some("unsupported_media_type"),
        Expected::Problem(_, "unsupported-encoding", _) => Some("unsupported_encoding"),
        // Brokers bound a message, not the gateway; these bodies are nothing but spaces.
        Expected::Problem(_, "body-too-large", _) => Some("unreadable_body"),
        Expected::Problem(_, "too-many-records", _) => None,
        Expected::Problem(..) => panic!("{}: what does a message like this become?", case.name),
    }
}

/// Sends all messages through a bridge; what is refused of each must be there whole.
fn check(ingress: &Ingress, definitions: Definitions, messages: &[(String, Message, Words)]) {
    ingress.produce_all(&messages.iter().map(|(_, message, _)| message.clone()).collect::<Vec<_>>());
    let bridge = ingress.bridge_with(&SharedDefinitions::new(definitions), ingress.log.appender());
    eventually("everything is bridged", || bridge.health().messages == messages.len() as u64);
    bridge.drain().expect("it drains");
    let letters = ingress.rejects();
    // One partition: a message's offset is its place among all.
    let letter = |number: usize| {
        letters.iter().find(|letter| letter.origin.as_ref().is_some_and(|origin| origin.place.offset == number as u64))
    };
    for (number, (name, message, words)) in messages.iter().enumerate() {
        match letter(number) {
            Some(letter) => assert_letter(name, message, words, letter),
            None => assert!(words.is_empty(), "{name} was not refused"),
        }
    }
    assert_eq!(letters.len(), messages.iter().filter(|(_, _, words)| !words.is_empty()).count());
}

fn assert_letter(name: &str, message: &Message, words: &Words, letter: &Reject) {
    let first = words.first().unwrap_or_else(|| panic!("{name} was refused: {}", letter.reason));
    assert!(letter.reason.starts_with(&format!("{first}: ")), "{name}: {}", letter.reason);
    assert_eq!(letter.refused_count, words.len() as u64, "{name}");
    // None are listed of a message that cannot be read at all.
    for (refused, word) in letter.refused.iter().zip(words) {
        assert!(refused.reason.starts_with(&format!("{word}: ")), "{name}: {}", refused.reason);
    }
    assert_eq!(letter.body, message.body, "{name}");
    let headers = message.headers.iter().map(|(name, value)| (name.clone().into_bytes(), Some(value.clone())));
    assert_eq!(letter.headers, headers.collect::<Vec<_>>(), "{name}");
}

#[test]
fn every_malformed_message_ends_whole_among_the_dead_letters() {
    let ingress = Ingress::new(1);
    let cases = table::all(1);
    let as_message = |case: &Case| word(case).map(|word| (case.name.clone(), message(&case.call), vec![word]));
    let messages: Vec<_> = cases.iter().filter_map(as_message).collect();
    println!("{} of {} malformed requests are messages", messages.len(), cases.len());
    assert!(messages.len() > 200, "only {} messages", messages.len());
    check(&ingress, definitions(), &messages);
    assert_eq!(ingress.records(), []);
}

/// The scenarios of the Kafka binding's feature file, one for each row of their
/// examples: headers and body. None names a tenant.
fn kafka_cases(feature: &str) -> Vec<Call> {
    let mut cases = Vec::new();
    for scenario in feature.split("Scenario").skip(1) {
        let (steps, examples) = scenario.split_once("Examples:").unwrap_or((scenario, "|-|\n|-|"));
        let body = steps.split("\"\"\"").nth(1).unwrap();
        let headers = steps.split_once("Kafka headers:").unwrap().1.split_once("When").unwrap().0;
        for example in &cells(examples)[1..] {
            let call = Call { headers: Vec::new(), ..Call::new(STRUCTURED, body) };
            let header =
                |call: Call, row: &Vec<String>| call.header(&row[0], row[1].replace("<contentType>", &example[0]));
            cases.push(cells(headers)[1..].iter().fold(call, header));
        }
    }
    assert_eq!(cases.len(), 3, "{cases:?}");
    cases
}

#[test]
fn the_specification_as_messages() {
    let Some(dir) = cloudevents::data_dir() else { return };
    let read = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap();
    let (mut messages, mut expected) = (Vec::new(), Vec::new());
    for example in &EXAMPLES {
        let text = with_attribute(&read(example.file), "tenant", "acme");
        let call = Call::new(if text.starts_with('[') { BATCH } else { STRUCTURED }, text);
        let words = example.complete.iter().filter(|outcome| **outcome != "stored");
        let words = words.map(|outcome| outcome.split(' ').next().unwrap()).collect();
        messages.push((example.file.to_owned(), message(&call), words));
        expected.extend_from_slice(example.amounts);
    }
    for case in binding_cases(&read("http-protocol-binding.feature")) {
        messages.push((format!("{case:?}"), message(&case.complete()), Vec::new()));
        expected.push(("events", 1));
    }
    for call in kafka_cases(&read("kafka-protocol-binding.feature")) {
        messages.push((format!("{call:?}"), message(&call), vec!["missing"]));
        let complete = if call.headers.iter().any(|(name, _)| name == "ce_id") {
            call.header("ce_tenant", "acme")
        } else {
            let text = String::from_utf8(call.body.clone()).unwrap();
            Call { body: with_attribute(&text, "tenant", "acme").into(), ..call }
        };
        messages.push((format!("{complete:?}"), message(&complete), Vec::new()));
        expected.push(("events", 1));
    }
    let ingress = Ingress::new(1);
    check(&ingress, mapped(), &messages);
    expected.sort_unstable();
    assert_eq!(amounts(&ingress.records()), expected);
}
