"""The default wire, RTSP and RTP (RFC 2326, RFC 3550): signalling and sockets of both ends."""
