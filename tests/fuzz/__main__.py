"""Ten minutes of hostile bytes: a table of what was tried and what left; exit code 1, with the input, if it may not."""

from __future__ import annotations

import argparse
import os
import sys
import time

from .apart import apart
from .everything import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    default = float(os.environ.get("FUZZ_SECONDS") or 600)
    parser.add_argument("--seconds", type=float, default=default, help="for all targets together (600)")
    parser.add_argument("--seed", type=int, default=time.time_ns(), help="another seed, other inputs (the clock's)")
    parser.add_argument("--only", default="", help="targets whose name has this in it")
    asked = parser.parse_args()
    chosen = [target for target in TARGETS if asked.only in target.name]
    if not chosen:
        parser.error(f"no target's name has {asked.only!r} in it; there are: {', '.join(t.name for t in TARGETS)}")
    print(f"{len(chosen)} targets, {asked.seconds:g} s, seed {asked.seed}\n", flush=True)
    print("| what reads | inputs | read | refused, by error | longest call, ms |\n|---|---|---|---|---|", flush=True)
    failures, total, began = [], 0, time.monotonic()
    for at, target in enumerate(chosen):
        left = asked.seconds - (time.monotonic() - began)
        tally = apart(target, asked.seed, max(0.2, left / (len(chosen) - at)))
        read = tally.tried - tally.errors.total() - len(tally.failures)
        errors = ", ".join(f"{name} {count:,}" for name, count in tally.errors.most_common()) or "none"
        shown = f"{tally.longest_ns / 1e6:.1f}" + (" **failed**" if tally.failures else "")
        print(f"| {target.name} | {tally.tried:,} | {read:,} | {errors} | {shown} |", flush=True)
        failures += tally.failures
        total += tally.tried
    print(f"\n{total:,} inputs in {time.monotonic() - began:.0f} s; {len(failures)} of {len(chosen)} targets failed.")
    for failure in failures:
        print(f"\n{failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
