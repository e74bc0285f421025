//! Health, the index, and what is answered where nothing is served.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::json;

use super::super::guard::QUERY_BYTES_MAX;
use super::super::{ROUTES, index};
use super::{Rig, line};
use crate::quota::http as quota_http;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_ready_until_it_fails() {
    let rig = Rig::start();
    assert_eq!(rig.get("/healthz").await.text, "ok\n");
    assert_eq!(rig.good("/readyz").await, json!({"ready": true, "reasons": []}));
    rig.node().progress.fail("the disk is gone".into());
    let answer = rig.get("/readyz").await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (503, json!({"ready": false, "reasons": ["the disk is gone"]}))
    );
    assert_eq!(rig.get("/healthz").await.status.as_u16(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_keeps_browsers_from_guessing() {
    let rig = Rig::start();
    for uri in ["/", "/healthz", "/metrics", "/v1/log", "/v1/usage", "/nope"] {
        let headers = rig.get(uri).await.headers;
        assert_eq!(
            (&headers["x-content-type-options"], &headers["cache-control"]),
            (&"nosniff".parse().unwrap(), &"no-store".parse().unwrap()),
            "{uri}"
        );
    }
    assert!(rig.get("/").await.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_index_and_the_description_name_every_route_and_each_answers() {
    let rig = Rig::start();
    let page = rig.get("/").await.text;
    let described: serde_json::Value = serde_json::from_str(index::OPENAPI).unwrap();
    assert_eq!(rig.good("/openapi.json").await, described);
    assert_eq!(described["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut routes: Vec<_> = described["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(move |m| (m.to_uppercase(), path.clone())))
        .collect();
    let mut served: Vec<_> = ROUTES
        .iter()
        .chain(&quota_http::ROUTES)
        .map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    routes.sort();
    served.sort();
    assert_eq!(routes, served);
    for (method, path) in routes {
        assert!(page.contains(&format!("{method:4} {path}")), "{page}");
        let uri = path.replace("{tenant}", "acme").replace("{plan}", "free").replace("{id}", "run-1");
        let request = Request::builder().method(method.as_str()).uri(uri);
        let status = rig.ask(request.body(Body::empty()).unwrap()).await.status.as_u16();
        assert!(![404, 405, 500].contains(&status), "{method} {path}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_served_is_a_problem() {
    let rig = Rig::start();
    for uri in ["/nope", "/v1", "/v1/usage/", "/v1/totals/x"] {
        rig.problem(uri, 404).await;
    }
    for (method, uri, allowed) in [
        (Method::POST, "/v1/usage", "GET,HEAD"),
        (Method::DELETE, "/v1/records", "GET,HEAD"),
        (Method::PUT, "/v1/events", "POST"),
        (Method::GET, "/v1/events", "POST"),
        (Method::GET, "/v1/envelopes", "POST"),
    ] {
        let answer = rig.ask(Request::builder().method(&method).uri(uri).body(Body::empty()).unwrap()).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["allow"]),
            (405, &allowed.parse().unwrap()),
            "{method} {uri}"
        );
        assert_eq!(answer.json()["type"], "/problems/method-not-allowed");
    }
    let head = rig.ask(Request::head("/v1/totals").body(Body::empty()).unwrap()).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_string_is_bounded() {
    let rig = Rig::start();
    let tenant = "é".repeat(64);
    let encoded: String = tenant.bytes().map(|b| format!("%{b:02X}")).collect();
    rig.send(line(1, &tenant, &json!({}))).await;
    rig.settle().await;
    let found = rig.good(&format!("/v1/records?tenant={encoded}&id=1")).await;
    assert_eq!(found["records"].as_array().unwrap().len(), 1);
    let longest = format!("/v1/totals?tenant={}", "x".repeat(QUERY_BYTES_MAX - "tenant=".len()));
    rig.good(&longest).await;
    rig.problem(&format!("{longest}x"), 414).await;
}
