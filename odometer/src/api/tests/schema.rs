//! Real answers are what the OpenAPI description says they are.

use serde_json::{Value, json};

use super::super::index::OPENAPI;
use super::{Rig, line};

/// Whether `value` is what `schema` describes: types, required and known members,
/// choices, references. Says where it is not.
fn check(root: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.strip_prefix('#').unwrap();
        return check(root, root.pointer(pointer).unwrap_or_else(|| panic!("{reference} is dangling")), value, at);
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().map(|t| t.as_str().unwrap()).collect(),
        _ => vec![],
    };
    let is = |name: &&str| match *name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{at}: the test knows no type {other}"),
    };
    assert!(types.is_empty() || types.iter().any(is), "{at}: {value} is none of {types:?}");
    let choices = schema["enum"].as_array();
    assert!(choices.is_none_or(|choices| choices.contains(value)), "{at}: {value} is no choice");
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(value.get(name.as_str().unwrap()).is_some(), "{at}: {name} is missing");
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Null) => panic!("{at}: {name} is not described"),
            (Value::Null, other) => check(root, other, value, &format!("{at}.{name}")),
            (described, _) => check(root, described, value, &format!("{at}.{name}")),
        }
    }
    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
        check(root, &schema["items"], value, &format!("{at}[{index}]"));
    }
}

fn schema_of<'a>(root: &'a Value, path: &str, status: &str) -> &'a Value {
    let operation = root["paths"][path].as_object().unwrap().values().next().unwrap();
    let mut response = &operation["responses"][status];
    if let Some(reference) = response["$ref"].as_str() {
        response = root.pointer(reference.strip_prefix('#').unwrap()).unwrap();
    }
    &response["content"].as_object().unwrap_or_else(|| panic!("{path} {status}")).values().next().unwrap()["schema"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_as_described() {
    let root: Value = serde_json::from_str(OPENAPI).unwrap();
    let rig = Rig::start();
    let full = json!({"subject": "u", "dimensions": {"model": "m"}, "reservation": "r"});
    let stored = rig.send(line(1, "acme", &full) + &line(1, "acme", &json!({"quantity": 2})) + "{\"id\":1}\n").await;
    rig.append(0, b"garbage".to_vec()).await;
    rig.settle().await;
    check(&root, schema_of(&root, "/v1/events", "202"), &stored, "/v1/events");
    let span = "from=2023-11&to=2023-12";
    for (path, uri, status) in [
        ("/v1/usage", format!("/v1/usage?tenant=acme&meter=api_call&{span}"), "200"),
        ("/v1/usage", format!("/v1/usage?meter=api_call&group_by=model&window=month&{span}"), "200"),
        ("/v1/usage", "/v1/usage".into(), "422"),
        ("/v1/tenants/{tenant}/usage", "/v1/tenants/acme/usage".into(), "200"),
        ("/v1/totals", "/v1/totals".into(), "200"),
        ("/v1/totals", "/v1/totals?x=1".into(), "422"),
        ("/v1/records", "/v1/records?tenant=acme&limit=1".into(), "200"),
        ("/v1/records", "/v1/records?tenant=acme".into(), "200"),
        ("/v1/records", format!("/v1/records?tenant={}", "x".repeat(5000)), "414"),
        ("/v1/rejected", "/v1/rejected".into(), "200"),
        ("/v1/log", "/v1/log".into(), "200"),
        ("/v1/owners", "/v1/owners?tenant=acme".into(), "200"),
        ("/readyz", "/readyz".into(), "200"),
    ] {
        let answer = rig.get(&uri).await;
        assert_eq!(answer.status.as_str(), status, "{uri}: {}", answer.text);
        check(&root, schema_of(&root, path, status), &answer.json(), path);
    }
}

/// Examples are answers too.
#[test]
fn examples_are_as_described() {
    let root: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut checked = 0;
    for (path, operation) in root["paths"].as_object().unwrap() {
        let responses = operation.as_object().unwrap().values().flat_map(|o| o["responses"].as_object().unwrap());
        for (status, response) in responses {
            for content in response["content"].as_object().into_iter().flat_map(|c| c.values()) {
                if let Some(example) = content.get("example") {
                    check(&root, &content["schema"], example, &format!("{path} {status}"));
                    checked += 1;
                }
            }
        }
    }
    assert!(checked >= 8, "only {checked} examples");
}

/// The parameters that are described are those that are read.
#[test]
fn parameters_are_as_described() {
    let root: Value = serde_json::from_str(OPENAPI).unwrap();
    let described = |path: &str| -> Vec<String> {
        let parameters = root["paths"][path]["get"]["parameters"].as_array().unwrap().iter();
        parameters.filter(|p| p["in"] == "query").map(|p| p["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(described("/v1/usage"), super::super::usage::PARAMETERS);
    assert_eq!(described("/v1/tenants/{tenant}/usage"), super::super::live::PARAMETERS);
    assert_eq!(described("/v1/totals"), super::super::totals::PARAMETERS);
    assert_eq!(described("/v1/records"), super::super::records::PARAMETERS);
    assert_eq!(described("/v1/rejected"), super::super::records::REJECTED_PARAMETERS);
    assert_eq!(described("/v1/owners"), super::super::owners::PARAMETERS);
}
