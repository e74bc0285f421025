//! Facts in, NDJSON text out: one line a record, as `POST /v1/events` reads it.
//! Everything that a map fixes is escaped once.

use std::io::Write;

use super::amount::Amount;
use super::convert::Facts;
use super::map::Map;
use super::rows::Row;

/// One repetition of the trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pass {
    /// Its number, from 0.
    pub(super) number: u32,
    /// How far event times move, in milliseconds.
    pub(super) shift_ms: i64,
}

/// Writes records. The lines of one row share most of their bytes, which are made
/// once by [`Encoder::start_row`].
#[derive(Debug)]
pub(super) struct Encoder {
    /// Whether tenants are numbered: `tenant#3`.
    numbered: bool,
    /// `{"source":…,"id":"`
    head: Vec<u8>,
    /// For each rule: the id's ending, and `,"meter":…,"quantity":`.
    rules: Vec<(Vec<u8>, Vec<u8>)>,
    /// For each dimension: `"name":`.
    dimension_names: Vec<Vec<u8>>,
    /// `{"source":…,"id":"ROW`, of this row.
    row_head: Vec<u8>,
    /// `","tenant":"TENANT`, of this row.
    tenant: Vec<u8>,
    /// `,"time":…}` and the line's end, of this row.
    tail: Vec<u8>,
    /// `.r3"`, of this pass.
    id_ending: Vec<u8>,
}

impl Encoder {
    /// An encoder of `map`'s records for `tenants` copies of each tenant.
    pub(super) fn new(map: &Map, tenants: u32) -> Self {
        let mut head = b"{\"source\":".to_vec();
        write_json_string(&map.source, &mut head);
        head.extend_from_slice(b",\"id\":\"");
        let rule = |rule: &super::map::RecordRule| {
            let mut id_part = Vec::new();
            if rule.earlier_of_meter > 0 {
                write_number(&mut id_part, b".", rule.earlier_of_meter + 1);
            }
            let mut meter = b"\",\"meter\":".to_vec();
            write_json_string(&rule.meter, &mut meter);
            meter.extend_from_slice(b",\"quantity\":");
            (id_part, meter)
        };
        let name = |(name, _): &(String, super::map::Slot)| {
            let mut text = Vec::new();
            write_json_string(name, &mut text);
            text.push(b':');
            text
        };
        Self {
            numbered: tenants > 1,
            head,
            rules: map.records.iter().map(rule).collect(),
            dimension_names: map.dimensions.iter().map(name).collect(),
            row_head: Vec::new(),
            tenant: Vec::new(),
            tail: Vec::new(),
            id_ending: Vec::new(),
        }
    }

    /// Makes what the lines of `row` share.
    pub(super) fn start_row(&mut self, map: &Map, row: &Row, facts: &Facts, pass: Pass) {
        self.row_head.clear();
        self.row_head.extend_from_slice(&self.head);
        write_number(&mut self.row_head, b"", row.number);
        self.id_ending.clear();
        if pass.number > 0 {
            write_number(&mut self.id_ending, b".r", pass.number);
        }
        self.tenant.clear();
        self.tenant.extend_from_slice(b"\",\"tenant\":\"");
        write_escaped(&facts.tenant, &mut self.tenant);
        self.tail.clear();
        if let Some(time) = facts.time {
            // Writing to memory cannot fail.
            let _ = write!(self.tail, ",\"time\":\"{}\"", time.plus_ms(pass.shift_ms));
        }
        if let Some(slot) = map.subject {
            let subject = row.cell(slot);
            if !subject.is_empty() {
                self.tail.extend_from_slice(b",\"subject\":");
                write_json_string(subject, &mut self.tail);
            }
        }
        self.write_dimensions(map, row);
        self.tail.extend_from_slice(b"}\n");
    }

    fn write_dimensions(&mut self, map: &Map, row: &Row) {
        let mut open = false;
        for (name, (_, slot)) in self.dimension_names.iter().zip(&map.dimensions) {
            let value = row.cell(*slot);
            if value.is_empty() {
                continue;
            }
            self.tail.extend_from_slice(if open { b"," } else { b",\"dimensions\":{" });
            self.tail.extend_from_slice(name);
            write_json_string(value, &mut self.tail);
            open = true;
        }
        if open {
            self.tail.push(b'}');
        }
    }

    /// Writes one record of the row for the tenant's copy `copy`, from 1.
    pub(super) fn write_record(&self, rule: usize, amount: &Amount, copy: u32, out: &mut Vec<u8>) {
        let Some((id_part, meter)) = self.rules.get(rule) else { return };
        out.extend_from_slice(&self.row_head);
        out.extend_from_slice(id_part);
        out.extend_from_slice(&self.id_ending);
        out.extend_from_slice(&self.tenant);
        if self.numbered {
            write_number(out, b"#", copy);
        }
        out.extend_from_slice(meter);
        match amount {
            Amount::Whole(number) => write_number(out, b"", number),
            Amount::Decimal(text) => write_json_string(text, out),
        }
        out.extend_from_slice(&self.tail);
    }
}

fn write_number(out: &mut Vec<u8>, before: &[u8], number: impl std::fmt::Display) {
    out.extend_from_slice(before);
    // Writing to memory cannot fail.
    let _ = write!(out, "{number}");
}

fn write_json_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    write_escaped(text, out);
    out.push(b'"');
}

/// The inside of a JSON string (RFC 8259, section 7).
fn write_escaped(text: &str, out: &mut Vec<u8>) {
    let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    let mut rest = text.as_bytes();
    loop {
        let run = rest.iter().take_while(|byte| plain(byte)).count();
        let (clean, special) = rest.split_at(run);
        out.extend_from_slice(clean);
        let Some((byte, after)) = special.split_first() else { return };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            _ => {
                let _ = write!(out, "\\u{byte:04x}");
            }
        }
        rest = after;
    }
}
