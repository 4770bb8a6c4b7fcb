"""The two machines that a stream is: bytes and moments go in, bytes and events come out. No socket, thread or clock."""
