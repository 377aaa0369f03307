"""What crosses the bus: messages, subjects, streams and the job lifecycle. No I/O lives here."""
