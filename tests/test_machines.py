"""A sender and a player back to back: a link in memory, literal moments, and neither socket, thread nor clock."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from avlab.core.arriving import Described
from avlab.core.budget import FeedbackBudget
from avlab.core.events import FrameDecided, PacketsTaken, Path, PlayerEvent, Reported, SenderEvent, Sent, SyncRead
from avlab.core.player import Player
from avlab.core.sender import Outlet, Sender
from avlab.core.sink import BufferSink
from avlab.media import codec
from avlab.network.ownrepair import OwnRepair, Protection, RepairSender
from avlab.network.parity import ParityEncoder
from avlab.network.retransmission import RtxSender
from avlab.parts import Call, PartError, called
from avlab.wire.batch import Batch
from avlab.wire.payloads.jpeg import packed
from avlab.wire.payloads.l16 import packed_sound
from avlab.wire.rtp import JPEG, VIDEO_CLOCK
from avlab.wire.units import NS, Chunk

MS = NS // 1000
FPS, RATE, SECONDS = 25, 8_000, 5
LATENCY_NS, BLOCK_NS, CHUNK_NS = 10 * MS, 10 * MS, 20 * MS
V, A, RTX, OWN, L16, RTX_TYPE, FEC_TYPE, OWN_TYPE = 0xA0, 0xB0, 0xC0, 0xD0, 97, 98, 99, 112


class Pair:
    """What one sends the other gets `delay_ns` later; of the pictures' packets the share `loss` gets lost.

    `buffer` is a jitter buffer of anyone's own and `own` a repair, which are called by `call`; `failed` is told when
    one fails.
    """

    def __init__(
        self,
        *,
        repair: Any = None,
        loss: float = 0.0,
        delay_ns: int = 10 * MS,
        seed: int = 1,
        seconds: int = SECONDS,
        buffer: Any = None,
        own: Any = None,
        call: Call = called,
        failed: Callable[[PartError], None] | None = None,
    ) -> None:
        self.sender = Sender(unix_offset_ns=1_700_000_000 * NS, budget=FeedbackBudget())
        mine = None if own is None else OwnRepair(own, call=call, failed=failed)
        repair = "rtx" if mine is not None and mine.asks else repair
        beside = None
        if mine is not None and mine.protects:
            beside = RepairSender(Protection(mine), ssrc=OWN, payload_type=OWN_TYPE, sequence=65_530)
        again = RtxSender(ssrc=RTX, payload_type=RTX_TYPE, sequence=9) if repair == "rtx" else None
        parity = ParityEncoder(payload_type=FEC_TYPE) if repair == "fec" else None
        video = Outlet(
            "video",
            rate=VIDEO_CLOCK,
            ssrc=V,
            sequence=65_000,
            timestamp_offset=77,
            again=again,
            parity=parity,
            own=beside,
        )
        self.sender.add(video)
        self.sender.add(Outlet("audio", rate=RATE, ssrc=A, sequence=3, timestamp_offset=2**32 - 5))
        self.player = Player(ssrc=7)
        repairs = {"rtx": RTX_TYPE, "fec": FEC_TYPE}
        if buffer is not None:
            self.player.buffer_by(buffer, call=call, failed=failed)
        repairs |= {mine.name: OWN_TYPE} if mine is not None else {}
        self.player.add("video", Described(JPEG, VIDEO_CLOCK, repairs=repairs, repair=repair, own=mine))
        self.player.add("audio", Described(L16, RATE))
        self.sink = BufferSink(rate=RATE, channels=1, lead_ns=LATENCY_NS)
        self.player.prepare(streams={"video", "audio"}, delay_ns=200 * MS, sound=self.sink)
        self.sent: list[SenderEvent | Sent] = []
        self.seen: list[PlayerEvent] = []
        self._loss, self._delay_ns, self._chance = loss, delay_ns, random.Random(seed)
        self._heap: list[tuple[int, int, Callable[[int], None]]] = []
        self._count = self.lost = 0
        self.at(0, self._play)
        self.at(0, self._ask)
        for number in range(seconds * FPS):
            self.at(number * NS // FPS, lambda now_ns: self.sender.send("video", PICTURE, now_ns, now_ns) and None)
        for number in range(seconds * NS // CHUNK_NS):
            self.at(number * CHUNK_NS, self._sound)
        self.at(seconds * NS, self.sender.end)

    def at(self, at_ns: int, act: Callable[[int], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at_ns, self._count, act))

    def run(self, until_ns: int) -> None:
        now_ns = 0
        while True:
            moments = [self._heap[0][0], self.sender.timer_at(), self.player.timer_at()]
            now_ns = max(now_ns, min(moment for moment in moments if moment is not None))
            if now_ns > until_ns:
                break
            while self._heap[0][0] <= now_ns:
                heapq.heappop(self._heap)[2](now_ns)
            for machine in (self.sender, self.player):
                timer_ns = machine.timer_at()
                if timer_ns is not None and timer_ns <= now_ns:
                    machine.handle_timer(now_ns)
                for path, batch, *sent in machine.outgoing():
                    self.sent += [event for event in sent if event is not None]
                    self._carry(machine is self.sender, path, batch, now_ns)
            self.sent += self.sender.events()
            self.seen += self.player.events()
        self.player.flush(until_ns)
        self.player.close()
        self.seen += self.player.events()

    def _carry(self, down: bool, path: Path, batch: Batch, now_ns: int) -> None:
        to = self.player if down else self.sender
        for at in range(batch.total):
            if down and path == Path("video") and self._chance.random() < self._loss:
                self.lost += 1
                continue
            one = batch.part(at, at + 1)
            self.at(now_ns + self._delay_ns, lambda at_ns, one=one: to.receive(path, one, at_ns))  # type: ignore[misc]

    def _play(self, now_ns: int) -> None:
        self.player.begin(0, {"video": 77, "audio": 2**32 - 5}, now_ns)
        self.sender.play(now_ns, 0)

    def _sound(self, now_ns: int) -> None:
        chunk = Chunk(0, now_ns, np.full((RATE * CHUNK_NS // NS, 1), 99, np.int16), RATE)
        self.sender.send("audio", packed_sound(chunk, payload_type=L16, rate=RATE, channels=1), now_ns, now_ns)

    def _ask(self, now_ns: int) -> None:
        _, reading = self.sink.read(RATE * BLOCK_NS // NS, now_ns + LATENCY_NS)
        if reading is not None:
            self.player.heard(reading)
        self.at(now_ns + BLOCK_NS, self._ask)

    def fates(self) -> list[str]:
        return [event.fate for event in self.seen if isinstance(event, FrameDecided)]

    def reports(self, stream: str) -> list[Reported]:
        return [event for event in self.sent if isinstance(event, Reported) and event.stream == stream]


def _picture() -> Any:
    noise = np.random.default_rng(1).integers(0, 255, (96, 128, 3), np.uint8)
    return packed(codec.encode_jpeg(noise, quality=80)[0])


PICTURE = _picture()
END_NS = (SECONDS + 1) * NS


def test_all_that_is_sent_over_a_link_that_loses_nothing_is_seen_and_heard_in_step() -> None:
    pair = Pair()
    pair.run(END_NS)
    assert pair.fates() == ["shown"] * SECONDS * FPS
    offsets = [event.audio_pts_ns - event.video_pts_ns for event in pair.seen if isinstance(event, SyncRead)]
    assert max(map(abs, offsets[5:])) <= 2 * MS
    assert all(incoming.ended for incoming in pair.player.streams.values())
    assert not pair.player.finished(END_NS)  # the device still plays what it was given
    assert pair.player.finished(END_NS + LATENCY_NS)
    for stream, ssrc in (("video", V), ("audio", A)):
        reports = pair.reports(stream)
        assert len(reports) >= 2 * SECONDS - 2
        assert {(report.ssrc, report.lost, report.doubt) for report in reports} == {(ssrc, 0, None)}
        trips = [report.round_trip_ns for report in reports if report.round_trip_ns is not None]
        assert trips
        assert trips == pytest.approx([20 * MS] * len(trips), abs=MS)


@pytest.mark.parametrize("repair", [None, "rtx", "fec"])
def test_what_is_lost_is_reported_and_repaired(repair: Any) -> None:
    pair = Pair(repair=repair, loss=0.03)
    pair.run(END_NS)
    taken = [fate for event in pair.seen if isinstance(event, PacketsTaken) for fate in event.fates]
    shown = pair.fates().count("shown")
    assert len(pair.fates()) <= SECONDS * FPS
    if repair is None:
        assert taken.count("recovered") == 0
        assert shown < 0.95 * SECONDS * FPS
        assert pair.reports("video")[-1].lost == pytest.approx(pair.lost, abs=5)
    else:
        assert taken.count("recovered") > 10
        assert shown >= (0.98 if repair == "rtx" else 0.9) * SECONDS * FPS
    assert pair.reports("audio")[-1].lost == 0


@pytest.mark.parametrize("repair", [None, "rtx", "fec"])
def test_the_same_chances_give_the_same_run(repair: Any) -> None:
    runs = [Pair(repair=repair, loss=0.05, seed=seed) for seed in (3, 3, 4)]
    for pair in runs:
        pair.run(2 * NS)
    one, again, other = (repr(pair.seen) + repr(pair.sent) for pair in runs)
    assert one == again
    assert one != other
