//! Looks for the next request of a lane's only connection before the lane goes to sleep.
//! To wake a thread on a processor that sleeps takes several times as long as to answer,
//! and who asks one by one waits for that each time.

use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::lanes::give_way;

/// How long is looked: a client on the same machine, woken by the answer, has asked again
/// by then, mostly in half the time. Somebody far away has not, however long one looks.
const LOOK_MAX: Duration = Duration::from_micros(100);
/// Answers without a look after several in vain, at most: they double with each, so that a
/// client that comes at its leisure costs less than a microsecond a request.
const PAUSE_MAX: u32 = 128;
/// Requests that are read so before the lane sees to everything else that it has.
const IN_A_ROW_MAX: u32 = 32;
/// What is read at once: a request with its head has some hundreds of bytes.
const READ_BYTES: usize = 2048;

/// Whether a lane may look.
#[derive(Clone)]
pub(super) struct Alone {
    /// Connections of the lane.
    pub(super) open: Arc<AtomicUsize>,
    /// Whether one of the lanes looks: no second one does, so that there is always a
    /// processor left for others.
    pub(super) is_looking: Arc<AtomicBool>,
}

/// One connection's looks.
pub(super) struct Linger {
    alone: Alone,
    /// Answers without a look after the next one in vain; none after the first, which an
    /// interruption of the client explains.
    pause: u32,
    /// How many are left of them now.
    paused: u32,
    in_a_row: u32,
}

impl Linger {
    pub(super) fn new(alone: Alone) -> Self {
        Self { alone, pause: 0, paused: 0, in_a_row: 0 }
    }

    /// To be called after an answer: whether more was read into `input`.
    ///
    /// # Errors
    /// When the connection is broken. Its end is left for the next usual read.
    pub(super) async fn read(&mut self, stream: &TcpStream, input: &mut BytesMut) -> io::Result<bool> {
        if self.alone.open.load(Ordering::Relaxed) != 1 {
            return Ok(false);
        }
        if self.paused > 0 {
            self.paused -= 1;
            return Ok(false);
        }
        let has_come = self.alone.look(stream, input)?;
        if has_come {
            self.pause = 0;
            self.see_to_others().await;
        } else {
            (self.paused, self.pause) = (self.pause, PAUSE_MAX.min(self.pause * 2).max(1));
        }
        Ok(has_come)
    }

    async fn see_to_others(&mut self) {
        self.in_a_row += 1;
        if self.in_a_row >= IN_A_ROW_MAX {
            self.in_a_row = 0;
            give_way();
            tokio::task::yield_now().await;
        }
    }
}

impl Alone {
    fn look(&self, stream: &TcpStream, input: &mut BytesMut) -> io::Result<bool> {
        if self.is_looking.swap(true, Ordering::Relaxed) {
            return Ok(false);
        }
        let read = wait_for(stream, input);
        self.is_looking.store(false, Ordering::Relaxed);
        read
    }
}

/// Reads what comes within the time. The socket is asked itself: tokio would ask the
/// system first whether it is ready, and for all connections of the lane.
fn wait_for(stream: &TcpStream, input: &mut BytesMut) -> io::Result<bool> {
    let (socket, began, mut bytes) = (SockRef::from(stream), Instant::now(), [0; READ_BYTES]);
    loop {
        match (&*socket).read(&mut bytes) {
            Ok(0) => return Ok(false),
            Ok(read) => {
                input.extend_from_slice(&bytes[..read]);
                return Ok(true);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        if began.elapsed() >= LOOK_MAX {
            return Ok(false);
        }
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    fn alone(open: usize) -> Alone {
        Alone { open: Arc::new(AtomicUsize::new(open)), is_looking: Arc::default() }
    }

    /// A client and what the lane has of it.
    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn only_one_lane_with_one_connection_looks() {
        let (mut client, stream) = connected().await;
        client.write_all(b"more").await.unwrap();
        stream.readable().await.unwrap();
        let mut input = BytesMut::new();
        assert!(!Linger::new(alone(2)).read(&stream, &mut input).await.unwrap());
        let other_looks = alone(1);
        other_looks.is_looking.store(true, Ordering::Relaxed);
        assert!(!Linger::new(other_looks).read(&stream, &mut input).await.unwrap());
        assert!(input.is_empty());
        let alone = alone(1);
        assert!(Linger::new(alone.clone()).read(&stream, &mut input).await.unwrap());
        assert_eq!(&input[..], b"more");
        assert!(!alone.is_looking.load(Ordering::Relaxed), "the next lane may look");
    }

    #[tokio::test]
    async fn who_never_comes_at_once_is_soon_not_looked_for() {
        let (mut client, stream) = connected().await;
        let (mut linger, mut input) = (Linger::new(alone(1)), BytesMut::new());
        let mut looks = Vec::new();
        for answer in 0..600_u32 {
            let is_pausing = linger.paused > 0;
            assert!(!linger.read(&stream, &mut input).await.unwrap());
            if !is_pausing {
                looks.push(answer);
            }
        }
        assert_eq!(looks, [0, 1, 3, 6, 11, 20, 37, 70, 135, 264, 393, 522]);
        client.write_all(b"back").await.unwrap();
        stream.readable().await.unwrap();
        while !linger.read(&stream, &mut input).await.unwrap() {}
        assert_eq!((&input[..], linger.pause), (&b"back"[..], 0));
    }

    #[tokio::test]
    async fn the_end_is_left_for_the_usual_read() {
        let (client, stream) = connected().await;
        drop(client);
        stream.readable().await.unwrap();
        let mut input = BytesMut::new();
        assert!(!Linger::new(alone(1)).read(&stream, &mut input).await.unwrap());
        assert_eq!(stream.try_read(&mut [0; 8]).unwrap(), 0);
    }
}
