//! Quota operations in, one by one as bytes, a control envelope of all of them out: the
//! same bytes as of [`Control::Quota`] with a list, which nobody has to keep meanwhile.

use super::build::encode_into;
use super::frame::{FRAME_BYTES, Head, Kind, Origin, seal};
use crate::control::Control;
use crate::limits::ENVELOPE_BYTES_MAX;
use crate::quota::QuotaOperation;

/// Bytes besides the operations: the frame, the kind of the control record, the epoch and
/// the number of operations, all as long as can be.
const REST_BYTES: usize = FRAME_BYTES + 32;
/// What the first operation makes room for: some hundred of the usual ones.
const USUAL_BYTES: usize = 16 * 1024;

/// Operations of one epoch on their way into the log.
#[derive(Debug)]
pub struct QuotaSheet {
    epoch: u64,
    count: usize,
    operations: Vec<u8>,
}

/// Appends an operation as a [`QuotaSheet`] takes it.
pub fn encode_operation(operation: &QuotaOperation, bytes: &mut Vec<u8>) {
    encode_into(operation, bytes);
}

impl QuotaSheet {
    /// An empty one.
    #[must_use]
    pub fn new(epoch: u64) -> Self {
        Self { epoch, count: 0, operations: Vec::new() }
    }

    /// The epoch of the node that decided.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many operations stand on it.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.count
    }

    /// Whether an operation of so many bytes still fits into the envelope.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        REST_BYTES + self.operations.len() + bytes <= ENVELOPE_BYTES_MAX
    }

    /// Adds an operation that [`encode_operation`] wrote and that there is room for.
    pub fn push(&mut self, operation: &[u8]) {
        if self.operations.is_empty() {
            self.operations.reserve(USUAL_BYTES);
        }
        self.operations.extend_from_slice(operation);
        self.count += 1;
    }

    /// The envelope.
    ///
    /// # Panics
    /// When it is larger than an envelope.
    #[must_use]
    pub fn seal(&self) -> Vec<u8> {
        let (epoch, operations) = (self.epoch, Vec::new());
        let mut body = Vec::with_capacity(REST_BYTES + self.operations.len());
        encode_into(&Control::Quota { epoch, operations }, &mut body);
        // A list is its length and what stands in it: this one is empty so far.
        body.pop();
        encode_into(&(self.count as u64), &mut body);
        body.extend_from_slice(&self.operations);
        seal(Head { kind: Kind::Control, origin: Origin::default(), count: 1 }, &body)
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode_control;
    use super::*;
    use crate::quota::Action;

    #[test]
    fn its_envelope_is_that_of_a_list() {
        let mut sheet = QuotaSheet::new(300);
        let mut operations = Vec::new();
        for number in 0..300_u16 {
            let (tenant, id, at_ms) = (format!("tenant {number}"), "r".repeat(number.into()), i64::from(number));
            let (tenant, id, action) = (tenant.into(), id.into(), Action::Release { op: number.into() });
            operations.push(QuotaOperation { tenant, id, at_ms, action });
            let mut bytes = Vec::new();
            encode_operation(&operations[usize::from(number)], &mut bytes);
            if !sheet.has_room(bytes.len()) {
                operations.pop();
                break;
            }
            sheet.push(&bytes);
            let whole = Control::Quota { epoch: 300, operations: operations.clone() };
            assert_eq!(sheet.seal(), encode_control(&whole, Origin::default()), "{number}");
        }
        assert_eq!(sheet.operations(), operations.len());
    }

    #[test]
    fn a_full_one_still_fits_into_an_envelope() {
        let action = Action::Release { op: 1 };
        let operation = QuotaOperation { tenant: "t".into(), id: "".into(), at_ms: 1, action };
        let (mut sheet, mut bytes) = (QuotaSheet::new(u64::MAX), Vec::new());
        encode_operation(&operation, &mut bytes);
        while sheet.has_room(bytes.len()) {
            sheet.push(&bytes);
        }
        assert!(sheet.seal().len() <= ENVELOPE_BYTES_MAX);
        assert!(sheet.operations() > 256, "the length takes more than a byte");
    }
}
