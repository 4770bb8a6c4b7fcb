"""avlab beside its peers, one system after the other, on a machine that does nothing else; takes nine minutes.

python -m benchmarks.peers [--quick] [--systems NAME ...] [--plot FILE] prints a Markdown table; with --pairs N, avlab,
the codecs alone and imageZMQ in turn, and the ratios with their spread: seven turns take twenty minutes.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from benchmarks.peers.catalogue import SYSTEMS
from benchmarks.peers.pairs import measure_pairs
from benchmarks.peers.rounds import Length, measure_all
from benchmarks.peers.run import PeerError
from benchmarks.peers.table import markdown, plot

BUSY = 0.05
"""From this share of the machine on, what others took is told."""


def main() -> None:
    """Measure, print, draw."""
    names = [system.name for system in SYSTEMS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--systems", nargs="+", choices=names, default=names, metavar="NAME",
                        help=f"only these: {', '.join(names)}")  # fmt: skip
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a second each, and four receivers for sixteen, to see whether all is there",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the figures to this file, docs/peers.png say")
    parser.add_argument(
        "--pairs",
        type=int,
        metavar="N",
        help="ratios instead: avlab, the codecs alone and imageZMQ in turn, N times; 7 say",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the blocks that end what was started
    length = Length(flat=1.0, paced=1.0, fan=1.0, warm=0.3, receivers=4) if options.quick else Length()
    try:
        if options.pairs:
            print(measure_pairs(options.pairs, length))
            return
        systems, busiest = measure_all([system for system in SYSTEMS if system.name in options.systems], length)
    except KeyboardInterrupt:
        sys.exit(130)
    except PeerError as failed:
        sys.exit(str(failed))
    print(markdown(systems))
    if busiest > BUSY:
        print(f"\nOther programs took up to {busiest:.0%} of this machine: measure again when it is idle.")
    if options.plot:
        plot(systems, options.plot)


if __name__ == "__main__":
    main()
