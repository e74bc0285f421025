//! Envelopes in, where each landed out: the gateway's only wait for the log.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::gather::Envelope;
use super::options::APPENDS_IN_FLIGHT_MAX;
use crate::log::{AppendError, LogAppender, PendingAppend};

/// Where one envelope landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landing {
    /// The log holds it durably.
    Stored,
    /// The log has certainly not got it.
    NotTaken,
    /// There was no answer, or one after which the log may hold it.
    Unknown,
}

/// Appends `envelopes` and waits for all of them, at most for `timeout`.
///
/// A full queue is tried again only after an envelope of this request got through,
/// so one that never empties is told to the client at once.
pub(super) async fn append_all(log: &dyn LogAppender, envelopes: &[Envelope], timeout: Duration) -> Vec<Landing> {
    let deadline = Instant::now() + timeout;
    let mut landings = vec![Landing::NotTaken; envelopes.len()];
    let mut waiting: VecDeque<usize> = (0..envelopes.len()).collect();
    let mut under_way: VecDeque<UnderWay> = VecDeque::new();
    let mut stored = 0;
    let mut may_append = true;
    loop {
        while may_append
            && under_way.len() < APPENDS_IN_FLIGHT_MAX
            && let Some(number) = waiting.pop_front()
        {
            let Envelope { partition, bytes } = &envelopes[number];
            let answer = log.append(*partition, bytes.clone());
            under_way.push_back(UnderWay { number, stored_before: stored, answer });
        }
        let Some(UnderWay { number, stored_before, answer }) = under_way.pop_front() else { return landings };
        match timeout_at(deadline, answer.wait()).await {
            Ok(Ok(_)) => {
                landings[number] = Landing::Stored;
                stored += 1;
                may_append = !waiting.is_empty();
            }
            Ok(Err(AppendError::Busy)) => {
                waiting.push_back(number);
                may_append = stored > stored_before;
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the log did not take an envelope");
                landings[number] = landing_of(&error);
                waiting.clear();
            }
            Err(_) => {
                tracing::warn!(?timeout, "the log gave no answer in time");
                landings[number] = Landing::Unknown;
                waiting.clear();
            }
        }
    }
}

struct UnderWay {
    /// The envelope's number.
    number: usize,
    /// How many had been stored when it was handed over.
    stored_before: usize,
    answer: PendingAppend,
}

fn landing_of(error: &AppendError) -> Landing {
    match error {
        AppendError::Busy | AppendError::TooLarge { .. } | AppendError::Refused(_) => Landing::NotTaken,
        AppendError::Unavailable(_) | AppendError::Closed => Landing::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::{Arc, Mutex};

    use odometer_schemas::time::TimeMs;

    use super::*;
    use crate::log::Appended;

    /// A log whose queue holds `room` envelopes and is emptied by a task of its own.
    struct Narrow {
        room: usize,
        state: Arc<Mutex<State>>,
    }

    #[derive(Default)]
    struct State {
        queued: usize,
        tries: usize,
        stored: HashSet<Vec<u8>>,
    }

    impl LogAppender for Narrow {
        fn partitions(&self) -> u32 {
            1
        }

        fn append(&self, _partition: u32, envelope: Vec<u8>) -> PendingAppend {
            let mut state = self.state.lock().unwrap();
            state.tries += 1;
            if state.queued == self.room {
                return PendingAppend::ready(Err(AppendError::Busy));
            }
            state.queued += 1;
            let (sender, pending) = PendingAppend::channel();
            let state = Arc::clone(&self.state);
            tokio::spawn(async move {
                let mut state = state.lock().unwrap();
                state.queued -= 1;
                assert!(state.stored.insert(envelope), "stored twice");
                let _ = sender.send(Ok(Appended { offset: 0, append_time: TimeMs(0) }));
            });
            pending
        }
    }

    async fn landings(room: usize, count: u32) -> (Vec<Landing>, usize, usize) {
        let log = Narrow { room, state: Arc::default() };
        let envelopes: Vec<_> =
            (0..count).map(|n| Envelope { partition: 0, bytes: n.to_le_bytes().to_vec() }).collect();
        let landings = append_all(&log, &envelopes, Duration::from_secs(60)).await;
        let state = log.state.lock().unwrap();
        (landings, state.stored.len(), state.tries)
    }

    #[tokio::test]
    async fn a_narrow_queue_takes_a_large_request_in_the_end() {
        for (room, count) in [(1, 1), (1, 100), (3, 100), (40, 100), (1000, 100)] {
            let (landings, stored, _) = landings(room, count).await;
            assert_eq!(landings, vec![Landing::Stored; count as usize], "room {room}");
            assert_eq!(stored, count as usize);
        }
    }

    #[tokio::test]
    async fn a_queue_that_stays_full_is_tried_once_for_each_envelope_at_most() {
        let (landings, stored, tries) = landings(0, 100).await;
        assert_eq!((landings, stored), (vec![Landing::NotTaken; 100], 0));
        assert!(tries <= APPENDS_IN_FLIGHT_MAX, "{tries} tries");
    }
}
