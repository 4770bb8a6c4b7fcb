"""What passes through a relay: sessions, and the messages that are rewritten on the way."""
