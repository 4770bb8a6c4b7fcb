"""What was seen: the record of a run, and the numbers folded from it. Pure."""
