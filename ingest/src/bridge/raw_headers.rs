//! A message's headers as bytes. The safe bindings panic on a name that is not
//! UTF-8, and names come from foreign producers; so they are read from librdkafka.
#![expect(unsafe_code, reason = "rdkafka's own header iterator panics on names that are not UTF-8")]

use std::ffi::CStr;
use std::ptr;

use rdkafka::bindings as sys;
use rdkafka::message::BorrowedMessage;

/// One header: its name, and its value unless that is null.
pub(super) type RawHeader = (Vec<u8>, Option<Vec<u8>>);

/// All headers of a message, in order.
pub(super) fn raw_headers(message: &BorrowedMessage<'_>) -> Vec<RawHeader> {
    let mut found = Vec::new();
    let mut headers = ptr::null_mut();
    // SAFETY: the message is alive while it is borrowed; the list belongs to it.
    let answer = unsafe { sys::rd_kafka_message_headers(message.ptr(), &raw mut headers) };
    if answer != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || headers.is_null() {
        return found;
    }
    loop {
        let (mut name, mut value, mut bytes) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the list is alive as above, and the places written to are our own.
        let answer = unsafe {
            sys::rd_kafka_header_get_all(headers, found.len(), &raw mut name, &raw mut value, &raw mut bytes)
        };
        if answer != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
            return found;
        }
        // SAFETY: librdkafka ends names in zero and gives values with their length; both
        // are copied while the message is alive.
        found.push(unsafe {
            let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), bytes).to_vec());
            (CStr::from_ptr(name).to_bytes().to_vec(), value)
        });
    }
}
