"""When things happen. Pure: time comes in as an argument, in integer nanoseconds."""
