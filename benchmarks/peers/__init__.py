"""avlab beside its peers: the same pictures on the same machine, one system after the other.

Each system is a module with a `send` and a `receive`, run in processes of their own: one sends, and each receiver is
another. What came is read from the decoded pictures, which carry their number; when it was handed over, and when it was
decoded and copied, stands on a board that all processes share.
"""
