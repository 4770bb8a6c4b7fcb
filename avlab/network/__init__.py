"""What networks do to packets, and the answers. Pure."""
