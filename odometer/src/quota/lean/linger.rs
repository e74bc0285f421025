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
/// A look that took so long was interrupted by somebody who computes and does not let
/// others in before the timer's tick. A lane that had slept would have been let in.
const INTERRUPTED: Duration = Duration::from_millis(1);
/// Answers without a look after many in vain, at most: little enough that looks, of up to
/// 4 ms where others compute, take some microseconds a request.
const PAUSE_MAX: u32 = 1024;
/// Requests that are read so before the lane sees to everything else that it has.
const IN_A_ROW_MAX: u32 = 32;
/// What is read at once: a request with its head has some hundreds of bytes.
const LOOK_BYTES: usize = 2048;

/// Whether a lane may look.
#[derive(Clone)]
pub(super) struct Alone {
    /// Connections of the lane.
    pub(super) open: Arc<AtomicUsize>,
    /// Whether one of the lanes looks: no second one does, so that there is always a
    /// processor left for others. Set for good where there is only one.
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

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    has_come: bool,
    /// Whether it was over too late for a lane that wants to be in time.
    is_late: bool,
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
        let Some(look) = self.alone.look(stream, input)? else { return Ok(false) };
        self.learn(look);
        if look.has_come {
            self.see_to_others().await;
        }
        Ok(look.has_come)
    }

    /// Pauses grow twice as fast as they shrink where looks are interrupted.
    fn learn(&mut self, Look { has_come, is_late }: Look) {
        match (has_come, is_late) {
            (true, false) => self.pause /= 2,
            (false, false) => (self.paused, self.pause) = (self.pause, longer(self.pause, 2)),
            (_, true) => {
                self.pause = longer(self.pause, 4);
                self.paused = self.pause;
            }
        }
    }

    async fn see_to_others(&mut self) {
        give_way();
        self.in_a_row += 1;
        if self.in_a_row >= IN_A_ROW_MAX {
            self.in_a_row = 0;
            tokio::task::yield_now().await;
        }
    }
}

fn longer(pause: u32, times: u32) -> u32 {
    (pause * times).clamp(1, PAUSE_MAX)
}

impl Alone {
    /// None where another lane looks.
    fn look(&self, stream: &TcpStream, input: &mut BytesMut) -> io::Result<Option<Look>> {
        if self.is_looking.swap(true, Ordering::Relaxed) {
            return Ok(None);
        }
        let began = Instant::now();
        let has_come = wait_for(stream, input);
        self.is_looking.store(false, Ordering::Relaxed);
        Ok(Some(Look { has_come: has_come?, is_late: began.elapsed() >= INTERRUPTED }))
    }
}

/// Reads what comes within the time. The socket is asked itself: tokio would ask the
/// system first whether anything is ready.
fn wait_for(stream: &TcpStream, input: &mut BytesMut) -> io::Result<bool> {
    let (socket, began, mut bytes) = (SockRef::from(stream), Instant::now(), [0; LOOK_BYTES]);
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
        let mut refused = Linger::new(other_looks);
        assert!(!refused.read(&stream, &mut input).await.unwrap());
        assert_eq!((input.len(), refused.pause, refused.paused), (0, 0, 0), "a look that was not is not in vain");
        let alone = alone(1);
        assert!(Linger::new(alone.clone()).read(&stream, &mut input).await.unwrap());
        assert_eq!(&input[..], b"more");
        assert!(!alone.is_looking.load(Ordering::Relaxed), "the next lane may look");
    }

    /// After which answers is looked, if looks end so.
    fn looks(linger: &mut Linger, answers: u32, end: Look) -> Vec<u32> {
        let mut looks = Vec::new();
        for answer in 0..answers {
            if linger.paused > 0 {
                linger.paused -= 1;
            } else {
                looks.push(answer);
                linger.learn(end);
            }
        }
        looks
    }

    #[test]
    fn who_does_not_come_at_once_is_seldom_looked_for() {
        let (has_come, is_late) = (false, false);
        let mut linger = Linger::new(alone(1));
        let looked = looks(&mut linger, 4000, Look { has_come, is_late });
        assert_eq!(looked, [0, 1, 3, 6, 11, 20, 37, 70, 135, 264, 521, 1034, 2059, 3084]);
        let looked = looks(&mut linger, 2000, Look { has_come: true, is_late });
        assert_eq!((looked[0], looked.len()), (109, 1891), "once the pause is over, it is looked for again");
        assert_eq!(linger.pause, 0);
    }

    #[test]
    fn nobody_is_looked_for_often_beside_somebody_who_computes() {
        for has_come in [true, false] {
            let looked = looks(&mut Linger::new(alone(1)), 3000, Look { has_come, is_late: true });
            assert_eq!(looked, [0, 2, 7, 24, 89, 346, 1371, 2396]);
        }
    }

    #[tokio::test]
    async fn what_a_look_has_no_room_for_is_read_by_the_next() {
        let (mut client, stream) = connected().await;
        let (mut linger, mut input) = (Linger::new(alone(1)), BytesMut::new());
        assert!(!linger.read(&stream, &mut input).await.unwrap());
        client.write_all(&[7; LOOK_BYTES + 1]).await.unwrap();
        while input.len() <= LOOK_BYTES {
            stream.readable().await.unwrap();
            linger.paused = 0;
            linger.read(&stream, &mut input).await.unwrap();
        }
        assert_eq!(input.len(), LOOK_BYTES + 1);
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
