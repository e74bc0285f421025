//! What became of each event of one request, kept compactly, and the answer that
//! names each.

use axum::http::StatusCode;
use serde::Serialize;

use super::append::Landing;
use super::problem::{Problem, ProblemKind};
use super::refusal::{Refusal, RefusalCode};

/// What became of one event before the log was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its records stand in this envelope.
    Gathered {
        /// The envelope's number.
        envelope: usize,
        /// How many records.
        records: usize,
    },
    /// Nothing of it may be stored.
    Refused(Box<Refusal>),
}

/// What became of each event, in the order of the request.
#[derive(Debug, Default)]
pub struct Sheet {
    /// The ids, one after another: one allocation for all.
    ids: String,
    events: Vec<Event>,
    records: usize,
}

#[derive(Debug)]
struct Event {
    /// Where its id ends in `ids`; it begins where the one before ends.
    id_end: usize,
    has_id: bool,
    fate: Fate,
}

/// Numbers of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events that the log holds.
    pub stored: usize,
    /// Events that were refused, by [`RefusalCode`].
    pub refused: [usize; RefusalCode::ALL.len()],
    /// Records that the log holds.
    pub records_stored: usize,
}

/// One answer, ready to send.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 202, 400 or 503.
    pub status: StatusCode,
    /// JSON; a problem when the status is no success.
    pub body: Vec<u8>,
    /// What it says, in numbers.
    pub tally: Tally,
}

impl Sheet {
    /// Number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether the request held no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Records that were gathered from all events.
    #[must_use]
    pub fn records(&self) -> usize {
        self.records
    }

    /// The id and the fate of each event.
    pub fn events(&self) -> impl Iterator<Item = (Option<&str>, &Fate)> {
        let mut start = 0;
        self.events.iter().map(move |event| {
            let id = &self.ids[start..event.id_end];
            start = event.id_end;
            (event.has_id.then_some(id), &event.fate)
        })
    }

    pub(super) fn push(&mut self, id: Option<&str>, fate: Fate) {
        self.ids.push_str(id.unwrap_or_default());
        if let Fate::Gathered { records, .. } = &fate {
            self.records += records;
        }
        self.events.push(Event { id_end: self.ids.len(), has_id: id.is_some(), fate });
    }

    /// The answer, once it is known where each envelope landed.
    #[must_use]
    pub fn answer(&self, landings: &[Landing]) -> Answer {
        // A stored event takes about 40 bytes besides its id.
        let mut results = Vec::with_capacity(self.ids.len() + 48 * self.events.len());
        let mut tally = Tally::default();
        let mut first_refusal = None;
        for (index, (id, fate)) in self.events().enumerate() {
            let refusal = match fate {
                Fate::Refused(refusal) => Some(Outcome::Refused(refusal)),
                Fate::Gathered { envelope, records } => match landings[*envelope] {
                    Landing::Stored => {
                        tally.stored += 1;
                        tally.records_stored += records;
                        None
                    }
                    Landing::NotTaken => Some(Outcome::NotTaken),
                    Landing::Unknown => Some(Outcome::Unknown),
                },
            };
            if let Some(refusal) = refusal {
                tally.refused[refusal.code() as usize] += 1;
                first_refusal = first_refusal.or(Some((index, refusal)));
            }
            if index > 0 {
                results.push(b',');
            }
            write_result(&mut results, index, id, refusal);
        }
        let all_stored = landings.iter().all(|landing| *landing == Landing::Stored);
        let problem = match first_refusal {
            Some(_) if !all_stored => Some(log_unavailable()),
            Some((index, first)) if tally.stored == 0 => Some(all_refused(index, first)),
            _ => None,
        };
        let status = problem.as_ref().map_or(StatusCode::ACCEPTED, |problem| problem.kind.status());
        Answer { status, body: body(problem.as_ref(), &tally, &results), tally }
    }
}

/// Why an event is not stored.
#[derive(Clone, Copy)]
enum Outcome<'a> {
    Refused(&'a Refusal),
    NotTaken,
    Unknown,
}

impl Outcome<'_> {
    fn code(&self) -> RefusalCode {
        match self {
            Self::Refused(refusal) => refusal.code,
            Self::NotTaken => RefusalCode::LogUnavailable,
            Self::Unknown => RefusalCode::Unknown,
        }
    }

    fn reason(&self) -> String {
        let detail = match self {
            Self::Refused(refusal) => &refusal.detail,
            Self::NotTaken => "not stored; send it again with the same id",
            Self::Unknown => "it may have been stored; send it again with the same id, it is counted once",
        };
        format!("{}: {detail}", self.code().name())
    }

    fn field(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => refusal.field.as_deref(),
            _ => None,
        }
    }
}

fn all_refused(index: usize, first: Outcome<'_>) -> Problem {
    let fix = "correct each event as its result says and send it again";
    let problem = Problem::new(ProblemKind::AllRefused, first.reason(), fix).index(index);
    match first.field() {
        Some(field) => problem.field(field.to_owned()),
        None => problem,
    }
}

fn log_unavailable() -> Problem {
    Problem::new(
        ProblemKind::LogUnavailable,
        "the log did not take every event",
        "wait as Retry-After says, then send the same events with the same ids",
    )
}

/// The body: a problem's members, if there is one, then the numbers and results.
fn body(problem: Option<&Problem>, tally: &Tally, results: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(results.len() + 512);
    match problem {
        None => body.push(b'{'),
        Some(problem) => {
            body = problem.to_json();
            body.reserve(results.len() + 512);
            body.pop();
            body.push(b',');
        }
    }
    let refused: usize = tally.refused.iter().sum();
    let numbers = format!(
        "\"stored\":{},\"refused\":{refused},\"records_stored\":{},\"results\":[",
        tally.stored, tally.records_stored
    );
    body.extend_from_slice(numbers.as_bytes());
    body.extend_from_slice(results);
    body.extend_from_slice(b"]}");
    body
}

fn write_result(out: &mut Vec<u8>, index: usize, id: Option<&str>, refusal: Option<Outcome<'_>>) {
    out.extend_from_slice(b"{\"index\":");
    write_json(out, &index);
    out.extend_from_slice(b",\"id\":");
    write_json(out, &id);
    let Some(refusal) = refusal else {
        out.extend_from_slice(b",\"status\":\"stored\"}");
        return;
    };
    out.extend_from_slice(b",\"status\":\"refused\",\"reason\":");
    write_json(out, &refusal.reason());
    if let Some(field) = refusal.field() {
        out.extend_from_slice(b",\"field\":");
        write_json(out, &field);
    }
    out.push(b'}');
}

fn write_json(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("texts and numbers always serialise");
}
