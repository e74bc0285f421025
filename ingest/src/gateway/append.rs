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
                landings[number] = landing_of(&error);
                waiting.clear();
            }
            Err(_) => {
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
        AppendError::Busy | AppendError::TooLarge { .. } => Landing::NotTaken,
        AppendError::Unavailable(_) | AppendError::Closed => Landing::Unknown,
    }
}
