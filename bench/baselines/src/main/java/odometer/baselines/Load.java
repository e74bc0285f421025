package odometer.baselines;

import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Instant;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.UUID;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import odometer.baselines.Usage.Slot;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Creates a topic, fills it with usage, one JSON record a message keyed by tenant, and writes
 * the exact sums. Not part of any measurement.
 *
 * <p>The usage is that of odometer-bench: one event is one model call of one tenant within the
 * last second and makes three records, one a meter, with one id.
 */
public final class Load {
  private static final int PARTITIONS = 4;
  private static final String[] METERS = {"llm.prompt_tokens", "llm.generated_tokens", "api_call"};
  private static final String[] MODELS = {"large", "medium", "small", "embedding"};
  private static final int AGE_MS_MAX = 1000;
  private static final int TOKENS_MAX = 5000;

  private final SplittableRandom random = new SplittableRandom();
  private final Map<Slot, Long> sums = new HashMap<>();
  private final AtomicLong stored = new AtomicLong();
  private final AtomicReference<Exception> failure = new AtomicReference<>();

  /** Arguments: BROKERS TOPIC RECORDS TENANTS LEDGER. */
  public static void main(String[] args) throws Exception {
    String topic = args[1];
    long records = Long.parseLong(args[2]);
    Map<String, Object> brokers = Map.of("bootstrap.servers", args[0]);
    try (Admin admin = Admin.create(brokers)) {
      // The broker's default replication; nothing may expire between two baselines.
      NewTopic wanted = new NewTopic(topic, Optional.of(PARTITIONS), Optional.empty())
          .configs(Map.of("retention.ms", "-1"));
      admin.createTopics(List.of(wanted)).all().get();
    }
    Load load = new Load();
    load.fill(brokers, topic, records, Integer.parseInt(args[3]));
    Ledger.write(Path.of(args[4]), load.sums);
  }

  private void fill(Map<String, Object> brokers, String topic, long records, int tenants) {
    Map<String, Object> options = new HashMap<>(brokers);
    // acks=all and idempotence are the defaults. Full batches, so that readers get large ones.
    options.put(ProducerConfig.COMPRESSION_TYPE_CONFIG, "lz4");
    options.put(ProducerConfig.BATCH_SIZE_CONFIG, 256 * 1024);
    options.put(ProducerConfig.LINGER_MS_CONFIG, 50);
    options.put(ProducerConfig.BUFFER_MEMORY_CONFIG, 128 * 1024 * 1024);
    try (var producer = new KafkaProducer<>(options, new StringSerializer(), new ByteArraySerializer())) {
      String common = "";
      String tenant = "";
      long timeMs = 0;
      for (long number = 0; number < records && failure.get() == null; number++) {
        String meter = METERS[(int) (number % METERS.length)];
        if (number % METERS.length == 0) {
          tenant = "tenant-" + random.nextInt(tenants);
          timeMs = System.currentTimeMillis() - random.nextInt(AGE_MS_MAX);
          common = common(tenant, timeMs);
        }
        long quantity = meter.equals("api_call") ? 1 : 1 + random.nextInt(TOKENS_MAX);
        String json = "{\"meter\":\"" + meter + "\",\"quantity\":" + quantity + common;
        var message = new ProducerRecord<>(topic, tenant, json.getBytes(StandardCharsets.UTF_8));
        producer.send(message, (place, error) -> {
          if (error == null) {
            stored.incrementAndGet();
          } else {
            failure.compareAndSet(null, error);
          }
        });
        sums.merge(new Usage(tenant, meter, quantity, timeMs).slot(), quantity, Math::addExact);
      }
    }
    if (failure.get() != null || stored.get() != records) {
      throw new IllegalStateException("stored " + stored + " of " + records + " records", failure.get());
    }
  }

  /** The end of the JSON that the records of one event share. No text needs escapes. */
  private String common(String tenant, long timeMs) {
    long high = random.nextLong() & ~0xF000L | 0x4000L;
    long low = random.nextLong() & ~(3L << 62) | 1L << 63;
    String model = MODELS[random.nextInt(MODELS.length)];
    return ",\"tenant\":\"" + tenant + "\",\"source\":\"agent-worker\",\"id\":\"" + new UUID(high, low)
        + "\",\"time\":\"" + Instant.ofEpochMilli(timeMs)
        + "\",\"dimensions\":{\"model\":\"" + model + "\"}}";
  }
}
