//! Connections between lanes.

use std::io::{Read, Write};
use std::sync::atomic::AtomicU32;
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use super::super::patience::Times;
use super::*;
use crate::quota::stub::Stub;
use crate::quota::tests::quota_of;

const LONG: Duration = Duration::from_secs(10);
const REQUEST: &[u8] = b"POST /v1/quota/check HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
    content-length: 57\r\n\r\n{\"tenant\":\"acme\",\"items\":[{\"meter\":\"agents\",\"amount\":1}]}";

struct Started {
    lanes: Lanes,
    parting: UnboundedReceiver<Parting>,
    _stopping: watch::Sender<bool>,
}

/// Lanes, to be called within a runtime.
fn start() -> Started {
    let (back, parting) = unbounded_channel();
    let (stopping, stopped) = watch::channel(false);
    let quota = quota_of(Stub::shared());
    let lean = Lean { quota, stopped, times: Times::USUAL, home: Handle::current(), back };
    Started { lanes: Lanes::start(&lean).unwrap(), parting, _stopping: stopping }
}

/// A new connection to a client on a thread of its own, for the first lane.
async fn connected<T: Send + 'static>(
    lanes: &Lanes,
    client: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (Parting, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = spawn(move || client(TcpStream::connect(address).unwrap()));
    let stream = listener.accept().await.unwrap().0.into_std().unwrap();
    let place = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
    (Parting { stream, read: BytesMut::new(), place, lane: Some(lanes.claim(0)) }, client)
}

fn is_answered(stream: &mut TcpStream) -> bool {
    let (mut answer, mut bytes) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(b"}") {
        let read = stream.read(&mut bytes).unwrap();
        assert_ne!(read, 0, "the connection ended within an answer");
        answer.extend_from_slice(&bytes[..read]);
    }
    answer.starts_with(b"HTTP/1.1 200 OK")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_goes_along() {
    let started = start();
    let (begun, rest) = REQUEST.split_at(70);
    let (mut arrived, client) = connected(&started.lanes, move |mut stream| {
        stream.write_all(rest).unwrap();
        is_answered(&mut stream)
    })
    .await;
    arrived.read.extend_from_slice(begun);
    started.lanes.take(arrived).unwrap();
    assert!(tokio::task::spawn_blocking(|| client.join().unwrap()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_follows_its_client() {
    let lanes = available_parallelism().unwrap().get();
    let Some(processors) = one_each(lanes) else { return };
    let mut started = start();
    let (target, answers) = (lanes - 1, Arc::new(AtomicU32::new(0)));
    let (counted, processor) = (Arc::clone(&answers), processors[target]);
    let (arrived, client) = connected(&started.lanes, move |mut stream| {
        keep_to(processor);
        // Until nobody is there.
        while stream.write_all(REQUEST).is_ok() && is_answered(&mut stream) {
            if counted.fetch_add(1, Ordering::Relaxed) == 1000 {
                return;
            }
        }
    })
    .await;
    started.lanes.take(arrived).unwrap();
    let moved = timeout(LONG, started.parting.recv()).await.unwrap().unwrap();
    assert_eq!(moved.lane.as_ref().map(|claim| claim.lane), Some(target));
    assert!(answers.load(Ordering::Relaxed) < 1000, "it moves early");
    started.lanes.take(moved).unwrap();
    assert!(tokio::task::spawn_blocking(|| client.join()).await.unwrap().is_ok(), "it is answered on");
    assert!(started.parting.try_recv().is_err(), "it stays there");
}
