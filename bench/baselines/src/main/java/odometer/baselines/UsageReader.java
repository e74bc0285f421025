package odometer.baselines;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.time.Instant;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.Deserializer;

/**
 * One JSON message in, one {@link Usage} out; an unreadable one is an error.
 *
 * <p>Jackson's streaming parser, which makes no objects for fields that nobody needs. One reader
 * belongs to one thread.
 */
final class UsageReader implements Deserializer<Usage> {
  private static final JsonFactory JSON = new JsonFactory();
  /** Length of `2026-01-31T23:59:`. */
  private static final int MINUTE_CHARS = 17;
  /** Length of `2026-01-31T23:59:58.123Z`. */
  private static final int TIME_CHARS = 24;

  private String minute = "?";
  private long minuteMs;

  @Override
  public Usage deserialize(String topic, byte[] message) {
    String tenant = null;
    String meter = null;
    String time = null;
    Long quantity = null;
    try (JsonParser json = JSON.createParser(message)) {
      expect(json.nextToken() == JsonToken.START_OBJECT, "an object");
      while (json.nextToken() == JsonToken.FIELD_NAME) {
        String name = json.currentName();
        JsonToken token = json.nextToken();
        switch (name) {
          case "tenant" -> tenant = json.getText();
          case "meter" -> meter = json.getText();
          case "time" -> time = json.getText();
          case "quantity" -> {
            expect(token == JsonToken.VALUE_NUMBER_INT, "a whole number as quantity");
            quantity = json.getLongValue();
          }
          default -> json.skipChildren();
        }
      }
    } catch (IOException error) {
      throw new SerializationException("unreadable JSON", error);
    }
    expect(tenant != null && meter != null && time != null && quantity != null,
        "tenant, meter, time and quantity");
    return new Usage(tenant, meter, quantity, timeMs(time));
  }

  /**
   * RFC 3339 to Unix milliseconds. Records of the same minute differ in their last digits only,
   * so `Instant.parse`, which is general and slow, is asked once a minute.
   */
  private long timeMs(String time) {
    boolean isUsual = time.length() == TIME_CHARS && time.charAt(19) == '.' && time.endsWith("Z");
    if (isUsual && time.startsWith(minute)) {
      int seconds = digits(time, MINUTE_CHARS, 19);
      int millis = digits(time, 20, 23);
      if (seconds >= 0 && seconds < 60 && millis >= 0) {
        return minuteMs + seconds * 1000L + millis;
      }
    }
    long parsedMs = Instant.parse(time).toEpochMilli();
    if (isUsual) {
      minute = time.substring(0, MINUTE_CHARS);
      minuteMs = parsedMs - Math.floorMod(parsedMs, 60_000);
    }
    return parsedMs;
  }

  /** The number in `text[from..to]`, or -1 when something else is there. */
  private static int digits(String text, int from, int to) {
    int number = 0;
    for (int at = from; at < to; at++) {
      int digit = text.charAt(at) - '0';
      if (digit < 0 || digit > 9) {
        return -1;
      }
      number = number * 10 + digit;
    }
    return number;
  }

  private static void expect(boolean holds, String what) {
    if (!holds) {
      throw new SerializationException("a record needs " + what);
    }
  }
}
