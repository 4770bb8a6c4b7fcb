"""The virtual driver: the machines of a stream, woken moment by moment, with a network and a sound device in memory."""
