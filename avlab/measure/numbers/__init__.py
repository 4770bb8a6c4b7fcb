"""Figures folded from a trace: one fold for each."""
