"""What was seen: tables, the trace, two sides joined, and the file that a trace is saved in."""
