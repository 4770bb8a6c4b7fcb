"""The classic wire, the tutorial's own: both ends of it."""
