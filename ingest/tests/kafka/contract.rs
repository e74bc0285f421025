//! The contract of every log, kept by a real Kafka.

use std::sync::Arc;

use odometer_ingest::log::contract::{self, LogUnderTest, Setup};
use odometer_ingest::log::kafka::{KafkaLog, KafkaOptions};
use odometer_ingest::log::{LogAppender, LogError, LogReader};
use rdkafka::admin::AdminOptions;
use rdkafka::{Offset, TopicPartitionList};

use crate::support::{admin, block_on, delete_topic, new_options, topic_options};

struct Kafka {
    options: KafkaOptions,
    log: Option<KafkaLog>,
}

impl Kafka {
    fn log(&self) -> &KafkaLog {
        self.log.as_ref().expect("the log is open")
    }
}

impl LogUnderTest for Kafka {
    fn appender(&self) -> Arc<dyn LogAppender> {
        self.log().appender()
    }

    fn reader(&self) -> Box<dyn LogReader> {
        Box::new(self.log().reader().expect("a reader opens"))
    }

    fn retain(&self, partition: u32, below_offset: u64) {
        let end = self.reader().bounds(partition).expect("bounds can be asked").end_offset;
        let below = Offset::Offset(i64::try_from(below_offset.min(end)).expect("an offset"));
        let mut list = TopicPartitionList::new();
        let partition = i32::try_from(partition).expect("small");
        list.add_partition_offset(&self.options.topic, partition, below).expect("a valid offset");
        block_on(admin().delete_records(&list, &AdminOptions::new())).expect("retention works");
    }

    fn close(&mut self) {
        self.log.take().expect("the log is open").close().expect("the log closes");
    }

    fn reopen(&mut self, partitions: u32) -> Result<(), LogError> {
        self.log = None;
        KafkaLog::create_topic(&self.options, &topic_options(partitions))?;
        self.log = Some(KafkaLog::open(&self.options)?);
        Ok(())
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.log = None;
        delete_topic(&self.options.topic);
    }
}

#[test]
fn the_contract_of_every_log_is_kept() {
    contract::check(&|setup: Setup| {
        let queue = ("queue.buffering.max.messages".to_owned(), setup.queue_envelopes.to_string());
        let options = KafkaOptions { properties: vec![queue], ..new_options() };
        let mut made = Kafka { options, log: None };
        made.reopen(setup.partitions).expect("a new log opens");
        Box::new(made)
    });
}
