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

/// Tests of what is together have nothing to say where the system refuses it.
fn is_refused() -> bool {
    !ROUND.with_borrow_mut(|round| round.calls.are_there())
}

#[tokio::test]
async fn each_goes_to_its_own_connection_once_all_are_decided() {
    if is_refused() {
        return;
    }
    let (mut clients, streams) = connected(5).await;
    let all = waiting(&streams);
    assert_eq!(clients[0].try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(send_all());
    assert!(!send_all(), "nothing is sent twice");
    for (number, sending) in (0..).zip(all) {
        let Sent { bytes, taken } = ended(sending);
        assert_eq!((bytes, taken.unwrap()), (vec![number; 10], 10));
    }
    for (number, client) in (0..).zip(&mut clients) {
        let mut bytes = [0; 10];
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, [number; 10]);
    }
}

#[tokio::test]
async fn some_are_not_kept_waiting_for_more() {
    if is_refused() {
        return;
    }
    let (_clients, streams) = connected(CONNECTIONS_MAX).await;
    let (last, others) = streams.split_last().unwrap();
    let others = waiting(others);
    assert!(look(&mut Box::pin(send(last, vec![7; 10]))).is_some());
    for sending in others {
        assert_eq!(ended(sending).taken.unwrap(), 10);
    }
}

#[tokio::test]
async fn nobody_is_kept_waiting_for_many_answers_of_another() {
    if is_refused() {
        return;
    }
    let (_clients, streams) = connected(2).await;
    let one = waiting(&streams[..1]);
    assert!(look(&mut Box::pin(send(&streams[1], vec![7; BYTES_MAX]))).is_some());
    assert_eq!(one.into_iter().map(ended).map(|sent| sent.taken.unwrap()).sum::<usize>(), 10);
}

#[tokio::test]
async fn nobody_waits_where_the_system_refuses() {
    let (_clients, streams) = connected(2).await;
    ROUND.with_borrow_mut(|round| round.calls = Calls::refused());
    for stream in &streams {
        let Sent { bytes, taken } = ended(Box::pin(send(stream, vec![7; 10])));
        assert_eq!((bytes, taken.unwrap()), (vec![7; 10], 0));
    }
    assert!(!send_all());
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_sent() {
    if is_refused() {
        return;
    }
    let (mut clients, streams) = connected(4).await;
    let mut all = waiting(&streams);
    drop(all.remove(1));
    assert!(send_all());
    // Sent, and not looked at.
    drop(all.remove(0));
    all.into_iter().for_each(|sending| drop(ended(sending)));
    drop(streams);
    let mut bytes = Vec::new();
    clients[1].read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, [0; 0]);
    ROUND.with_borrow(|round| assert_eq!((round.waiting.len(), round.sent.len()), (0, 0)));
}

/// Writes until nothing more is taken, nor a little later; tokio is not asked, which would
/// wait to be told that there is room.
async fn fill(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    while socket.send(&[9]).is_ok() {
        while socket.send(&[9; 4096]).is_ok() {}
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_one_connection_does_not_take_is_nobody_elses_matter() {
    if is_refused() {
        return;
    }
    let (mut clients, streams) = connected(4).await;
    // The first client does not read, the second one is gone, the third reads part of it.
    fill(&streams[0]).await;
    socket2::SockRef::from(&clients[1]).set_linger(Some(Duration::ZERO)).unwrap();
    drop(clients.remove(1));
    streams[1].readable().await.unwrap();
    let mut all = waiting(&streams[..2]);
    all.push(Box::pin(send(&streams[2], vec![7; 64 << 20])));
    assert!(look(&mut all[2]).is_some_and(|sent| (1..64 << 20).contains(&sent.taken.unwrap())));
    all.pop();
    all.extend(waiting(&streams[3..]));
    send_all();
    let taken: Vec<usize> = all.into_iter().map(|sending| ended(sending).taken.unwrap()).collect();
    assert_eq!(taken, [0, 0, 10]);
    assert!(streams[1].try_write(&[7]).is_err(), "whoever has it hears why");
}
