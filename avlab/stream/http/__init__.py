"""The http wire: pictures as JPEG in parts (RFC 2046), and a page that shows them, plays the sound and has numbers."""
