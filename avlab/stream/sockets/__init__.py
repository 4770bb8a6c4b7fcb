"""Sockets that carry packets and connections, however the system has them."""
