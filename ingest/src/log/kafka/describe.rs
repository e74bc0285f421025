//! Asks the cluster about one topic: its id and its partitions' leaders. The safe
//! bindings do not offer this request, so librdkafka is called directly; every
//! object is owned by a guard that gives it back.
#![expect(unsafe_code, reason = "rdkafka has no safe call for DescribeTopics, which alone tells the topic's id")]

use std::ffi::{CStr, CString, c_char};

use rdkafka::ClientContext;
use rdkafka::bindings as sys;
use rdkafka::client::Client;

use super::client::{KafkaOptions, REQUEST_TIMEOUT, failed_with};
use super::guard::Guard;
use crate::log::LogError;

const DOING: &str = "describing the topic";
/// Room for librdkafka's error texts, as its own examples have it.
const ERROR_BYTES: usize = 512;
/// The base64 text of a topic id of zero: what brokers before 2.8 answer.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// What the cluster says about a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TopicDescription {
    /// The topic's id, in base64 as Kafka's own tools print it.
    pub(super) id: String,
    pub(super) partitions: u32,
    /// Partitions that nobody leads at the moment.
    pub(super) leaderless: u32,
}

/// `None` when there is no such topic.
pub(super) fn describe<C: ClientContext>(
    client: &Client<C>,
    options: &KafkaOptions,
) -> Result<Option<TopicDescription>, LogError> {
    let event = request(client, &options.topic)?;
    // SAFETY: the event is alive; what is read from it is copied before it goes.
    unsafe {
        let error = sys::rd_kafka_event_error(event.as_ptr());
        if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            let reason = text(sys::rd_kafka_event_error_string(event.as_ptr()));
            return Err(failed_with(DOING, format!("the brokers at {} do not answer: {reason}", options.brokers)));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event.as_ptr());
        if result.is_null() {
            return Err(failed_with(DOING, "librdkafka answered something else"));
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if topics.is_null() || count != 1 {
            return Err(failed_with(DOING, format!("{count} topics were described instead of one")));
        }
        read(*topics)
    }
}

fn request<C: ClientContext>(client: &Client<C>, topic: &str) -> Result<Guard<sys::rd_kafka_event_t>, LogError> {
    let name = CString::new(topic).map_err(|_| failed_with(DOING, "the topic's name holds a zero byte"))?;
    let mut names = [name.as_ptr()];
    let timeout_ms = i32::try_from(REQUEST_TIMEOUT.as_millis()).unwrap_or(i32::MAX);
    let rk = client.native_ptr();
    // SAFETY: the client outlives this call; names, options and queue live until the
    // answer is there, and librdkafka copies what it keeps.
    unsafe {
        let missing = || failed_with(DOING, "librdkafka gave no object");
        let queue = Guard::new(sys::rd_kafka_queue_new(rk), sys::rd_kafka_queue_destroy).ok_or_else(missing)?;
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let topics = Guard::new(topics, sys::rd_kafka_TopicCollection_destroy).ok_or_else(missing)?;
        let kind = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = sys::rd_kafka_AdminOptions_new(rk, kind);
        let options = Guard::new(options, sys::rd_kafka_AdminOptions_destroy).ok_or_else(missing)?;
        let mut reason: [c_char; ERROR_BYTES] = [0; ERROR_BYTES];
        let set = sys::rd_kafka_AdminOptions_set_request_timeout(
            options.as_ptr(),
            timeout_ms,
            reason.as_mut_ptr(),
            reason.len(),
        );
        if set != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(failed_with(DOING, text(reason.as_ptr())));
        }
        sys::rd_kafka_DescribeTopics(rk, topics.as_ptr(), options.as_ptr(), queue.as_ptr());
        // librdkafka answers within its own time-out; the longer wait here is a backstop.
        let event = sys::rd_kafka_queue_poll(queue.as_ptr(), timeout_ms.saturating_mul(2));
        Guard::new(event, sys::rd_kafka_event_destroy).ok_or_else(|| failed_with(DOING, "no answer came"))
    }
}

/// # Safety
/// `description` must belong to an event that is alive.
unsafe fn read(description: *const sys::rd_kafka_TopicDescription_t) -> Result<Option<TopicDescription>, LogError> {
    // SAFETY: as demanded of the caller; librdkafka gives valid arrays with their counts.
    unsafe {
        let error = sys::rd_kafka_TopicDescription_error(description);
        if !error.is_null() {
            let code = sys::rd_kafka_error_code(error);
            if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART {
                return Ok(None);
            }
            if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(failed_with(DOING, text(sys::rd_kafka_error_string(error))));
            }
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(description);
        let id = if id.is_null() { String::new() } else { text(sys::rd_kafka_Uuid_base64str(id)) };
        if id.is_empty() || id == NO_ID {
            return Err(failed_with(DOING, "the brokers tell no topic id; Kafka 2.8 or newer is needed"));
        }
        let mut count = 0;
        let partitions = sys::rd_kafka_TopicDescription_partitions(description, &raw mut count);
        let mut leaderless = 0;
        for at in 0..count {
            let leader = sys::rd_kafka_TopicPartitionInfo_leader(*partitions.add(at));
            leaderless += u32::from(leader.is_null() || sys::rd_kafka_Node_id(leader) < 0);
        }
        let partitions = u32::try_from(count).map_err(|_| failed_with(DOING, format!("{count} partitions")))?;
        Ok(Some(TopicDescription { id, partitions, leaderless }))
    }
}

/// # Safety
/// `pointer` is null or points to a text that ends in zero.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: as demanded of the caller.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
