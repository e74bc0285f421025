package odometer.baselines;

import java.nio.file.Path;
import java.sql.Connection;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
import odometer.baselines.Usage.Slot;
import org.apache.kafka.clients.admin.Admin;

/**
 * Baseline: a consumer group that upserts sums per tenant, meter and hour into PostgreSQL, each
 * sum once even after a crash, because the offsets are in the same transaction.
 *
 * <p>It does NOT look at ids: a record that was sent twice counts twice. It keeps no raw records
 * and proves nothing. See {@link PlainConsumerWorker} for the work.
 */
public final class PlainConsumer {
  private static final String TABLES = """
      CREATE SCHEMA "%1$s";
      -- Room in each page, so that an update of `quantity` stays there and touches no index.
      CREATE TABLE "%1$s".usage_totals (
        tenant text NOT NULL, meter text NOT NULL, hour_ms bigint NOT NULL, quantity bigint NOT NULL,
        PRIMARY KEY (tenant, meter, hour_ms)
      ) WITH (fillfactor = 50);
      CREATE TABLE "%1$s".offsets (partition int PRIMARY KEY, next_offset bigint NOT NULL);
      """;

  private PlainConsumer() {}

  /** Arguments: BROKERS POSTGRES_URL TOPIC LEDGER. The schema has the topic's name. */
  public static void main(String[] args) throws Exception {
    String brokers = args[0];
    String url = args[1];
    String topic = args[2];
    long records;
    try (Admin admin = Admin.create(Map.of("bootstrap.servers", brokers))) {
      records = Offsets.ends(admin, topic).values().stream().mapToLong(Long::longValue).sum();
    }
    try (Connection database = Postgres.connect(url); Statement statement = database.createStatement()) {
      statement.execute(TABLES.formatted(topic));
      Measurement measurement = new Measurement();
      AtomicLong left = new AtomicLong(records);
      List<Thread> threads = new ArrayList<>();
      for (int number = 0; number < Measurement.threads(); number++) {
        var worker = new PlainConsumerWorker(brokers, url, topic, measurement, left);
        Thread thread = new Thread(worker, "worker-" + number);
        thread.setDaemon(true);
        thread.start();
        threads.add(thread);
      }
      String line = measurement.await("plain-consumer", records, left::get);
      for (Thread thread : threads) {
        thread.join(); // they leave the group
      }
      Measurement.report(line, Ledger.read(Path.of(args[3])).equals(totals(statement, topic)));
    }
  }

  private static Map<Slot, Long> totals(Statement statement, String schema) throws SQLException {
    Map<Slot, Long> sums = new HashMap<>();
    String query = "SELECT tenant, meter, hour_ms, quantity FROM \"" + schema + "\".usage_totals";
    try (ResultSet row = statement.executeQuery(query)) {
      while (row.next()) {
        sums.put(new Slot(row.getString(1), row.getString(2), row.getLong(3)), row.getLong(4));
      }
    }
    return sums;
  }
}
