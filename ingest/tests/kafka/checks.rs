//! What is checked before a topic is used as a log.

use odometer_ingest::log::LogError;
use odometer_ingest::log::kafka::{KafkaLog, KafkaOptions};
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};

use crate::support::{Fresh, admin, block_on, delete_topic, new_options, topic_options};

/// Opens a log in a topic with such a configuration, which must fail.
fn refusal(config: &[(&str, &str)]) -> String {
    let options = new_options();
    let topic =
        config.iter().fold(NewTopic::new(&options.topic, 1, TopicReplication::Fixed(1)), |topic, (key, value)| {
            topic.set(key, value)
        });
    for result in block_on(admin().create_topics([&topic], &AdminOptions::new())).expect("an answer") {
        result.expect("the topic is created");
    }
    // Also waits until the whole cluster knows the topic.
    assert!(!KafkaLog::create_topic(&options, &topic_options(1)).expect("it is there"));
    let refused = KafkaLog::open(&options).expect_err("it is not fit for a log");
    delete_topic(&options.topic);
    assert!(matches!(refused, LogError::Mismatch { .. }) && !refused.is_retryable(), "{refused:?}");
    refused.to_string()
}

#[test]
fn an_unfit_topic_is_refused_with_the_command_that_mends_it() {
    let log_append_time = ("message.timestamp.type", "LogAppendTime");
    for (config, key) in [
        (vec![], "message.timestamp.type=LogAppendTime"),
        (vec![log_append_time, ("max.message.bytes", "65535")], "max.message.bytes="),
        (vec![log_append_time, ("cleanup.policy", "compact")], "cleanup.policy=delete"),
    ] {
        let refused = refusal(&config);
        assert!(refused.contains("kafka-configs.sh") && refused.contains(key), "{refused}");
    }
}

#[test]
fn a_topic_that_is_not_there_is_named() {
    let options = new_options();
    let refused = KafkaLog::open(&options).expect_err("there is no such topic").to_string();
    assert!(refused.contains(&options.topic), "{refused}");
}

#[test]
fn brokers_that_are_away_are_named() {
    // Nobody listens on the discard port.
    let options = KafkaOptions { brokers: "127.0.0.1:9".to_owned(), ..new_options() };
    let refused = KafkaLog::open(&options).expect_err("nobody answers");
    assert!(refused.is_retryable(), "{refused:?}");
    let source = std::error::Error::source(&refused).expect("a reason").to_string();
    assert!(source.contains("127.0.0.1:9"), "{source}");
}

#[test]
fn a_log_id_belongs_to_one_topic_for_ever() {
    let first = Fresh::new(1);
    let again = KafkaLog::open(&first.options).expect("it opens again");
    assert_eq!(first.log.log_id(), again.log_id());
    assert_eq!(again.partitions(), 1);
    assert!(!KafkaLog::create_topic(&first.options, &topic_options(1)).expect("it is there"));
    let other = Fresh::new(1);
    assert_ne!(first.log.log_id(), other.log.log_id());
}
