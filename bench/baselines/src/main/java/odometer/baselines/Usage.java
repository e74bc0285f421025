package odometer.baselines;

/** What a sum needs of one record; the rest of the JSON is skipped. */
record Usage(String tenant, String meter, long quantity, long timeMs) {
  static final long HOUR_MS = 3_600_000;

  /** What one sum is of. */
  record Slot(String tenant, String meter, long hourMs) {}

  Slot slot() {
    return new Slot(tenant, meter, timeMs - Math.floorMod(timeMs, HOUR_MS));
  }
}
