"""What the bytes are. Pure: bytes and values in, values and bytes out."""
