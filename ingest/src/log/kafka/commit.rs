//! Commits offsets of a group and waits for the answer, but not for ever: the client's
//! own synchronous commit waits for as long as there is no coordinator, and its
//! asynchronous one tells nobody what became of it.
#![expect(unsafe_code, reason = "rdkafka has no safe call for a commit that is answered to a queue")]

use std::ptr;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{IsError, KafkaError, KafkaResult, RDKafkaErrorCode};

use super::guard::Guard;

/// Commits the offsets of `list` for the group of `consumer`.
///
/// # Errors
/// What the coordinator answered; [`RDKafkaErrorCode::OperationTimedOut`] when nothing
/// came in time, in which case it may still be committed later.
pub(crate) fn commit_within<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    list: &TopicPartitionList,
    timeout: Duration,
) -> KafkaResult<()> {
    let failed = |code: RDKafkaErrorCode| KafkaError::ConsumerCommit(code);
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let rk = consumer.client().native_ptr();
    // SAFETY: consumer and list outlive this call, the queue lives until the answer is
    // there; librdkafka copies the list and counts its own references to the queue.
    unsafe {
        let queue = Guard::new(sys::rd_kafka_queue_new(rk), sys::rd_kafka_queue_destroy);
        let queue = queue.ok_or_else(|| failed(RDKafkaErrorCode::Fail))?;
        let sent = sys::rd_kafka_commit_queue(rk, list.ptr(), queue.as_ptr(), None, ptr::null_mut());
        if sent.is_error() {
            return Err(failed(sent.into()));
        }
        let event = sys::rd_kafka_queue_poll(queue.as_ptr(), timeout_ms);
        let event = Guard::new(event, sys::rd_kafka_event_destroy);
        let event = event.ok_or_else(|| failed(RDKafkaErrorCode::OperationTimedOut))?;
        let answer = sys::rd_kafka_event_error(event.as_ptr());
        if answer.is_error() { Err(failed(answer.into())) } else { Ok(()) }
    }
}
