"""Frames shown under loss: avlab with and without repair, ffmpeg and GStreamer, all through the same relay and seed.

    python -m benchmarks.loss [--only GStreamer]

A frame is shown when what came out is, byte for byte, the scan that was sent: half a picture is none. avlab says which
frames it showed, in time for a playout delay of 100 ms; what the others give is compared with the clip's own JPEGs, and
no clock is held against them. Every player goes through an `avlab.Relay` of its own, which loses the same packets of
pictures for each: 5 % on the way to the player, none on the way back, 20 ms each way. The two kinds of loss are
measured at the same time. It takes two and a half minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import avlab
from avlab.media.codec import encode_jpeg
from avlab.media.sources import ClipSource
from avlab.wire.payloads.jpeg import check_jpeg, packed
from avlab.wire.units import WireError
from tests import tools

CLIP = Path(__file__).parents[1] / "data" / "count.mp4"
WIDTH, QUALITY = 640, 70  # ten to twelve packets a frame
PLAYOUT_S = 0.1
SECONDS = 20.0
PATIENCE = 8.0  # for what is under way at the end, and for a player that has not heard of the end
NETWORKS = {
    "independent": avlab.Network(loss=0.05, delay=0.02, seed=5),
    "bursts of 3": avlab.Network(loss=0.05, burst=3, delay=0.02, seed=5),
}


class Player(NamedTuple):
    """One row: what to run for an address and a folder to write JPEGs to, what avlab's own repair is, what it needs."""

    name: str
    command: Callable[[str, Path], list[str]]
    repair: str | None = None
    needs: tuple[str, ...] = ()

    @property
    def own(self) -> bool:
        """Whether it is avlab, which tells by itself what it has shown."""
        return not self.needs


def play(repair: str | None) -> Callable[[str, Path], list[str]]:
    """avlab's own player."""
    wish = ["--repair", repair] if repair else []
    command = [sys.executable, "-m", "avlab", "play", "--json", "--no-window", "--audio", "null", *wish]
    return lambda url, folder: [*command, "--playout-delay", str(PLAYOUT_S), url]


def ffmpeg(url: str, folder: Path) -> list[str]:
    """Its frames as they come out of RTP, undecoded; packets are waited for as long as avlab waits for them."""
    patience = ["-rtsp_transport", "udp", "-max_delay", str(round(PLAYOUT_S * 1e6))]
    return ["ffmpeg", "-v", "quiet", *patience, "-i", url, "-map", "0:v", "-c", "copy", f"{folder}/%05d.jpg"]


def gstreamer(again: bool) -> Callable[[str, Path], list[str]]:
    """rtspsrc, which asks for packets again by RFC 4585 and RFC 4588 or not, and the frames out of rtpjpegdepay."""
    latency = f"protocols=udp latency={round(PLAYOUT_S * 1e3)} do-retransmission={str(again).lower()}"

    def command(url: str, folder: Path) -> list[str]:
        source = f"gst-launch-1.0 -q rtspsrc location={url} {latency} name=s"
        pictures = f"s. ! rtpjpegdepay ! multifilesink location={folder}/%05d.jpg"
        return f"{source} {pictures} s. ! rtpL16depay ! fakesink".split()

    return command


GST = ("gst-launch-1.0", "gst:rtspsrc", "gst:rtpjpegdepay", "gst:multifilesink", "gst:rtpL16depay")
PLAYERS = (
    Player("avlab", play(None)),
    Player('avlab, `repair="rtx"`', play("rtx"), "rtx"),
    Player('avlab, `repair="fec"`', play("fec"), "fec"),
    Player("ffmpeg", ffmpeg, needs=("ffmpeg",)),
    Player("GStreamer, `do-retransmission=false`", gstreamer(False), needs=GST),
    Player("GStreamer, `do-retransmission=true`", gstreamer(True), needs=GST),
)


class Clip(NamedTuple):
    """What is sent: each frame's scan as a hash, and how many packets it takes."""

    scans: list[bytes]
    packets: list[int]

    @classmethod
    def encoded(cls) -> Clip:
        """Encode the clip as the server does."""
        pictures = ClipSource(CLIP).pictures()
        jpegs = [encode_jpeg(p.image, width=WIDTH, quality=QUALITY, matrix=p.matrix)[0] for p in pictures]
        scans = [scan(jpeg) for jpeg in jpegs]
        assert len(set(scans)) == len(scans), "each frame has its number painted on it"
        return cls(scans, [packed(jpeg).batch.total for jpeg in jpegs])

    def predicted(self, network: avlab.Network) -> float:
        """The share of frames of which no packet is lost, by Gilbert's two states; (1-p)^n where bursts are chance."""
        p = network.loss
        length = max(network.burst, 1 / (1 - p))
        stays = 1 - p / (length * (1 - p))
        return sum((1 - p) * stays ** (count - 1) for count in self.packets) / len(self.packets)


