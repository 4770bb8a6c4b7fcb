"""Captures of packets: pcap and pcapng files, and the traces of RTP that are made of them."""
