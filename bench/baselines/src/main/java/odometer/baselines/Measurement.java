package odometer.baselines;

import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.util.Locale;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;

/**
 * The clock of one run: it starts with the first record and stops when all are committed.
 *
 * <p>Start of the process, joining the group and preparing tables are not in it; warming up is.
 * CPU time is that of this whole process (collector, compiler and RocksDB included), without
 * the broker and the database.
 */
final class Measurement {
  /** A run that does not move for so long will not end by itself. */
  private static final long STALL_MS_MAX = 60_000;
  private static final long LOOK_MS = 10;

  /** How many records are not committed yet. */
  interface Left {
    long count() throws Exception;
  }

  private final AtomicBoolean hasBegun = new AtomicBoolean();
  private final AtomicReference<Throwable> failure = new AtomicReference<>();
  private volatile long beganNs;
  private volatile long cpuBeganNs;

  /** To be called with each record or batch; the first call counts. */
  void begin() {
    if (!hasBegun.get() && hasBegun.compareAndSet(false, true)) {
      cpuBeganNs = cpuNs();
      beganNs = System.nanoTime();
    }
  }

  /** Ends the run with an error. */
  void fail(Throwable error) {
    failure.compareAndSet(null, error);
  }

  /** Waits until nothing is left and gives back the line to print, up to the sums. */
  String await(String baseline, long records, Left left) throws Exception {
    long before = -1;
    long movedNs = System.nanoTime();
    for (long now = left.count(); now > 0; now = left.count()) {
      if (failure.get() != null) {
        throw new IllegalStateException(baseline + " failed", failure.get());
      }
      if (now != before) {
        before = now;
        movedNs = System.nanoTime();
      } else if (System.nanoTime() - movedNs > STALL_MS_MAX * 1_000_000) {
        throw new IllegalStateException(baseline + " stands still with " + now + " records left");
      }
      Thread.sleep(LOOK_MS);
    }
    double elapsedS = (System.nanoTime() - beganNs) / 1e9;
    double cpuS = (cpuNs() - cpuBeganNs) / 1e9;
    return String.format(Locale.ROOT,
        "{\"baseline\": \"%s\", \"records\": %d, \"elapsed_s\": %.3f, \"records_per_s\": %.0f, \"cpu_s\": %.3f",
        baseline, records, elapsedS, records / elapsedS, cpuS);
  }

  /** Prints the line; sums that are not exact make the process fail. */
  static void report(String line, boolean isExact) {
    System.out.println(line + ", \"is_exact\": " + isExact + "}");
    System.exit(isExact ? 0 : 1);
  }

  /** One thread a core: the tasks of both baselines can be spread over so many. */
  static int threads() {
    return Runtime.getRuntime().availableProcessors();
  }

  private static long cpuNs() {
    return ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime();
  }
}
