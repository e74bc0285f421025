package odometer.baselines;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;

/** A tenant's sums by meter, as they are kept in the state store. */
final class MeterSums {
  private MeterSums() {}

  static Serde<Map<String, Long>> serde() {
    return Serdes.serdeFrom((topic, sums) -> write(sums), (topic, bytes) -> read(bytes));
  }

  /** For each meter the length of its name, the name, and the sum. */
  private static byte[] write(Map<String, Long> sums) {
    if (sums == null) {
      return null;
    }
    byte[][] names = new byte[sums.size()][];
    int bytes = 0;
    int at = 0;
    for (String meter : sums.keySet()) {
      names[at] = meter.getBytes(StandardCharsets.UTF_8);
      bytes += Short.BYTES + names[at++].length + Long.BYTES;
    }
    ByteBuffer out = ByteBuffer.allocate(bytes);
    at = 0;
    for (long sum : sums.values()) {
      out.putShort((short) names[at].length).put(names[at++]).putLong(sum);
    }
    return out.array();
  }

  private static Map<String, Long> read(byte[] bytes) {
    if (bytes == null) {
      return null;
    }
    Map<String, Long> sums = new HashMap<>();
    ByteBuffer in = ByteBuffer.wrap(bytes);
    while (in.hasRemaining()) {
      int length = in.getShort();
      String meter = new String(bytes, in.position(), length, StandardCharsets.UTF_8);
      in.position(in.position() + length);
      sums.put(meter, in.getLong());
    }
    return sums;
  }
}
