//! Numbered messages stand in their topic once, whoever writes them.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::time::{Duration, Instant};

use odometer_ingest::log::kafka::{KafkaOptions, NUMBER_HEADER, Numbered, NumberedTopic};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};

use crate::support::{PATIENCE, brokers, delete_topic, new_options, topic_options};

/// A topic that goes when this does.
struct Topic(KafkaOptions);

impl Topic {
    fn new() -> Self {
        let options = new_options();
        assert!(NumberedTopic::create(&options, &topic_options(2)).unwrap());
        assert!(!NumberedTopic::create(&options, &topic_options(2)).unwrap());
        Self(options)
    }

    fn writer(&self) -> NumberedTopic {
        NumberedTopic::new(self.0.clone(), "log-1")
    }

    /// The numbers in the topic, as readers see them that take what is committed.
    fn numbers(&self) -> Vec<(i32, u64)> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers())
            .set("group.id", &self.0.topic)
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        consumer.subscribe(&[&self.0.topic]).unwrap();
        let (mut numbers, mut ended, started) = (Vec::new(), 0, Instant::now());
        while ended < 2 {
            match consumer.poll(Duration::from_millis(100)) {
                None => assert!(started.elapsed() < PATIENCE, "the topic has an end"),
                Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
                Some(message) => {
                    let message = message.unwrap();
                    let number = message.headers().unwrap().iter().find(|header| header.key == NUMBER_HEADER).unwrap();
                    let number = std::str::from_utf8(number.value.unwrap()).unwrap().parse().unwrap();
                    numbers.push((message.partition(), number));
                }
            }
        }
        numbers.sort_by_key(|(partition, _)| *partition);
        numbers
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        delete_topic(&self.0.topic);
    }
}

fn messages(numbers: impl IntoIterator<Item = u64>) -> Vec<Numbered> {
    let message = |number: u64| Numbered {
        number,
        key: "acme".into(),
        payload: number.to_string().into_bytes(),
        content_type: "text/plain",
    };
    numbers.into_iter().map(message).collect()
}

#[test]
fn each_number_is_there_once_whoever_writes() {
    let topic = Topic::new();
    let (mut first, mut second) = (topic.writer(), topic.writer());
    first.publish(0, &messages([5, 7])).unwrap();
    first.publish(1, &messages([0])).unwrap();
    second.publish(0, &messages([5, 7, 9])).unwrap();
    // Shut out; a second attempt takes the partition back and finds where it stands.
    first.publish(0, &messages([7, 9, 11])).unwrap_err();
    first.publish(0, &messages([7, 9, 11])).unwrap();
    first.publish(1, &messages([0, 1 << 40])).unwrap();
    second.publish(1, &messages([1 << 40])).unwrap();
    assert_eq!(topic.numbers(), [(0, 5), (0, 7), (0, 9), (0, 11), (1, 0), (1, 1 << 40)]);
}

#[test]
fn the_last_number_is_found_behind_many_transactions() {
    let topic = Topic::new();
    let mut writer = topic.writer();
    for number in 0..150 {
        writer.publish(0, &messages([number])).unwrap();
    }
    topic.writer().publish(0, &messages(0..151)).unwrap();
    let expected: Vec<_> = (0..151).map(|number| (0, number)).collect();
    assert_eq!(topic.numbers(), expected);
}

#[test]
fn two_may_number_in_one_topic() {
    let topic = Topic::new();
    let mut other = NumberedTopic::new(topic.0.clone(), "log-2");
    other.publish(0, &messages([100])).unwrap();
    topic.writer().publish(0, &messages([1])).unwrap();
    other.publish(0, &messages([101])).unwrap();
    assert_eq!(topic.numbers(), [(0, 100), (0, 1), (0, 101)]);
}
