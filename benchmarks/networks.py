"""Records runs through hard networks, made by a relay on loopback: data/*.avtrace comes from here.

Server, relay and client are avlab's own; the record is the server's and the client's, joined, with the relay's network
in its settings. Run on an idle machine: python benchmarks/networks.py [--only NAME] [--out data]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import avlab
from avlab.measure.numbers import metrics

DATA = Path(__file__).parents[1] / "data"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One network, and what is played through it."""

    network: avlab.Network
    playout_delay: float = 0.1
    quality: Sequence[int] = (80,)
    """One after the other, over equal parts of the run."""
    seconds: float = 10.0
    width: int = 400


RUNS = {
    "classroom": Run(network=avlab.Network.presets["classroom"]),
    "4g": Run(network=avlab.Network.presets["4g"], playout_delay=0.02),
    "long-haul": Run(network=avlab.Network.presets["long-haul"]),
    "bottleneck": Run(
        network=avlab.Network(delay=0.02, rate=2_600, queue=0.3), playout_delay=0.5, quality=(80, 50, 20), seconds=12.0
    ),
}
"""Three of the presets, and a bottleneck that only the last of three qualities fits."""


def record(run: Run) -> avlab.Trace:
    """Play the sample clip through a network in real time; both sides' record."""
    with (
        avlab.Server(DATA / "count.mp4", width=run.width, quality=run.quality[0]) as server,
        avlab.Relay(server.url, network=run.network) as relay,
        avlab.Client(relay.url, audio="null", playout_delay=run.playout_delay) as client,
    ):
        for quality in run.quality:
            if quality != server.quality:
                server.quality = quality
            client.wait(run.seconds / len(run.quality))
        client.stop()
        trace = avlab.join(server.trace, client.trace)
        of_relay = [row for row in relay.trace.setting_rows if row.name == "network"]
    meta = {key: value for key, value in trace.meta.items() if key not in ("server", "url", "platform", "python")}
    settings = [row for row in trace.setting_rows if row.name != "network"]
    return avlab.Trace(
        frames=[trace.rows("frames")],
        packets=[trace.rows("packets")],
        sync=[trace.rows("sync")],
        settings=sorted([*settings, *of_relay], key=lambda row: row.time_ns),
        meta=meta | {"clip": "count.mp4", "recorded": "benchmarks/networks.py"},
    )


def main() -> None:
    """Record what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(RUNS), action="append", help="all when left out")
    parser.add_argument("--out", type=Path, default=DATA)
    options = parser.parse_args()
    for name in options.only or RUNS:
        trace = record(RUNS[name])
        file = options.out / f"{name}.avtrace"
        trace.save(file)
        ledgers = metrics.packet_ledger(trace), metrics.frame_ledger(trace)
        closed = "close" if all(ledger.closes for ledger in ledgers) else "DO NOT CLOSE"
        print(f"{file}: {file.stat().st_size:,} bytes, {RUNS[name].network}; its ledgers {closed}\n{trace!r}")


if __name__ == "__main__":
    main()
