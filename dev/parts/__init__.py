"""The real parts that Odometer stands on, started without containers."""
