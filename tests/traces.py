"""Made-up runs for tests of the record: what a server and a client would have recorded, with every truth known."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from avlab.measure.record.trace import FrameRow, Recorder, Trace

NS = 1_000_000_000
MS = 1_000_000
EPOCH = 77 * NS
"""The run starts here on the server's clock."""


@dataclass
class Run:
    """Both sides' traces, and what really happened."""

    server: Trace
    client: Trace
    truth: Counter[str] = field(default_factory=Counter)


def run(
    *,
    seconds: float = 5,
    fps: float = 30,
    packets: int = 5,
    loss: float = 0.0,
    duplication: float = 0.0,
    jitter_ms: float = 0.0,
    av_ms: float = 0.0,
    clock_offset_ns: int = 0,
    drift: float = 0.0,
    skip: frozenset[int] = frozenset(),
    first_seq: int = 65_530,
    first_timestamp: int = 2**32 - 9000,
    client_lap: int = 0,
    ssrc: int = 0xAAAA,
    sound: bool = True,
    ends_early_ns: int = 0,
    seed: int = 1,
) -> Run:
    """Video of `packets` packets a frame over a lossy link, sound in 20 ms chunks of three packets over a perfect one.

    One-way delay is 2 ms plus up to `jitter_ms`, playout 100 ms after sending. `client_lap` is how many times 65,536
    the client's unwrapped numbers are behind the server's; `clock_offset_ns` is how far its clock is ahead.
    `ends_early_ns` is how long before the last frame's sending the client stops looking.
    """
    rng = random.Random(seed)
    clock = "one" if not clock_offset_ns else "two"
    server = Recorder(side="server", epoch_ns=EPOCH, clock="one")
    client = Recorder(side="client", epoch_ns=EPOCH + clock_offset_ns, clock=clock)
    truth: Counter[str] = Counter()
    count = round(seconds * fps)
    end = EPOCH + round((count - 1) / fps * NS) + (NS if not ends_early_ns else -ends_early_ns)
    seq = first_seq
    for index in range(count):
        pts = round(index / fps * NS)
        due = EPOCH + pts
        timestamp = (first_timestamp + round(pts * 90_000 / NS)) % 2**32
        truth["offered"] += 1
        if index in skip:
            server.frame(FrameRow("video", index, pts, due_ns=due, encoded_ns=due - MS, bytes=6000, fate="skipped"))
            truth["skipped"] += 1
            continue
        sent = due + round(drift * pts) + rng.randrange(100_000)
        arrivals: list[int] = []
        for k in range(packets):
            marker = k == packets - 1
            server.packet("video", ssrc, seq, timestamp, marker, 1200, sent + k * 1000, None, None)
            truth["sent"] += 1
            arrived = sent + k * 1000 + 2 * MS + round(rng.random() * jitter_ms * MS)
            near = seq - 65_536 * client_lap
            if arrived > end:
                truth["packets_in_flight"] += 1
            elif rng.random() < loss:
                truth["lost"] += 1
            else:
                times = [arrived] + ([arrived + MS] if rng.random() < duplication else [])
                for copy, at in enumerate(times):
                    fate = "duplicate" if copy else "used"
                    truth[fate] += 1
                    now = at + clock_offset_ns
                    client.packet("video", ssrc, near, timestamp, marker, 1200, None, now, fate)
                arrivals.append(arrived)
            seq += 1
        server.frame(FrameRow("video", index, pts, timestamp, due, due - MS, sent, bytes=6000, packets=packets))
        if not arrivals:
            truth["frames_gone"] += 1
            continue
        whole = len(arrivals) == packets
        shown = sent + 100 * MS + clock_offset_ns if whole else None
        client.frame(
            FrameRow(
                "video",
                timestamp=timestamp,
                first_packet_ns=min(arrivals) + clock_offset_ns,
                complete_ns=max(arrivals) + clock_offset_ns if whole else None,
                shown_ns=shown,
                packets=packets,
                packets_lost=packets - len(arrivals),
                fate="shown" if whole else "incomplete",
            )
        )
        truth["shown" if whole else "incomplete"] += 1
        if shown is not None and sound:
            client.sync(shown, pts, pts + round(av_ms * MS + rng.gauss(0, 2) * MS), 100 * MS, 3.5)
    for index in range(round(seconds * 50) if sound else 0):
        pts = index * 20 * MS
        due = EPOCH + pts
        for k in range(3):
            timestamp = index * 882 + k * 294
            server.packet("audio", ssrc + 1, index * 3 + k, timestamp, k == 2, 1188, due, None, None)
            if due + MS < end:
                at = due + MS + clock_offset_ns
                client.packet("audio", ssrc + 1, index * 3 + k, timestamp, k == 2, 1188, None, at, "used")
        server.frame(FrameRow("audio", index, pts, index * 882, due, due, due, bytes=3528, packets=3))
        if due + MS < end:
            at = due + clock_offset_ns
            client.frame(FrameRow("audio", None, pts, index * 882, shown_ns=at + 100 * MS, bytes=3528, fate="shown"))
    for second in range(1, int(seconds) + 1 if seconds >= 2 else 1):
        for stream, of in (("video", ssrc), ("audio", ssrc + 1)):
            # Another client's, too, of which this one's record knows nothing.
            for whose in (of, of + 0x1000):
                server.report(
                    EPOCH + second * NS, stream, whose, loss=loss, lost=second, jitter_ns=MS // 3,
                    round_trip_ns=4 * MS if second > 1 else None, kbps=1500.5 if second > 1 else None,
                )  # fmt: skip
                # Who neither tells its time nor answers says nothing of its clock.
                server.clock(EPOCH + second * NS, stream, whose, peer=0xEE)
    server.meta["clip"], server.meta["target_fps"] = "count.mp4", fps
    client.meta["end_ns"] = end + clock_offset_ns
    client.meta["ssrcs"] = [ssrc, ssrc + 1] if sound else [ssrc]
    client.meta["audio_rate"] = 44_100
    client.setting(EPOCH + clock_offset_ns, "playout_delay", 0.1)
    server.setting(EPOCH + NS, "quality", 60)
    return Run(server.trace(), client.trace(), truth)


def empty(side: str = "client") -> Trace:
    """A run in which nothing happened."""
    return Recorder(side=side, epoch_ns=0, clock="one").trace()  # type: ignore[arg-type]