def scan(jpeg: bytes) -> bytes:
    """A hash of what a JPEG has between its headers, which receivers make themselves, and its end."""
    try:
        known = check_jpeg(jpeg)
    except WireError:
        return b""
    return hashlib.sha256(jpeg[known.scan : known.end]).digest()


class Seen(NamedTuple):
    """How many frames one player was sent whole, how many it showed whole, and how many damaged."""

    arrived: int
    shown: int
    damaged: int = 0


def measure(player: Player, network: avlab.Network, clip: Clip) -> Seen:
    """Play the clip once, through a relay of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="avlab-") as name,
        avlab.Server(CLIP, width=WIDTH, quality=QUALITY, isolated=True) as server,
        avlab.Relay(server.url, network=network, one_way=True) as relay,
    ):
        folder = Path(name)
        said = run(player.command(relay.url, folder))
        arrived = arrived_whole(relay.trace)
        if player.own:
            return Seen(arrived, json.loads(said.splitlines()[-1])["shown"])
        sent = set(clip.scans)
        came = [scan(path.read_bytes()) for path in sorted(folder.iterdir())]
        whole = len(sent.intersection(came))
        return Seen(arrived, whole, len(came) - whole)


def run(command: list[str]) -> str:
    """A player to its end, which BYE is; as BYE may be lost, it is ended when its time is up."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as child:
        try:
            return child.communicate(timeout=SECONDS + PATIENCE)[0]
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGTERM)  # SIGINT may be ignored, where this was started in the background
        try:
            return child.communicate(timeout=PATIENCE)[0]
        except subprocess.TimeoutExpired:
            child.kill()
            return child.communicate()[0]


def arrived_whole(trace: avlab.Trace) -> int:
    """Of how many frames every packet of the pictures themselves passed the relay: repairs do not count."""
    rows = trace.packets.query("stream == 'video'")
    rows = rows[rows["ssrc"] == rows["ssrc"].iloc[0]]
    ends = rows[rows["marker"].astype(bool)].groupby("timestamp")["seq"].min()  # parity comes behind the marker
    media = rows[rows["seq"] <= rows["timestamp"].map(ends)]
    return int((media["fate"] != "lost").groupby(media["timestamp"]).all().sum())


def simulated(player: Player, network: avlab.Network) -> float:
    """What `avlab.simulate` says of the same: the share of frames shown."""
    settings: dict[str, Any] = {"width": WIDTH, "quality": QUALITY, "playout_delay": PLAYOUT_S}
    trace = avlab.simulate(CLIP, seconds=SECONDS, network=network, repair=player.repair, **settings)
    return float((trace.frames.query("stream == 'video'")["fate"] == "shown").mean())


def rows(player: Player, clip: Clip, pool: ThreadPoolExecutor) -> Iterator[str]:
    """A player's lines of the table, or the reason why it has none."""
    lacking = [sentence for tool in player.needs if (sentence := tools.missing(tool))]
    if lacking:
        yield f"| {player.name} | not measured: {' '.join(dict.fromkeys(lacking))} | | | | | |"
        return
    jobs = {name: pool.submit(measure, player, network, clip) for name, network in NETWORKS.items()}
    for name, network in NETWORKS.items():
        seen, offered = jobs[name].result(), len(clip.scans)
        said = f"{simulated(player, network):.1%}" if player.own else ""
        shares = f"{clip.predicted(network):.1%} | {seen.arrived / offered:.1%} | {seen.shown / offered:.1%} | {said}"
        yield f"| {player.name} | {name} | {shares} | {seen.damaged} |"


def ten_minutes() -> str:
    """What ten simulated minutes with loss, jitter and retransmission take, in a sentence."""
    network = avlab.Network(loss=0.02, delay=0.02, jitter=0.005, seed=7)
    avlab.simulate(CLIP, seconds=1, width=400, network=network)  # the tables are read, and kept
    began, worked = time.perf_counter(), time.process_time()
    trace = avlab.simulate(CLIP, seconds=600, width=400, quality=80, network=network, repair="rtx")
    wall, work = time.perf_counter() - began, time.process_time() - worked
    frames, packets = len(trace.frames), len(trace.packets)
    return (
        f"Ten simulated minutes, {frames:,} frames in {packets:,} packets: {wall:.1f} s, {work:.1f} s of processor time"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="NAME", help="players whose name has this in it")
    only = parser.parse_args().only.lower()
    clip = Clip.encoded()
    least, most = min(clip.packets), max(clip.packets)
    print(f"{len(clip.scans)} frames of {CLIP.name}, {least} to {most} packets each; 5 % of packets lost\n")
    print("| player | loss | predicted whole | arrived whole | shown whole | simulated | damaged, frames |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with ThreadPoolExecutor(len(NETWORKS)) as pool:
        for player in (one for one in PLAYERS if only in one.name.lower()):
            for line in rows(player, clip, pool):
                print(line, flush=True)
    if not only:
        print(f"\n{ten_minutes()}")


if __name__ == "__main__":
    main()
