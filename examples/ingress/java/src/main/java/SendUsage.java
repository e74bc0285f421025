import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Sends usage to the ingress topic from Java, in each content mode of CloudEvents.
 *
 * <pre>
 * mvn -q compile exec:java -Dexec.args="--brokers 127.0.0.1:9092 --topic odometer.ingress --count 3"
 * </pre>
 */
public final class SendUsage {
    private static final String TENANT = "acme";

    /** One fact. Its id and time stay with it however often it is sent. */
    private record Usage(String id, String time, String data) {
        static Usage number(int number) {
            String data = "{\"prompt_tokens\":%d,\"generated_tokens\":10,\"model\":\"m-1\"}".formatted(100 + number);
            return new Usage(UUID.randomUUID().toString(), Instant.now().truncatedTo(ChronoUnit.MILLIS).toString(), data);
        }

        String json() {
            return ("{\"specversion\":\"1.0\",\"id\":\"%s\",\"source\":\"/examples/java\",\"type\":\"odometer.llm\","
                    + "\"time\":\"%s\",\"tenant\":\"%s\",\"data\":%s}").formatted(id, time, TENANT, data);
        }

        Map<String, String> attributes() {
            return Map.of("ce_specversion", "1.0", "ce_id", id, "ce_source", "/examples/java", "ce_type", "odometer.llm",
                    "ce_time", time, "ce_tenant", TENANT);
        }
    }

    /** The whole event is the message. */
    private static ProducerRecord<String, String> structured(String topic, Usage usage) {
        return message(topic, "application/cloudevents+json", Map.of(), usage.json());
    }

    /** The data is the message, the attributes are headers. */
    private static ProducerRecord<String, String> binary(String topic, Usage usage) {
        return message(topic, "application/json", usage.attributes(), usage.data());
    }

    /** Several events are one message. */
    private static ProducerRecord<String, String> batch(String topic, List<Usage> usages) {
        String events = String.join(",", usages.stream().map(Usage::json).toList());
        return message(topic, "application/cloudevents-batch+json", Map.of(), "[" + events + "]");
    }

    private static ProducerRecord<String, String> message(
            String topic, String contentType, Map<String, String> headers, String value) {
        ProducerRecord<String, String> message = new ProducerRecord<>(topic, TENANT, value);
        message.headers().add("content-type", contentType.getBytes(StandardCharsets.UTF_8));
        headers.forEach((name, text) -> message.headers().add(name, text.getBytes(StandardCharsets.UTF_8)));
        return message;
    }

    private static String option(List<String> args, String name, String otherwise) {
        int at = args.indexOf(name);
        return at < 0 ? otherwise : args.get(at + 1);
    }

    /** Sends, and waits until the broker has confirmed everything. */
    public static void main(String[] words) throws Exception {
        List<String> args = List.of(words);
        String topic = option(args, "--topic", "odometer.ingress");
        int count = Integer.parseInt(option(args, "--count", "3"));
        Map<String, Object> settings = Map.of(
                ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, option(args, "--brokers", "127.0.0.1:9092"),
                ProducerConfig.ACKS_CONFIG, "all",
                ProducerConfig.ENABLE_IDEMPOTENCE_CONFIG, true);

        List<Future<RecordMetadata>> answers = new ArrayList<>();
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            List<Usage> batch = new ArrayList<>();
            for (int number = 0; number < count; number++) {
                answers.add(producer.send(structured(topic, Usage.number(number))));
                answers.add(producer.send(binary(topic, Usage.number(number))));
                batch.add(Usage.number(number));
            }
            answers.add(producer.send(batch(topic, batch)));
            for (Future<RecordMetadata> answer : answers) {
                answer.get();
            }
        }
        System.out.printf("sent %d events in %d messages to %s%n", 3 * count, answers.size(), topic);
    }
}
