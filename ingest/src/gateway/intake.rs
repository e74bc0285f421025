//! Bytes and headers in; sealed envelopes, and what became of each event, out.
//!
//! The whole of the gateway's judgement. No I/O, no clock, no async: the same
//! request always gives the same envelopes.

use odometer_schemas::definitions::Definitions;
use odometer_schemas::limits::ID_BYTES_MAX;
use odometer_schemas::quantity::Quantity;
use odometer_schemas::record::Record;

use axum::http::HeaderMap;

use super::body::{encoding_of, inflate};
use super::cloudevent::{self, CloudEvent};
use super::feed::Feeder;
use super::form::{Door, Form, form_of};
use super::gather::{Envelope, Gather};
use super::json::{self, JsonFault, Member};
use super::native;
use super::problem::{Problem, ProblemKind};
use super::record::{Hints, of_fault};
use super::refusal::{Refusal, RefusalCode};
use super::sheet::{Fate, Sheet};

/// One request as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Which path it came in by.
    pub door: Door,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body, still encoded.
    pub body: &'a [u8],
}

/// What a request is read against.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The meters in force.
    pub definitions: &'a Definitions,
    /// How many partitions the log has.
    pub partitions: u32,
    /// Largest body after inflating, in bytes.
    pub inflated_bytes_max: usize,
    /// Most events of one request, and most records that they make.
    pub records_max: usize,
}

/// What a request holds.
#[derive(Debug)]
pub struct Intake {
    /// What is to be appended.
    pub envelopes: Vec<Envelope>,
    /// What became of each event, provided that the log takes the envelopes.
    pub sheet: Sheet,
    /// Bytes of the body after inflating.
    pub plain_bytes: usize,
}

/// Reads one request.
///
/// # Errors
/// When the request as a whole is refused: then there is nothing to append.
pub fn read(incoming: &Incoming<'_>, terms: &Terms<'_>) -> Result<Intake, Problem> {
    let mut gather = Gather::new(terms.partitions);
    let (sheet, plain_bytes) = read_onto(incoming, terms, &mut gather)?;
    Ok(Intake { envelopes: gather.finish(), sheet, plain_bytes })
}

/// Reads one of several requests whose records share envelopes. Gives what became of
/// each event, and the body's size after inflating in bytes.
///
/// # Errors
/// When the request as a whole is refused. If it is for too many records, some of
/// them may have been gathered.
pub(crate) fn read_onto<'t>(
    incoming: &Incoming<'_>,
    terms: &'t Terms<'t>,
    gather: &'t mut Gather,
) -> Result<(Sheet, usize), Problem> {
    let form = form_of(incoming.headers)?;
    let encoding = encoding_of(incoming.headers)?;
    let plain = inflate(incoming.body, encoding, terms.inflated_bytes_max)?;
    let mut reader = Reader::new(terms, incoming.door, form, gather);
    match form {
        Form::Binary => {
            let event = cloudevent::binary(incoming.headers, &plain);
            let outcome = event.and_then(|event| reader.feed(&event));
            reader.settle(cloudevent::binary_id(incoming.headers).as_deref(), outcome)?;
        }
        _ if plain.trim_ascii().is_empty() => return Err(unreadable("the body is empty", None)),
        Form::Ndjson => reader.lines(&plain)?,
        Form::Json | Form::Structured | Form::Batch => {
            let text = std::str::from_utf8(&plain).map_err(|e| not_utf8(&plain[..e.valid_up_to()]))?;
            reader.document(text, form)?;
        }
    }
    Ok((reader.sheet, plain.len()))
}

struct Reader<'t, 'a> {
    terms: &'t Terms<'t>,
    door: Door,
    /// Whether every object is a CloudEvent, whatever its members.
    is_always_event: bool,
    hints: Hints<'t>,
    feeder: Feeder<'t>,
    gather: &'t mut Gather,
    sheet: Sheet,
    /// Reused for every event, as are the members and records.
    record: Record,
    records: Vec<Record>,
    members: Vec<Member<'a>>,
}

impl<'t, 'a> Reader<'t, 'a> {
    fn new(terms: &'t Terms<'t>, door: Door, form: Form, gather: &'t mut Gather) -> Self {
        Self {
            terms,
            door,
            is_always_event: door == Door::OpenMeter || matches!(form, Form::Structured | Form::Batch),
            hints: Hints::new(terms.definitions),
            feeder: Feeder::new(terms.definitions),
            gather,
            sheet: Sheet::default(),
            record: empty_record(),
            records: Vec::new(),
            members: Vec::new(),
        }
    }

