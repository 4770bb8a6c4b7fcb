"""Streams without RTSP: a description says where RTP goes, and nobody is asked for anything."""
