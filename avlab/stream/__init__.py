"""Threads, sockets and clocks: the only floor that waits."""
