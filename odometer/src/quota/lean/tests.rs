//! The short way answers what the router answers, whatever way the bytes come.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::patience::Times;
use super::{CONNECTIONS_MAX, serve, serve_within};
use crate::quota::http::router;
use crate::quota::stub::Stub;
use crate::quota::tests::quota_of;

type Serving = (TcpStream, oneshot::Sender<()>, tokio::task::JoinHandle<std::io::Result<()>>);

/// The same routes twice: with the short way in front, and without.
async fn start(with_short_way: bool) -> Serving {
    start_at(with_short_way, Times::USUAL).await
}

async fn start_within(times: Times) -> Serving {
    start_at(true, times).await
}

async fn start_at(with_short_way: bool, times: Times) -> Serving {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let quota = quota_of(Stub::shared());
    let routes: Router = router(quota.clone()).layer(from_fn(crate::api::guard::guard));
    let (stop, stopped) = oneshot::channel();
    let short_way = with_short_way.then_some(quota);
    let bounds = (CONNECTIONS_MAX, times);
    let served = tokio::spawn(serve_within(bounds, listener, (routes, short_way), async move { drop(stopped.await) }));
    (TcpStream::connect(address).await.unwrap(), stop, served)
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn check(amount: &str) -> String {
    post("/v1/quota/check", &format!(r#"{{"tenant":"acme","items":[{{"meter":"agents","amount":{amount}}}]}}"#))
}

/// One reply: its status line, header fields without the date, and body.
async fn reply(stream: &mut TcpStream) -> (String, BTreeMap<String, String>, String) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(bytes).unwrap();
    let mut lines = head.trim_end().lines();
    let status = lines.next().unwrap().to_owned();
    let fields = lines.map(|line| line.split_once(": ").unwrap());
    let mut fields: BTreeMap<_, _> = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert!(fields.remove("date").is_some_and(|date| date.ends_with(" GMT")));
    let mut body = vec![0; fields["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    (status, fields, String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn both_ways_say_the_same() {
    let requests = [
        check("1"),
        check("2"),
        check("true"),
        check("-1"),
        post("/v1/quota/check", "{}"),
        post(
            "/v1/quota/reservations",
            r#"{"id":"r","tenant":"a","ttl_ms":5,"items":[{"meter":"agents","amount":1}],"mode":"fast"}"#,
        ),
        post("/v1/quota/reservations", r#"{"id":"r","tenant":"a","ttl_ms":6,"items":[{"meter":"agents","amount":1}]}"#),
    ];
    let (mut short, _stop_short, _) = start(true).await;
    let (mut long, _stop_long, _) = start(false).await;
    for request in requests {
        let mut answers = Vec::new();
        for stream in [&mut short, &mut long] {
            stream.write_all(request.as_bytes()).await.unwrap();
            answers.push(reply(stream).await);
        }
        assert_eq!(answers[0], answers[1], "{request}");
    }
}

#[tokio::test]
async fn requests_may_come_in_pieces_or_many_at_once() {
    let (mut stream, _stop, _) = start(true).await;
    for byte in check("1").as_bytes() {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(reply(&mut stream).await.0, "HTTP/1.1 200 OK");
    let many: String = (1..=100).map(|n| check(if n % 2 == 0 { "2" } else { "1" })).collect();
    stream.write_all(many.as_bytes()).await.unwrap();
    for n in 1..=100 {
        let expected = if n % 2 == 0 { "HTTP/1.1 429 Too Many Requests" } else { "HTTP/1.1 200 OK" };
        assert_eq!(reply(&mut stream).await.0, expected, "{n}");
    }
}

/// On threads of its own: the client asks again while the lane still looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_client_that_asks_on_is_answered_whatever_a_look_finds() {
    let (mut stream, _stop, _) = start(true).await;
    stream.set_nodelay(true).unwrap();
    let small = check("1");
    let large = check(&format!("{}2", " ".repeat(5000)));
    for n in 0..300 {
        let (request, status) = if n % 3 == 0 { (&large, "429 Too Many Requests") } else { (&small, "200 OK") };
        let (begun, rest) = request.split_at(if n % 2 == 0 { request.len() } else { request.len() / 2 });
        stream.write_all(begun.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(rest.as_bytes()).await.unwrap();
        assert_eq!(reply(&mut stream).await.0, format!("HTTP/1.1 {status}"), "{n}");
    }
    stream.write_all(b"GET /v1/plans HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(reply(&mut stream).await.0, "HTTP/1.1 200 OK", "the router has the connection");
}

/// On threads of its own: mostly it is a look that finds the half.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_request_after_others_is_not_waited_for_at_a_stop() {
    let (mut stream, stop, served) = start(true).await;
    for _ in 0..50 {
        stream.write_all(check("1").as_bytes()).await.unwrap();
        reply(&mut stream).await;
    }
    stream.write_all(&check("1").as_bytes()[..60]).await.unwrap();
    stop.send(()).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn everything_else_is_the_routers() {
    for other in [
        "GET /v1/plans HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        check("1").replace("content-length: ", "connection: close\r\ncontent-length: "),
        check("1").replace("application/json", "text/plain"),
        check("1").replace("/check", "/check?x=1"),
        check("1").replace("host: x\r\n", ""),
        post("/v1/quota/check", &" ".repeat(40_000)),
        post("/v1/quota/reservations/r/release", r#"{"tenant":"a","op_id":"1"}"#),
    ] {
        let (mut short, _stop_short, _) = start(true).await;
        let (mut long, _stop_long, _) = start(false).await;
        short.write_all(check("1").as_bytes()).await.unwrap();
        assert_eq!(reply(&mut short).await.0, "HTTP/1.1 200 OK");
        let mut answers = Vec::new();
        for stream in [&mut short, &mut long] {
            stream.write_all(other.as_bytes()).await.unwrap();
            answers.push(reply(stream).await);
        }
        assert_eq!(answers[0], answers[1], "{other}");
    }
}

#[tokio::test]
async fn a_stop_ends_idle_connections() {
    for with_short_way in [true, false] {
        let (mut stream, stop, served) = start(with_short_way).await;
        stream.write_all(check("1").as_bytes()).await.unwrap();
        reply(&mut stream).await;
        stop.send(()).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        served.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn every_lane_answers() {
    let (first, _stop, _) = start(true).await;
    let address = first.peer_addr().unwrap();
    let mut streams = vec![first];
    for _ in 0..4 * std::thread::available_parallelism().unwrap().get() {
        streams.push(TcpStream::connect(address).await.unwrap());
    }
    for _ in 0..2 {
        for stream in &mut streams {
            stream.write_all(check("1").as_bytes()).await.unwrap();
        }
        for stream in &mut streams {
            assert_eq!(reply(stream).await.0, "HTTP/1.1 200 OK");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_given_up_lets_go_of_its_connections() {
    for half in ["", &check("1")[..40], "GET /v1/plans HTT"] {
        let (mut stream, _stop, served) = start(true).await;
        stream.write_all(check("1").as_bytes()).await.unwrap();
        reply(&mut stream).await;
        stream.write_all(half.as_bytes()).await.unwrap();
        served.abort();
        assert!(served.await.unwrap_err().is_cancelled());
        assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)), "{half}");
    }
}

const SOON: Duration = Duration::from_secs(1);
const NEVER: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn a_client_that_falls_silent_is_let_go() {
    let whole = check("1");
    let other = post("/v1/quota/reservations/r/release", "{}");
    let (is_quiet, is_slow) = (Times { quiet: SOON, transfer: NEVER }, Times { quiet: NEVER, transfer: SOON });
    let cases = [
        ("", is_quiet),
        (&whole[..40], is_slow),
        (&whole[..whole.len() - 3], is_slow),
        ("GET /v1/plans HTT", is_quiet),
        (&other[..other.len() - 1], is_slow),
    ];
    for (bytes, times) in cases {
        let (mut stream, _stop, _) = start_within(times).await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        // What is said before the end, if anything, is that the body is not whole.
        let mut rest = String::new();
        let ended = tokio::time::timeout(SOON * 60, stream.read_to_string(&mut rest)).await;
        ended.unwrap_or_else(|_| panic!("`{bytes}` is waited for")).unwrap();
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 4"), "{rest}");
    }
}

#[tokio::test]
async fn a_client_that_trickles_is_let_go_and_one_that_asks_on_is_not() {
    let (mut stream, _stop, _) = start_within(Times { quiet: NEVER, transfer: SOON / 5 }).await;
    for _ in 0..3 {
        stream.write_all(check("1").as_bytes()).await.unwrap();
        assert_eq!(reply(&mut stream).await.0, "HTTP/1.1 200 OK");
        tokio::time::sleep(SOON / 2).await;
    }
    for byte in check("1").as_bytes() {
        // Let go in the midst of it.
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(SOON / 100).await;
    }
    let answered = stream.read(&mut [0; 1]).await.unwrap_or(0);
    assert_eq!(answered, 0);
}

#[tokio::test]
async fn beyond_the_bound_a_connection_waits_for_its_place() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let quota = quota_of(Stub::shared());
    let routes = (router(quota.clone()), Some(quota));
    let served = tokio::spawn(serve_within((2, Times::USUAL), listener, routes, std::future::pending()));
    let ask = async |stream: &mut TcpStream| {
        stream.write_all(check("1").as_bytes()).await.unwrap();
        reply(stream).await.0
    };
    let mut first = TcpStream::connect(address).await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    assert_eq!((&*ask(&mut first).await, &*ask(&mut second).await), ("HTTP/1.1 200 OK", "HTTP/1.1 200 OK"));
    let mut third = TcpStream::connect(address).await.unwrap();
    let mut asking = Box::pin(ask(&mut third));
    assert!(tokio::time::timeout(SOON / 10, &mut asking).await.is_err());
    drop(first);
    assert_eq!(asking.await, "HTTP/1.1 200 OK");
    served.abort();
}

/// For a load generator: serves at `ODOMETER_STUB_LISTEN` until its input ends, the
/// short way or, with `ODOMETER_STUB_ROUTER`, all of it through the router.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "serves until its input ends"]
async fn serve_the_stub() {
    let listener = TcpListener::bind(std::env::var("ODOMETER_STUB_LISTEN").unwrap()).await.unwrap();
    let quota = quota_of(Stub::shared());
    let routes: Router = router(quota.clone()).layer(from_fn(crate::api::guard::guard));
    let short_way = std::env::var("ODOMETER_STUB_ROUTER").is_err().then_some(quota);
    let ended = async {
        let read = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(tokio::task::spawn_blocking(read).await);
    };
    serve(listener, routes, short_way, ended).await.unwrap();
}

/// So many clients that every lane has several.
fn several() -> usize {
    8 * std::thread::available_parallelism().map_or(1, usize::from)
}

/// On threads of its own, so that many requests are ready at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_ask_at_once_get_each_its_own_answers() {
    let (stream, _stop, _) = start(true).await;
    let address = stream.peer_addr().unwrap();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..several() {
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            for n in 0..200 {
                let id = format!("{client}-{n}");
                let body = format!(r#"{{"id":"{id}","tenant":"t-{id}","ttl_ms":5,"items":[],"mode":"fast"}}"#);
                let body = body.replace("[]", r#"[{"meter":"agents","amount":1}]"#);
                stream.write_all(post("/v1/quota/reservations", &body).as_bytes()).await.unwrap();
                let (status, _, body) = reply(&mut stream).await;
                assert_eq!(status, "HTTP/1.1 200 OK", "{body}");
                assert!(body.contains(&format!(r#""reservation_id":"{id}""#)), "{id}: {body}");
            }
        });
    }
    assert_eq!(clients.join_all().await.len(), several());
}

/// On threads of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_without_reading_keeps_nobody_waiting_and_loses_nothing() {
    const MANY: usize = 20_000;
    let (mut stream, _stop, _) = start(true).await;
    let address = stream.peer_addr().unwrap();
    // Nobody is alone in its lane.
    let mut others = Vec::new();
    for _ in 0..several() {
        others.push(TcpStream::connect(address).await.unwrap());
    }
    let (mut silent, mut asks) = TcpStream::connect(address).await.unwrap().into_split();
    let asking = tokio::spawn(async move {
        asks.write_all(check("1").repeat(MANY).as_bytes()).await.unwrap();
        asks
    });
    for _ in 0..300 {
        stream.write_all(check("1").as_bytes()).await.unwrap();
        assert_eq!(reply(&mut stream).await.0, "HTTP/1.1 200 OK");
    }
    // As many as were asked for, and whole: all are as long as the first.
    stream.write_all(check("1").as_bytes()).await.unwrap();
    let (status, fields, body) = reply(&mut stream).await;
    let field_bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let whole = status.len() + 2 + field_bytes + DATE_BYTES + 2 + body.len();
    let mut bytes = vec![0; whole * MANY];
    silent.read_exact(&mut bytes).await.unwrap();
    for answer in bytes.chunks(whole) {
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(body.as_bytes()));
    }
    drop(asking.await.unwrap());
}

/// The line of a date.
const DATE_BYTES: usize = "date: Sat, 21 Nov 2026 12:00:00 GMT\r\n".len();
