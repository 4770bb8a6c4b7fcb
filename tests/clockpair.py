"""A sender and a player on two computers, in virtual time: each has a clock of its own, and each way its delays."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from avlab.core.arriving import Described
from avlab.core.budget import FeedbackBudget
from avlab.core.events import ClockTold, Reported
from avlab.core.player import Player
from avlab.core.sender import Outlet, Sender
from avlab.measure.record.trace import Recorder, Trace
from avlab.media import codec
from avlab.stream.recording import PlayerRecording, SenderRecording
from avlab.wire.payloads.jpeg import packed
from avlab.wire.rtp import JPEG, VIDEO_CLOCK, Packed
from avlab.wire.units import NS

MS = NS // 1000
FPS, SSRC, PLAYER = 20, 5, 9
UNIX_NS = 1_780_000_000 * NS


class Clock(NamedTuple):
    """A clock by the true time: `began_ns` at 0, fast by `ppm`, and by `leap_ns` further from `leaps_at_ns` on."""

    began_ns: int = 0
    ppm: float = 0.0
    unix_offset_ns: int = UNIX_NS
    leap_ns: int = 0
    leaps_at_ns: int = 0

    def at(self, true_ns: int) -> int:
        """What it shows."""
        leap_ns = self.leap_ns if self.leaps_at_ns and true_ns >= self.leaps_at_ns else 0
        return self.began_ns + true_ns + round(true_ns * self.ppm * 1e-6) + leap_ns

    def when(self, shown_ns: int) -> int:
        """The inverse; a nanosecond later at the most. What it shows twice, it shows later."""
        leapt_ns = int((shown_ns - self.leap_ns - self.began_ns) / (1 + self.ppm * 1e-6)) + 1
        if self.leaps_at_ns and leapt_ns >= self.leaps_at_ns:
            return leapt_ns
        return int((shown_ns - self.began_ns) / (1 + self.ppm * 1e-6)) + 1


class Way(NamedTuple):
    """The delays of one way: no less than `least_ms`, and `jitter_ms` more on average."""

    least_ms: float = 2.0
    jitter_ms: float = 1.0

    def draw(self, chance: random.Random) -> int:
        """One packet's."""
        return round((self.least_ms + chance.expovariate(1) * self.jitter_ms) * MS)


class Run(NamedTuple):
    """Both records, and what really was."""

    server: Trace
    client: Trace
    server_clock: Clock
    client_clock: Clock
    delays_ns: dict[int, int]
    """How long each packet was under way, by its number."""

    def ahead_ns(self, true_ns: int) -> int:
        """How far the client's clock was ahead of the server's."""
        return self.client_clock.at(true_ns) - self.server_clock.at(true_ns)


def run(
    *,
    seconds: int = 20,
    server: Clock | None = None,
    client: Clock | None = None,
    down: Way | None = None,
    up: Way | None = None,
    tells_times: bool = True,
    seed: int = 1,
) -> Run:
    """Pictures of one packet each for so many seconds, with all the RTCP that the two machines send."""
    ours, theirs = server or Clock(7 * NS), client or Clock(7 * NS + 300 * MS, ppm=50)
    down, up, chance = down or Way(), up or Way(), random.Random(seed)
    sender = Sender(unix_offset_ns=ours.unix_offset_ns, budget=FeedbackBudget())
    sender.add(Outlet("video", rate=VIDEO_CLOCK, ssrc=SSRC, sequence=100, timestamp_offset=77))
    player = Player(ssrc=PLAYER, unix_offset_ns=theirs.unix_offset_ns)
    player.add("video", Described(JPEG, VIDEO_CLOCK, tells_times=tells_times))
    player.prepare(streams={"video"}, delay_ns=100 * MS)
    server_record = Recorder(side="server", epoch_ns=ours.at(0), clock="one")
    client_record = Recorder(side="client", epoch_ns=theirs.at(0), clock="two")
    server_record.meta["unix_offset_ns"] = ours.unix_offset_ns
    client_record.meta |= {"unix_offset_ns": theirs.unix_offset_ns, "reports_as": PLAYER}
    sent, seen = SenderRecording(server_record), PlayerRecording(client_record)
    delays_ns: dict[int, int] = {}
    heap: list[tuple[int, int, Callable[[int], None]]] = []
    count = 0

    def at(true_ns: int, act: Callable[[int], None]) -> None:
        nonlocal count
        count += 1
        heapq.heappush(heap, (true_ns, count, act))

    def see_to_sender(true_ns: int) -> None:
        for event in sender.events():
            if isinstance(event, ClockTold):
                sent.clock(event)
            elif isinstance(event, Reported):
                sent.reported(event)
        for path, batch, leaving in sender.outgoing():
            delay_ns = down.draw(chance)
            if leaving is not None:
                sent.sent(leaving)
                delays_ns[leaving.number] = delay_ns
            at(true_ns + delay_ns, lambda ns, path=path, batch=batch: player.receive(path, batch, theirs.at(ns)))

    def see_to_player(true_ns: int) -> None:
        player.handle_timer(theirs.at(true_ns))
        for event in player.events():
            seen(event)
        for path, batch in player.outgoing():
            at(true_ns + up.draw(chance),
               lambda ns, path=path, batch=batch: sender.receive(path, batch, ours.at(ns)))  # fmt: skip

    at(0, lambda ns: sender.play(ours.at(ns), 0))
    at(0, lambda ns: player.begin(0, {"video": 77}, theirs.at(ns)))
    for index in range(seconds * FPS):
        pts_ns = index * NS // FPS
        at(pts_ns, lambda ns, pts_ns=pts_ns: sender.send("video", PICTURE, pts_ns, ours.at(ns)) and None)
    true_ns = 0
    while heap and true_ns < seconds * NS:
        due = [clock.when(ns) for clock, ns in ((ours, sender.timer_at()), (theirs, player.timer_at())) if ns]
        true_ns = max(true_ns, min([heap[0][0], *due]))
        while heap and heap[0][0] <= true_ns:
            heapq.heappop(heap)[2](true_ns)
        if (timer_ns := sender.timer_at()) is not None and timer_ns <= ours.at(true_ns):
            sender.handle_timer(ours.at(true_ns))
        see_to_sender(true_ns)
        see_to_player(true_ns)
    client_record.meta["end_ns"] = theirs.at(true_ns)
    return Run(server_record.trace(), client_record.trace(), ours, theirs, delays_ns)


def _picture() -> Packed:
    return packed(codec.encode_jpeg(np.full((48, 64, 3), 90, np.uint8), quality=60)[0])


PICTURE = _picture()
