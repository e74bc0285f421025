//! Malformed CloudEvents.

use super::Case;
use super::Expected::Refused;
use super::table::*;
use crate::support::Call;

pub(super) fn all() -> Vec<Case> {
    let mut cases = structured_events();
    cases.extend(base64_events());
    cases.extend(open_meter_events());
    cases.extend(binary_events());
    cases
}

const EVENT: [(&str, &str); 6] = [
    ("specversion", "\"1.0\""),
    ("id", "\"bad\""),
    ("source", "\"/w\""),
    ("type", "\"odometer.llm\""),
    ("tenant", "\"acme\""),
    ("data", "{\"prompt_tokens\":1,\"generated_tokens\":2}"),
];

/// CloudEvents in structured mode.
fn structured_events() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, field: &str, value: Option<&str>, expected| {
        cases.push(case(format!("event: {name}"), Call::new(STRUCTURED, object(&EVENT, field, value)), expected));
    };
    for field in ["specversion", "id", "source", "type"] {
        add(&format!("no {field}"), field, None, Refused("missing", Some(field)));
        add(&format!("a null {field}"), field, Some("null"), Refused("missing", Some(field)));
        add(&format!("an empty {field}"), field, Some("\"\""), Refused("invalid", Some(field)));
        add(&format!("a number for {field}"), field, Some("1.0"), Refused("wrong_type", Some(field)));
    }
    for version in ["0.3", "1.1", "1.0.2", "2.0"] {
        add(
            &format!("version {version}"),
            "specversion",
            Some(&quoted(version)),
            Refused("invalid", Some("specversion")),
        );
    }
    for field in ["subject", "tenant", "time", "datacontenttype", "dataschema"] {
        add(&format!("an empty {field}"), field, Some("\"\""), Refused("invalid", Some(field)));
        add(&format!("an object for {field}"), field, Some("{}"), Refused("wrong_type", Some(field)));
    }
    add("no tenant", "tenant", None, Refused("missing", Some("tenant")));
    add("a tenant too long", "tenant", Some(&quoted(&"t".repeat(129))), Refused("invalid", Some("tenant")));
    add("an id too long", "id", Some(&quoted(&"i".repeat(257))), Refused("invalid", Some("id")));
    add("a source too long", "source", Some(&quoted(&"s".repeat(257))), Refused("invalid", Some("source")));
    add("a time without zone", "time", Some("\"2026-01-31T12:00:00\""), Refused("invalid", Some("time")));
    add("a media type that is none", "datacontenttype", Some("\"json\""), Refused("invalid", Some("datacontenttype")));
    add("a type of no meter", "type", Some("\"com.example.unknown\""), Refused("unknown_type", Some("type")));
    add("data twice in two forms", "data_base64", Some("\"e30=\""), Refused("invalid", Some("data_base64")));
    let tokens = "data.prompt_tokens";
    add("a value that is no number", "data", Some("{\"prompt_tokens\":\"many\"}"), Refused("quantity", Some(tokens)));
    add("a value with a fraction", "data", Some("{\"prompt_tokens\":0.5}"), Refused("quantity", Some(tokens)));
    add("a value that is an object", "data", Some("{\"prompt_tokens\":{}}"), Refused("wrong_type", Some(tokens)));
    add(
        "a value twice",
        "data",
        Some("{\"prompt_tokens\":1,\"prompt_tokens\":2}"),
        Refused("duplicate_field", Some(tokens)),
    );
    let half = "{\"generated_tokens\":1,\"prompt_tokens\":1e400}";
    add("one value good, one bad", "data", Some(half), Refused("quantity", Some(tokens)));
    let none = Refused("no_value", Some("data.generated_tokens"));
    add("no value", "data", Some("{}"), none);
    add("null values", "data", Some("{\"prompt_tokens\":null}"), none);
    add("no data", "data", None, none);
    add("data that is an array", "data", Some("[1,2]"), none);
    add("data that is XML", "datacontenttype", Some("\"application/xml\""), none);
    let dimension = "{\"prompt_tokens\":1,\"model\":[]}";
    add("a dimension that is an array", "data", Some(dimension), Refused("wrong_type", Some("data.model")));
    add("a lone surrogate in an extension", "note", Some("\"\\ud800\""), Refused("malformed", Some("note")));
    cases
}

