package odometer.baselines;

import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import odometer.baselines.Usage.Slot;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.QueryableStoreTypes;
import org.apache.kafka.streams.state.ReadOnlyWindowStore;
import org.apache.kafka.streams.state.WindowStore;

/**
 * Baseline: Kafka Streams sums per tenant, meter and hour of the event's time, exactly once, its
 * state in RocksDB with a changelog topic.
 *
 * <p>It does NOT look at ids: a record that was sent twice counts twice. It keeps no raw records,
 * proves nothing, and its sums are only in its own state: nothing is written to a result topic
 * or a database. Records later than {@link #GRACE} are dropped.
 */
public final class StreamsSums {
  private static final String STORE = "usage";
  private static final Duration WINDOW = Duration.ofMillis(Usage.HOUR_MS);
  private static final Duration GRACE = Duration.ofDays(1);

  private StreamsSums() {}

  /** Arguments: BROKERS TOPIC LEDGER STATE_DIRECTORY. */
  public static void main(String[] args) throws Exception {
    String topic = args[1];
    String group = topic + "-streams";
    Measurement measurement = new Measurement();
    try (Admin admin = Admin.create(Map.of("bootstrap.servers", args[0]));
        var streams = new KafkaStreams(topology(topic, measurement), options(args[0], group, args[3]))) {
      long records = Offsets.ends(admin, topic).values().stream().mapToLong(Long::longValue).sum();
      streams.setUncaughtExceptionHandler(error -> {
        measurement.fail(error);
        return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
      });
      streams.start();
      // Offsets are committed in the transaction that makes the sums durable.
      String line = measurement.await("kafka-streams", records,
          () -> records - Offsets.committed(admin, group, topic));
      boolean isExact = Ledger.read(Path.of(args[2])).equals(sums(streams));
      streams.close();
      Measurement.report(line, isExact);
    }
  }

  /**
   * Messages are keyed by tenant, so a tenant's meters are kept as one value below that key.
   * Grouping by tenant and meter would write every record to a repartition topic and read it
   * again.
   */
  private static Topology topology(String topic, Measurement measurement) {
    Deserializer<Usage> fromJson = (name, message) -> READER.get().deserialize(name, message);
    var usage = Serdes.serdeFrom((name, unused) -> null, fromJson);
    var source = Consumed.with(Serdes.String(), usage).withTimestampExtractor((record, streamTime) -> {
      measurement.begin();
      return ((Usage) record.value()).timeMs();
    });
    StreamsBuilder builder = new StreamsBuilder();
    builder.stream(topic, source)
        .groupByKey()
        .windowedBy(TimeWindows.ofSizeAndGrace(WINDOW, GRACE))
        .aggregate(HashMap::new, StreamsSums::add,
            Materialized.<String, Map<String, Long>, WindowStore<Bytes, byte[]>>as(STORE)
                .withKeySerde(Serdes.String())
                .withValueSerde(MeterSums.serde())
                .withRetention(WINDOW.plus(GRACE))
                .withCachingEnabled());
    return builder.build();
  }

  /** A serde is shared by all threads of Kafka Streams, a reader is not. */
  private static final ThreadLocal<UsageReader> READER = ThreadLocal.withInitial(UsageReader::new);

  private static Map<String, Long> add(String tenant, Usage usage, Map<String, Long> sums) {
    sums.merge(usage.meter(), usage.quantity(), Math::addExact);
    return sums;
  }

  private static Properties options(String brokers, String group, String directory) {
    Properties options = new Properties();
    options.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
    options.put(StreamsConfig.APPLICATION_ID_CONFIG, group);
    options.put(StreamsConfig.STATE_DIR_CONFIG, directory);
    options.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    options.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, Measurement.threads());
    // As long as in the other baseline. The default, 100 ms, writes each hot sum ten times as often.
    options.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1000);
    // Holds all sums of the open hour, so that RocksDB and the changelog see one write a commit.
    options.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256L * 1024 * 1024);
    options.put(StreamsConfig.ROCKSDB_CONFIG_SETTER_CLASS_CONFIG, RocksDbOptions.class);
    // More than one poll gives; with the default of 1,000 each poll would pause its partitions.
    options.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 20_000);
    options.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
    options.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 10_000);
    options.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG), 8 * 1024 * 1024);
    options.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.RECEIVE_BUFFER_CONFIG), 1024 * 1024);
    options.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 * 1024);
    options.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
    return options;
  }

  private static Map<Slot, Long> sums(KafkaStreams streams) {
    ReadOnlyWindowStore<String, Map<String, Long>> store =
        streams.store(StoreQueryParameters.fromNameAndType(STORE, QueryableStoreTypes.windowStore()));
    Map<Slot, Long> sums = new HashMap<>();
    try (KeyValueIterator<Windowed<String>, Map<String, Long>> all = store.all()) {
      while (all.hasNext()) {
        KeyValue<Windowed<String>, Map<String, Long>> entry = all.next();
        Windowed<String> window = entry.key;
        entry.value.forEach((meter, sum) ->
            sums.put(new Slot(window.key(), meter, window.window().start()), sum));
      }
    }
    return sums;
  }
}
