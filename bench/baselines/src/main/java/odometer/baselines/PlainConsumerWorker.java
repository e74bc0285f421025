package odometer.baselines;

import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
import odometer.baselines.Usage.Slot;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * One thread: a consumer and a connection. Sums in memory for at most {@link #COMMIT_MS}, then
 * upserts the sums and moves the offsets in one transaction. Any error ends the run.
 */
final class PlainConsumerWorker implements Runnable, ConsumerRebalanceListener {
  /** As long as in the other baseline. Each row is then written once a second at most. */
  private static final long COMMIT_MS = 1000;
  private static final Duration POLL = Duration.ofMillis(100);

  private static final String FIRST = "INSERT INTO \"%s\".offsets VALUES (?, 0) ON CONFLICT DO NOTHING";
  private static final String NEXT = "SELECT next_offset FROM \"%s\".offsets WHERE partition = ?";
  // Compares, so that a worker which lost the partition without noticing cannot count it again.
  private static final String MOVE =
      "UPDATE \"%s\".offsets SET next_offset = ? WHERE partition = ? AND next_offset = ?";
  // One statement for all sums; tenants are keys, so no two workers want the same row.
  private static final String UPSERT = """
      INSERT INTO "%s".usage_totals AS t (tenant, meter, hour_ms, quantity)
      SELECT * FROM unnest(?::text[], ?::text[], ?::bigint[], ?::bigint[])
      ON CONFLICT (tenant, meter, hour_ms) DO UPDATE SET quantity = t.quantity + excluded.quantity
      """;

  private final String brokers;
  private final String url;
  private final String topic;
  private final Measurement measurement;
  private final AtomicLong left;

  private KafkaConsumer<String, Usage> consumer;
  private Connection database;
  private final Map<Slot, Long> sums = new HashMap<>();
  private final Map<TopicPartition, Long> committed = new HashMap<>();

  /** The schema has the topic's name; `left` counts down as records are committed. */
  PlainConsumerWorker(String brokers, String url, String topic, Measurement measurement, AtomicLong left) {
    this.brokers = brokers;
    this.url = url;
    this.topic = topic;
    this.measurement = measurement;
    this.left = left;
  }

  @Override
  public void run() {
    try (var consumer = new KafkaConsumer<>(options(), new StringDeserializer(), new UsageReader());
        Connection database = Postgres.connect(url)) {
      database.setAutoCommit(false);
      this.consumer = consumer;
      this.database = database;
      consumer.subscribe(List.of(topic), this);
      work();
    } catch (Exception error) {
      measurement.fail(error);
    }
  }

  private Map<String, Object> options() {
    Map<String, Object> options = new HashMap<>();
    options.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
    options.put(ConsumerConfig.GROUP_ID_CONFIG, topic + "-consumer");
    // The database knows the offsets.
    options.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
    options.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "none");
    options.put(ConsumerConfig.MAX_POLL_RECORDS_CONFIG, 50_000);
    options.put(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG, 8 * 1024 * 1024);
    options.put(ConsumerConfig.RECEIVE_BUFFER_CONFIG, 1024 * 1024);
    return options;
  }

  private void work() {
    long committedNs = System.nanoTime();
    while (left.get() > 0) {
      ConsumerRecords<String, Usage> records = consumer.poll(POLL);
      for (ConsumerRecord<String, Usage> record : records) {
        measurement.begin();
        Usage usage = record.value();
        sums.merge(usage.slot(), usage.quantity(), Math::addExact);
      }
      // With nothing more to read there is nothing to wait for.
      if (records.isEmpty() || System.nanoTime() - committedNs >= COMMIT_MS * 1_000_000) {
        commit();
        committedNs = System.nanoTime();
      }
    }
  }

  @Override
  public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
    try (PreparedStatement first = database.prepareStatement(FIRST.formatted(topic));
        PreparedStatement next = database.prepareStatement(NEXT.formatted(topic))) {
      for (TopicPartition partition : partitions) {
        first.setInt(1, partition.partition());
        first.executeUpdate();
        next.setInt(1, partition.partition());
        try (ResultSet row = next.executeQuery()) {
          row.next();
          committed.put(partition, row.getLong(1));
          consumer.seek(partition, row.getLong(1));
        }
      }
      database.commit();
    } catch (SQLException error) {
      throw new IllegalStateException("cannot read where to start", error);
    }
  }

  /** Also when partitions are lost: the comparison of offsets then refuses the commit. */
  @Override
  public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
    commit();
    committed.keySet().removeAll(partitions);
  }

  private void commit() {
    if (sums.isEmpty()) {
      return;
    }
    try {
      long records = moveOffsets();
      upsert();
      database.commit();
      sums.clear();
      left.addAndGet(-records);
    } catch (SQLException error) {
      throw new IllegalStateException("cannot commit", error);
    }
  }

  /** Moves each partition to where the consumer is and gives back how many records that are. */
  private long moveOffsets() throws SQLException {
    long records = 0;
    try (PreparedStatement move = database.prepareStatement(MOVE.formatted(topic))) {
      for (Map.Entry<TopicPartition, Long> entry : committed.entrySet()) {
        long from = entry.getValue();
        long to = consumer.position(entry.getKey());
        move.setLong(1, to);
        move.setInt(2, entry.getKey().partition());
        move.setLong(3, from);
        if (move.executeUpdate() != 1) {
          throw new IllegalStateException(entry.getKey() + " was moved by another worker");
        }
        records += to - from;
        entry.setValue(to);
      }
    }
    return records;
  }

  private void upsert() throws SQLException {
    int rows = sums.size();
    String[] tenants = new String[rows];
    String[] meters = new String[rows];
    Long[] hours = new Long[rows];
    Long[] quantities = new Long[rows];
    int row = 0;
    for (Map.Entry<Slot, Long> sum : sums.entrySet()) {
      tenants[row] = sum.getKey().tenant();
      meters[row] = sum.getKey().meter();
      hours[row] = sum.getKey().hourMs();
      quantities[row] = sum.getValue();
      row++;
    }
    try (PreparedStatement upsert = database.prepareStatement(UPSERT.formatted(topic))) {
      upsert.setArray(1, database.createArrayOf("text", tenants));
      upsert.setArray(2, database.createArrayOf("text", meters));
      upsert.setArray(3, database.createArrayOf("bigint", hours));
      upsert.setArray(4, database.createArrayOf("bigint", quantities));
      upsert.executeUpdate();
    }
  }
}
