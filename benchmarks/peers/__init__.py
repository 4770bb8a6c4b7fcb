"""avlab beside its peers: the same pictures on the same machine, one system after the other.

Each system is a module with a `send` and a `receive`, run in processes of their own. What came is read from the decoded
pictures, which carry their number; when it was handed over and decoded stands on a board that all processes share.
"""
