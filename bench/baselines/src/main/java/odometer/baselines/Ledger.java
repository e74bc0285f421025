package odometer.baselines;

import java.io.BufferedWriter;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.stream.Stream;
import odometer.baselines.Usage.Slot;

/** The exact sums of what was loaded, kept in a file of tab-separated lines. */
final class Ledger {
  private Ledger() {}

  static void write(Path file, Map<Slot, Long> sums) throws IOException {
    try (BufferedWriter out = Files.newBufferedWriter(file)) {
      for (Map.Entry<Slot, Long> sum : sums.entrySet()) {
        Slot slot = sum.getKey();
        out.write(slot.tenant() + "\t" + slot.meter() + "\t" + slot.hourMs() + "\t" + sum.getValue() + "\n");
      }
    }
  }

  static Map<Slot, Long> read(Path file) throws IOException {
    Map<Slot, Long> sums = new HashMap<>();
    try (Stream<String> lines = Files.lines(file)) {
      lines.map(line -> line.split("\t")).forEach(parts ->
          sums.put(new Slot(parts[0], parts[1], Long.parseLong(parts[2])), Long.parseLong(parts[3])));
    }
    return sums;
  }
}
