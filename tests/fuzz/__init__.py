"""Hostile bytes for everything in avlab that reads bytes of others: `python -m fuzz` from `tests/`, or `make fuzz`.

`mutation` spoils good inputs, `targets` and `http_targets` name what is fed with them and which errors may leave it,
`running` feeds and counts. The ordinary tests have a short share of the same (test_fuzz.py).
"""