    /// A body that is one JSON document.
    fn document(&mut self, text: &'a str, form: Form) -> Result<(), Problem> {
        let wrong_shape = |what: &'static str, fix: &'static str| Problem::new(ProblemKind::WrongShape, what, fix);
        match text.trim_ascii_start().as_bytes().first() {
            Some(b'[') if form != Form::Structured => {
                let elements = json::elements(text, self.terms.records_max);
                elements.map_err(|fault| self.not_json(fault))?.into_iter().try_for_each(|element| self.event(element))
            }
            Some(b'{') if form != Form::Batch => {
                let object = json::document(text).map_err(|fault| self.not_json(fault))?;
                self.event(object)
            }
            _ => {
                json::document(text).map_err(|fault| self.not_json(fault))?;
                Err(match form {
                    Form::Structured => wrong_shape(
                        "the body is not an object",
                        "send one event, or application/cloudevents-batch+json",
                    ),
                    Form::Batch => wrong_shape(
                        "the body is not an array",
                        "send an array of events, or application/cloudevents+json",
                    ),
                    _ => wrong_shape(
                        "the body is neither an object nor an array",
                        "send one event or an array of events",
                    ),
                })
            }
        }
    }

    /// A body of one JSON document a line. Blank lines are no events.
    fn lines(&mut self, plain: &'a [u8]) -> Result<(), Problem> {
        for line in plain.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
            match std::str::from_utf8(line) {
                Ok(text) => self.event(text)?,
                Err(_) => self.settle(None, Err(Refusal::new(RefusalCode::Malformed, "the line is not UTF-8")))?,
            }
        }
        Ok(())
    }

    /// One event.
    fn event(&mut self, text: &'a str) -> Result<(), Problem> {
        let mut members = std::mem::take(&mut self.members);
        let outcome = json::members(text, &mut members).map_err(|fault| of_fault(&fault));
        let id = cloudevent::id_of(&members);
        let outcome = outcome.and_then(|()| self.put(&members));
        self.settle(id.as_deref(), outcome)?;
        self.members = members;
        Ok(())
    }

    /// Gathers the records of one event and says in which envelope they are.
    fn put(&mut self, members: &[Member<'a>]) -> Result<Fate, Refusal> {
        if self.is_always_event || cloudevent::is_cloud_event(members) {
            return self.feed(&cloudevent::structured(members)?);
        }
        native::read_record(members, self.terms.definitions, &mut self.hints, &mut self.record)?;
        gathered(self.gather, std::slice::from_ref(&self.record))
    }

    fn feed(&mut self, event: &CloudEvent<'_>) -> Result<Fate, Refusal> {
        self.feeder.feed(event, self.door, &mut self.hints, &mut self.records)?;
        gathered(self.gather, &self.records)
    }

    /// Notes what became of the next event.
    fn settle(&mut self, id: Option<&str>, outcome: Result<Fate, Refusal>) -> Result<(), Problem> {
        if self.sheet.len() == self.terms.records_max {
            return Err(self.too_many());
        }
        let id = id.filter(|id| id.len() <= ID_BYTES_MAX);
        self.sheet.push(id, outcome.unwrap_or_else(|refusal| Fate::Refused(Box::new(refusal))));
        if self.sheet.records() > self.terms.records_max { Err(self.too_many()) } else { Ok(()) }
    }

    fn too_many(&self) -> Problem {
        let detail = format!("the request makes more than {} records", self.terms.records_max);
        Problem::new(ProblemKind::TooManyRecords, detail, "send fewer events in one request")
    }

    fn not_json(&self, fault: JsonFault) -> Problem {
        match fault {
            JsonFault::TooMany => self.too_many(),
            JsonFault::Syntax(what, line, column) => unreadable(
                format!("the body is not valid JSON: {what} at line {line} column {column}"),
                Some((line, column)),
            ),
            JsonFault::Shape | JsonFault::Duplicate(_) => unreadable("the body is not valid JSON", None),
        }
    }
}

fn gathered(gather: &mut Gather, records: &[Record]) -> Result<Fate, Refusal> {
    let envelope = gather.add(records).map_err(|_| {
        let detail = format!("the event makes {} records, which do not fit into one envelope", records.len());
        Refusal::new(RefusalCode::Invalid, detail)
    })?;
    Ok(Fate::Gathered { envelope, records: records.len() })
}

fn empty_record() -> Record {
    Record {
        tenant: String::new(),
        source: String::new(),
        id: None,
        meter: String::new(),
        quantity: Quantity(0),
        time: None,
        subject: None,
        dimensions: Vec::new(),
        reservation: None,
    }
}

fn unreadable(detail: impl Into<std::borrow::Cow<'static, str>>, at: Option<(usize, usize)>) -> Problem {
    let fix = "send JSON in UTF-8, as the content type says";
    Problem { at, ..Problem::new(ProblemKind::UnreadableBody, detail, fix) }
}

fn not_utf8(valid: &[u8]) -> Problem {
    let line = valid.iter().filter(|b| **b == b'\n').count() + 1;
    let column = valid.iter().rev().take_while(|b| **b != b'\n').count() + 1;
    unreadable(format!("the body is not UTF-8 at line {line} column {column}"), Some((line, column)))
}
