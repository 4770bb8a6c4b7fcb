"""Payload formats of RTP, a file each: what a picture or a chunk of sound is on the wire. Pure."""
