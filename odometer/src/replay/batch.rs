//! Record lines in, request bodies out, each with the moments that its records were
//! meant to be sent at.

use std::io::{self, Write};
use std::time::Instant;

use bytes::Bytes;

/// Records in one request. Large enough that a request's own cost vanishes, small
/// enough that an answer names each record.
pub(super) const BATCH_RECORDS_MAX: u32 = 1000;
/// Bytes after which a request is sent with fewer records, before compression: rows
/// with long dimensions must stay below every server's limit.
const BATCH_BYTES_MAX: usize = 512 * 1024;

/// How request bodies are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Compression {
    /// Not at all.
    None,
    /// `Content-Encoding: gzip`.
    Gzip,
    /// `Content-Encoding: zstd`.
    Zstd,
}

/// One request's body.
#[derive(Debug)]
pub(super) struct Batch {
    /// NDJSON, compressed as asked.
    pub(super) body: Bytes,
    /// Lines in it.
    pub(super) records: u32,
    /// When its records were meant to be sent, with how many each.
    pub(super) due: Vec<(Instant, u32)>,
}

/// Gathers lines.
#[derive(Debug)]
pub(super) struct Batcher {
    body: Vec<u8>,
    records: u32,
    due: Vec<(Instant, u32)>,
    compression: Compression,
}

impl Batcher {
    pub(super) fn new(compression: Compression) -> Self {
        Self { body: Vec::new(), records: 0, due: Vec::new(), compression }
    }

    /// The body, to write one more line to before [`Batcher::added`].
    pub(super) fn body(&mut self) -> &mut Vec<u8> {
        &mut self.body
    }

    /// Counts the line just written; `due` is when it should be sent, if not at once.
    pub(super) fn added(&mut self, due: Option<Instant>) {
        self.records += 1;
        let Some(due) = due else { return };
        match self.due.last_mut() {
            Some((last, records)) if *last == due => *records += 1,
            _ => self.due.push((due, 1)),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.records >= BATCH_RECORDS_MAX || self.body.len() >= BATCH_BYTES_MAX
    }

    /// When the oldest line was due, if any line waits.
    pub(super) fn oldest_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// What has been gathered; `None` when that is nothing. Lines without a due time
    /// of their own are due now.
    ///
    /// # Errors
    /// When compression fails.
    pub(super) fn finish(&mut self) -> io::Result<Option<Batch>> {
        if self.records == 0 {
            return Ok(None);
        }
        let capacity = self.body.len() + 1024;
        let text = std::mem::replace(&mut self.body, Vec::with_capacity(capacity));
        let records = std::mem::take(&mut self.records);
        let mut due = std::mem::take(&mut self.due);
        let body = compress(text, self.compression)?;
        if due.is_empty() {
            due.push((Instant::now(), records));
        }
        Ok(Some(Batch { body: body.into(), records, due }))
    }
}

fn compress(text: Vec<u8>, compression: Compression) -> io::Result<Vec<u8>> {
    match compression {
        Compression::None => Ok(text),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&text)?;
            encoder.finish()
        }
        // Level 1: a load tool spends its processor on records.
        Compression::Zstd => zstd::bulk::compress(&text, 1),
    }
}