fn base64_events() -> Vec<Case> {
    let bare: Vec<_> = EVENT.into_iter().filter(|(name, _)| *name != "data").collect();
    let rows = [
        ("base64 that is none", "\"... base64 ...\"", "invalid"),
        ("base64 without padding", "\"e30\"", "invalid"),
        ("base64 for URLs", "\"_-8=\"", "invalid"),
        ("base64 of broken JSON", "\"eyJ4\"", "malformed"),
        ("base64 of bad UTF-8", "\"/w==\"", "malformed"),
        ("base64 that is a number", "5", "wrong_type"),
    ];
    rows.into_iter()
        .map(|(name, value, word)| {
            let call = Call::new(STRUCTURED, object(&bare, "data_base64", Some(value)));
            case(format!("event: {name}"), call, Refused(word, Some("data_base64")))
        })
        .collect()
}

fn open_meter_events() -> Vec<Case> {
    let no_version = object(&EVENT, "specversion", None);
    let open_meter = |content_type: &str, body: String| Call::new(content_type, body).to("/api/v1/events");
    let subject = object(&EVENT, "subject", Some(&quoted(&"t".repeat(129))));
    vec![
        case(
            "OpenMeter: no subject",
            open_meter(STRUCTURED, object(&EVENT, "", None)),
            Refused("missing", Some("subject")),
        ),
        case("OpenMeter: a subject too long", open_meter(STRUCTURED, subject), Refused("invalid", Some("subject"))),
        case("OpenMeter: a native record", open_meter(JSON, native("", None)), Refused("missing", Some("specversion"))),
        case(
            "OpenMeter: JSON without version",
            open_meter(JSON, no_version.clone()),
            Refused("missing", Some("specversion")),
        ),
        case("an event sent as a native record", Call::new(JSON, no_version), Refused("unknown_field", Some("type"))),
        case("a broken event in JSON", Call::new(JSON, object(&EVENT, "id", None)), Refused("missing", Some("id"))),
        case(
            "a broken event in a batch",
            Call::new(BATCH, format!("[{}]", object(&EVENT, "id", None))),
            Refused("missing", Some("id")),
        ),
    ]
}

const HEADERS: [(&str, &str); 5] = [
    ("ce-specversion", "1.0"),
    ("ce-id", "bad"),
    ("ce-source", "/w"),
    ("ce-type", "odometer.llm"),
    ("ce-tenant", "acme"),
];

/// CloudEvents in binary mode.
fn binary_events() -> Vec<Case> {
    let call = |without: &str, content_type: &str, body: &[u8]| {
        let headers = HEADERS.into_iter().filter(|(name, _)| *name != without);
        headers.fold(Call::new(content_type, body), |call, (name, value)| call.header(name, value))
    };
    let data = b"{\"prompt_tokens\":1}";
    let changed = |name: &str, value: &[u8]| call(name, JSON, data).header(name, value);
    let mut cases = Vec::new();
    for field in ["specversion", "id", "source", "type"] {
        let name = format!("ce-{field}");
        cases.push(case(format!("binary: no {field}"), call(&name, JSON, data), Refused("missing", Some(field))));
        cases.push(case(format!("binary: an empty {field}"), changed(&name, b""), Refused("invalid", Some(field))));
    }
    let id = Refused("invalid", Some("id"));
    let rows = [
        ("a percent sign on its own", changed("ce-id", b"100%"), id),
        ("a percent sign with one digit", changed("ce-id", b"a%2"), id),
        ("a percent sign with other letters", changed("ce-id", b"a%zz"), id),
        ("bad UTF-8 after decoding", changed("ce-id", b"%ff"), id),
        ("bad UTF-8 in a header", changed("ce-id", b"a\xff"), id),
        ("an unfinished quoted string", changed("ce-id", b"\"open"), id),
        ("a control character after decoding", changed("ce-id", b"a%00b"), id),
        ("an id twice", call("", JSON, data).header("ce-id", "other"), Refused("duplicate_field", Some("id"))),
        ("version 0.3", changed("ce-specversion", b"0.3"), Refused("invalid", Some("specversion"))),
        ("a bad time", changed("ce-time", b"noon"), Refused("invalid", Some("time"))),
        ("no tenant", call("ce-tenant", JSON, data), Refused("missing", Some("tenant"))),
        ("a type of no meter", changed("ce-type", b"other"), Refused("unknown_type", Some("type"))),
        ("data that is not JSON", call("", JSON, b"{"), Refused("malformed", Some("data"))),
        ("data that is not UTF-8", call("", JSON, b"\xff"), Refused("malformed", Some("data"))),
        ("no data", call("", JSON, b""), Refused("no_value", Some("data.generated_tokens"))),
        ("opaque data", call("", "image/png", data), Refused("no_value", Some("data.generated_tokens"))),
        ("JSON in latin-1", call("", "application/json; charset=latin1", data), MEDIA),
        ("an unknown CloudEvents format", call("", "application/cloudevents+xml", data), MEDIA),
    ];
    cases.extend(rows.map(|(name, call, expected)| case(format!("binary: {name}"), call, expected)));
    cases
}
