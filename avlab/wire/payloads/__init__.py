"""Payload formats of RTP, a file each: what a picture or a chunk of sound is on the wire. Pure.

`formats` says what a payload format is, and knows them by the names that descriptions have for them.
"""
