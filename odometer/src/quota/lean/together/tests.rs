//! Answers that wait for each other.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::*;

/// So many connections: what their clients have of them, and what a lane has.
async fn connected(connections: usize) -> (Vec<TcpStream>, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut clients, mut streams) = (Vec::new(), Vec::new());
    for _ in 0..connections {
        clients.push(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        streams.push(listener.accept().await.unwrap().0);
    }
    (clients, streams)
}

type Boxed<'a> = Pin<Box<Sending<'a>>>;

/// One answer to each, its number, none of them sent yet.
fn waiting(streams: &[TcpStream]) -> Vec<Boxed<'_>> {
    let begin = |(number, stream)| {
        let mut sending = Box::pin(send(stream, vec![number; 10]));
        assert!(look(&mut sending).is_none());
        sending
    };
    (0..).zip(streams).map(begin).collect()
}

fn look(sending: &mut Boxed<'_>) -> Option<Sent> {
    match sending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(sent) => Some(sent),
        Poll::Pending => None,
    }
}

fn ended(mut sending: Boxed<'_>) -> Sent {
    look(&mut sending).expect("it was sent")
}

/// What the system takes of ten bytes where it can be asked for several at once.
const TAKEN: usize = if cfg!(target_os = "linux") { 10 } else { 0 };

#[tokio::test]
async fn each_goes_to_its_own_connection_once_all_are_decided() {
    let (mut clients, streams) = connected(5).await;
    let all = waiting(&streams);
    assert_eq!(clients[0].try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(send_all());
    assert!(!send_all(), "nothing is sent twice");
    for (number, sending) in (0..).zip(all) {
        let Sent { bytes, taken } = ended(sending);
        assert_eq!((bytes, taken.unwrap()), (vec![number; 10], TAKEN));
    }
    for (number, client) in (0..).zip(&mut clients).take_while(|_| TAKEN > 0) {
        let mut bytes = [0; 10];
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, [number; 10]);
    }
}

#[tokio::test]
async fn some_are_not_kept_waiting_for_more() {
    let (_clients, streams) = connected(ANSWERS_MAX).await;
    let (last, others) = streams.split_last().unwrap();
    let others = waiting(others);
    assert!(look(&mut Box::pin(send(last, vec![7; 10]))).is_some());
    for sending in others {
        assert_eq!(ended(sending).taken.unwrap(), TAKEN);
    }
}

#[tokio::test]
async fn one_alone_is_left_to_whoever_has_it() {
    let (_clients, streams) = connected(1).await;
    let all = waiting(&streams);
    assert!(send_all());
    for sending in all {
        assert_eq!(ended(sending).taken.unwrap(), 0);
    }
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_sent() {
    let (mut clients, streams) = connected(4).await;
    let mut all = waiting(&streams);
    drop(all.remove(1));
    assert!(send_all());
    // Sent, and not looked at.
    drop(all.remove(0));
    for sending in all {
        ended(sending);
    }
    drop(streams);
    let mut bytes = Vec::new();
    clients[1].read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, [0; 0]);
    ROUND.with_borrow(|round| assert_eq!((round.waiting.len(), round.sent.len()), (0, 0)));
}

#[tokio::test]
async fn what_one_connection_does_not_take_is_nobody_elses_matter() {
    let (mut clients, streams) = connected(3).await;
    // The first client does not read, the second one is gone.
    streams[0].writable().await.unwrap();
    while streams[0].try_write(&[9; 4096]).is_ok() {}
    socket2::SockRef::from(&clients[1]).set_linger(Some(Duration::ZERO)).unwrap();
    drop(clients.remove(1));
    streams[1].readable().await.unwrap();
    let all = waiting(&streams);
    assert!(send_all());
    let mut taken = Vec::new();
    for sending in all {
        taken.push(ended(sending).taken.map_err(|error| error.kind()));
    }
    if TAKEN > 0 {
        assert_eq!(taken[0], Ok(0));
        assert!(taken[1].is_err(), "{:?}", taken[1]);
    }
    assert_eq!(taken[2], Ok(TAKEN));
}
