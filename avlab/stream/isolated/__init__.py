"""A server in a process of its own, behind the same handle."""
