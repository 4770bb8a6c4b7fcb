"""Repairs of one's own, each written as a student would; and broken ones, without which a stream goes on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from test_machines import FPS, MS, OWN, OWN_TYPE, RTX, Pair, V

import avlab
from avlab import Missing, PartError, testing
from avlab.core.events import PacketsTaken, Sent, SourcesKnown
from avlab.network.asking import OwnRequester
from avlab.network.ownrepair import HEAD, OwnRepair, Protection, RepairReceiver, RepairSender
from avlab.stream.guard import Guard
from avlab.wire import rtsp, sdp
from avlab.wire.batch import Batch
from avlab.wire.rtp import HEADER_BYTES, MAX_PACKET, Packed, RtpPacket, serialize_header
from avlab.wire.units import NS, WireError

FRAMES = 2 * FPS


class Xor:
    """One parity payload a frame."""

    name = "xor"

    def protect(self, payloads: list[bytes]) -> list[bytes]:
        longest = max(len(payload) for payload in payloads)
        total = 0
        for payload in payloads:
            total ^= int.from_bytes(len(payload).to_bytes(2) + payload.ljust(longest, b"\0"))
        return [total.to_bytes(longest + 2)]

    def recover(self, payloads: list[bytes | None], repairs: list[bytes | None]) -> list[bytes | None]:
        if payloads.count(None) != 1 or repairs[0] is None:
            return payloads
        total, longest = int.from_bytes(repairs[0]), len(repairs[0]) - 2
        for payload in payloads:
            if payload is not None:
                total ^= int.from_bytes(len(payload).to_bytes(2) + payload.ljust(longest, b"\0"))
        back = total.to_bytes(longest + 2)
        return [back[2 : 2 + int.from_bytes(back[:2])] if payload is None else payload for payload in payloads]


class Twice:
    """Every payload once more: as many repairs as payloads, each of which may be lost itself."""

    name = "Twice"

    def protect(self, payloads: list[bytes]) -> list[bytes]:
        return payloads

    def recover(self, payloads: list[bytes | None], repairs: list[bytes | None]) -> list[bytes | None]:
        return [payload or again for payload, again in zip(payloads, repairs, strict=True)]


class Once:
    """Asks for each missing packet once, as soon as it is missed."""

    name = "once"

    def ask(self, missing: list[Missing], now: float) -> list[int]:
        return [packet.number for packet in missing if not packet.asked]


class Both(Xor, Once):
    """Parity, and asks for what that cannot bring back: what is still missing after 20 ms."""

    name = "both"

    def ask(self, missing: list[Missing], now: float) -> list[int]:
        return [packet.number for packet in missing if now - packet.since > 0.02 and not packet.asked]


@pytest.fixture
def guard() -> Iterator[Guard]:
    with Guard(lambda words: None) as guard:
        yield guard


def run(part: Any, *, loss: float = 0.03, **settings: Any) -> Pair:
    pair = Pair(own=part, seconds=2, loss=loss, **settings)
    pair.run(4 * NS)
    return pair


def packets(pair: Pair, ssrc: int = V) -> Counter[str | None]:
    return Counter(fate for e in pair.seen if isinstance(e, PacketsTaken) and e.ssrc == ssrc for fate in e.fates)


def sent(pair: Pair, ssrc: int) -> list[Sent]:
    return [event for event in pair.sent if isinstance(event, Sent) and event.ssrc == ssrc]


# ---- those that work


@pytest.mark.parametrize("part", [Xor, Twice, Once, Both])
def test_what_is_lost_comes_back_by_a_repair_of_ones_own(part: Any) -> None:
    testing.check_repair(part)
    plain, mine = run(None), run(part)
    assert plain.fates().count("shown") < 0.85 * FRAMES
    assert mine.fates().count("shown") >= (0.9 if part is Xor else 0.97) * FRAMES
    assert packets(mine)["recovered"] > 5
    own = OwnRepair(part)
    assert bool(sent(mine, RTX)) == own.asks
    assert bool(sent(mine, OWN)) == own.protects


def test_a_repair_travels_in_a_stream_of_its_own() -> None:
    pair = run(Twice)
    media, repair = sent(pair, V), sent(pair, OWN)
    count = sum(event.batch.total for event in media)
    assert sum(event.batch.total for event in repair) == count  # each payload once more
    assert {event.repair for event in media} == {""}
    assert {(event.repair, event.lane) for event in repair} == {("twice", "video twice")}
    assert media[-1].number + media[-1].batch.total == 65_000 + count  # no number of the media's is a repair's
    assert [event.number for event in repair] == [
        65_530 + sum(event.batch.total for event in repair[:at]) for at in range(len(repair))
    ]
    took = packets(pair, OWN)
    assert set(took) == {"used"}
    assert sum(took.values()) + packets(pair)["used"] == 2 * count - pair.lost
    [*_, known] = [event for event in pair.seen if isinstance(event, SourcesKnown)]
    assert known.repair_ssrcs == (OWN,)
    assert pair.reports("video")[-1].lost == pytest.approx(count - packets(pair)["used"], abs=5)


def test_nothing_is_called_for_frames_of_which_nothing_is_missing() -> None:
    class Counts(Xor):
        def recover(self, payloads: list[bytes | None], repairs: list[bytes | None]) -> list[bytes | None]:
            raise AssertionError

    assert run(Counts, loss=0.0).fates() == ["shown"] * FRAMES


def test_a_frame_is_protected_once_for_all_clients() -> None:
    made: list[list[bytes]] = []

    class Notes(Xor):
        def protect(self, payloads: list[bytes]) -> list[bytes]:
            made.append(payloads)
            return super().protect(payloads)

    protection = Protection(OwnRepair(Notes))
    clients = [RepairSender(protection, ssrc=ssrc, payload_type=OWN_TYPE, sequence=ssrc) for ssrc in (1, 2, 3)]
    head = serialize_header(26, 0, 0, 0, False)
    frames = [Packed(Batch(head + b"one" + head + b"tw", 15)), Packed(Batch(head + b"three", 17))]
    for at, frame in enumerate(frames):
        out = [client.packets(frame, base=65_535, timestamp=at) for client in clients]
        assert [RtpPacket.parse(packet).ssrc for [packet] in out] == [1, 2, 3]
        assert len({packet[HEADER_BYTES:] for [packet] in out}) == 1
    assert made == [[b"one", b"tw"], [b"three"]]
    packet = RtpPacket.parse(clients[0].packets(frames[0], base=65_535, timestamp=7)[0])
    assert packet[:5] == (OWN_TYPE, 3, 7, 1, True)
    assert HEAD.unpack_from(packet.payload) == (65_535, 2, 0, 1)


def repairs_of(payloads: list[bytes], part: Any = Twice) -> list[RtpPacket]:
    head = serialize_header(26, 0, 0, 0, False)
    size = max(map(len, payloads))
    frame = Packed(Batch(b"".join(head + payload for payload in payloads), HEADER_BYTES + size))
    sender = RepairSender(Protection(OwnRepair(part)), ssrc=OWN, payload_type=OWN_TYPE, sequence=0)
    return [RtpPacket.parse(packet) for packet in sender.packets(frame, base=65_535, timestamp=9)]


def test_what_comes_back_has_the_number_timestamp_and_marker_that_it_had() -> None:
    receiver = RepairReceiver(OwnRepair(Twice).begin(), payload_type=OWN_TYPE)
    one, two, three = repairs_of([b"aa", b"bb", b"c"])
    assert receiver.takes(one)
    receiver.media(65_536, b"bb")
    unwrap = {65_535: 65_535}.__getitem__
    [back] = receiver.repair(one, unwrap)
    assert back == (65_535, 9, False, b"aa")
    assert receiver.repair(two, unwrap) == []
    assert receiver.media(65_537, b"c") == []  # late, and by itself: nothing is missing any more
    assert receiver.repair(three, unwrap) == []
    assert not receiver.takes(one._replace(ssrc=OWN + 1))


def test_a_packet_that_comes_later_helps_as_well() -> None:
    receiver = RepairReceiver(OwnRepair(Xor).begin(), payload_type=OWN_TYPE)
    [repair] = repairs_of([b"aa", b"bb", b"c"], Xor)
    receiver.media(65_535, b"aa")
    assert receiver.repair(repair, lambda number: number) == []
    assert [tuple(back) for back in receiver.media(65_536, b"bb")] == [(65_537, 9, True, b"c")]


@pytest.mark.parametrize(
    "payload",
    [b"", b"1234567", HEAD.pack(1, 2, 0, 1), HEAD.pack(1, 0, 0, 1) + b"x", HEAD.pack(1, 5_000, 0, 1) + b"x",
     HEAD.pack(1, 2, 1, 1) + b"x", HEAD.pack(1, 2, 0, 300) + b"x"],
)  # fmt: skip
def test_a_repair_packet_that_makes_no_sense_is_malformed(payload: bytes) -> None:
    receiver = RepairReceiver(OwnRepair(Twice).begin(), payload_type=OWN_TYPE)
    with pytest.raises(WireError):
        receiver.repair(RtpPacket(OWN_TYPE, 0, 0, OWN, False, payload), lambda number: number)


def test_what_repair_packets_say_fills_no_memory() -> None:
    receiver = RepairReceiver(OwnRepair(Twice).begin(), payload_type=OWN_TYPE)
    for base in range(0, 60_000, 10):
        packet = RtpPacket(OWN_TYPE, 0, 0, OWN, False, HEAD.pack(base, 2, 0, 2) + b"x")
        assert len(receiver.repair(packet, lambda number: number)) == 1
    assert len(receiver._groups) <= 64
    assert len(receiver._payloads) <= 6_000


def test_what_a_rule_is_told_of_missing_packets() -> None:
    told: list[tuple[list[Missing], float]] = []

    class Notes:
        name = "notes"

        def ask(self, missing: list[Missing], now: float) -> list[int]:
            told.append((missing, now))
            return [packet.number for packet in missing if packet.asked < 2 and now >= packet.since + 0.01]

    requester = OwnRequester(OwnRepair(Notes).begin())
    requester.arrived(100, 0, True, 5 * NS)
    assert requester.wake_at() is None
    requester.arrived(103, 40 * MS, False, 5 * NS + 40 * MS)
    assert requester.pull(5 * NS + 40 * MS) == []
    assert told == [([Missing(101, 0.04, 0, None, None), Missing(102, 0.04, 0, None, None)], 0.04)]
    requester.base_ns = 5 * NS + 100 * MS
    assert requester.wake_at() == 5 * NS + 50 * MS
    assert requester.pull(5 * NS + 50 * MS) == [101, 102]
    assert requester.restored(101, 40 * MS, False, 5 * NS + 70 * MS)
    assert not requester.restored(101, 40 * MS, False, 5 * NS + 71 * MS)
    assert requester.pull(5 * NS + 72 * MS) == [102]
    [lost] = told[-1][0]
    assert lost == Missing(102, 0.04, 1, pytest.approx(0.18), pytest.approx(0.02))
    requester.arrived(102, 40 * MS, False, 5 * NS + 80 * MS)
    assert requester.pull(5 * NS + 90 * MS) == []
    assert requester.wake_at() is None
    requester.arrived(105, 80 * MS, True, 5 * NS + 80 * MS)
    count = len(told)
    requester.pull(6 * NS)  # after its deadline: nobody is told of it any more
    assert len(told) == count


def test_an_answer_that_comes_after_its_time_is_known_for_what_it_is() -> None:
    requester = OwnRequester(OwnRepair(Once).begin())
    requester.base_ns = 0
    requester.arrived(1, 0, True, 0)
    requester.arrived(3, 0, True, 0)
    assert requester.pull(0) == [2]
    assert requester.pull(100 * MS) == []
    assert requester.restored(2, 0, False, 200 * MS)


# ---- what is said of them


def test_a_repair_is_described_by_its_name_and_chosen_by_it() -> None:
    offer = sdp.repair_offer(26, 90_000, rtx=98, fec=99, keep_ms=1000, own={"xor": 112, "my-own": 113})
    media = sdp.Media(kind="video", payload_type=26, encoding="JPEG", clock_rate=90_000, **offer)
    text = sdp.serialize(sdp.SessionDescription(media=(media,)))
    assert "m=video 0 RTP/AVP 26 98 99 112 113" in text
    assert "a=rtpmap:112 X-xor/90000" in text
    assert "a=fmtp:113 apt=26" in text
    assert text.rstrip().split("\r\n")[-1].startswith("a=fmtp")
    [again] = sdp.parse(text).media
    assert (again.encoding, again.repairs) == ("JPEG", {"rtx": 98, "fec": 99, "xor": 112, "my-own": 113})
    assert rtsp.repair_wishes("Xor, rtx") == ["xor", "rtx"]
    assert rtsp.repair_ssrcs("xor;ssrc=000000A1, rtx; ssrc=ffffffff, fec, odd;ssrc=1") == {"xor": 161, "rtx": 2**32 - 1}


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (Xor, TypeError, r"repairs must be a list of classes, as \[Mine\]"),
        (["rtx"], TypeError, "a repair of one's own is handed in as a class, not as 'rtx'"),
        ([Xor()], TypeError, "handed in as a class"),
        ([Xor, Xor], ValueError, "two repairs are called 'xor'"),
        ([type("Mine", (Xor,), {"name": "with blanks"})], ValueError, "the repair Mine: its name must be up to 32"),
        ([type("Mine", (Xor,), {"name": None})], ValueError, "not None"),
        ([type("Mine", (Xor,), {"name": "RTX"})], ValueError, "its name must be another than 'RTX'"),
        ([type("Mine", (), {"name": "mine"})], TypeError, "has neither protect, recover nor ask"),
        ([type(f"Mine{at}", (Xor,), {"name": f"mine{at}"}) for at in range(9)], ValueError, "8 repairs can be offered"),
    ],
)
def test_what_is_no_repair_is_refused(given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        avlab.Server(30, repairs=given)


def test_a_client_needs_recover_or_ask() -> None:
    with pytest.raises(TypeError, match="has neither recover nor ask, which is what a client needs"):
        avlab.Client("rtsp://127.0.0.1:1/x", repair=type("Mine", (), {"name": "mine", "protect": Xor.protect}))
    with pytest.raises(ValueError, match="a class of one's own or None, not <"):
        avlab.Client("rtsp://127.0.0.1:1/x", repair=Xor())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="repair='Xor' cannot be had: the classic wire"):
        avlab.Client("classic://127.0.0.1:9688", repair=Xor)


# ---- broken ones


def spins(*_: Any) -> Any:
    while True:
        pass


def leaves(*_: Any) -> Any:
    raise SystemExit(3)


def mine(base: type = Both, **methods: Any) -> type:
    return type("Mine", (base,), methods)


BROKEN = [
    ({"__init__": lambda self: 1 / 0}, "Mine failed: ZeroDivisionError"),
    ({"protect": lambda self, payloads: 1 / 0}, "Mine failed: ZeroDivisionError"),
    ({"protect": lambda self: []}, "Mine failed: TypeError"),
    ({"protect": leaves}, "Mine failed: SystemExit"),
    ({"protect": lambda self, payloads: None}, r"protect\(\) of 8 payloads returned None: it must be a list of bytes"),
    ({"protect": lambda self, payloads: [3]}, r"protect\(\) gave 3 as a payload: it must be bytes"),
    ({"protect": lambda self, payloads: [b""]}, r"protect\(\) gave a payload of 0 bytes: from 1 to 1,180"),
    ({"protect": lambda self, payloads: [b"x" * 5000]}, "gave a payload of 5,000 bytes"),
    ({"protect": lambda self, payloads: [b"x"] * 10_000}, "it must be a list of bytes, 256 of them at the most"),
    ({"recover": lambda self, payloads, repairs: 1 / 0}, "Mine failed: ZeroDivisionError"),
    ({"recover": lambda self, payloads, repairs: None}, r"recover\(\) of 8 payloads returned None"),
    ({"recover": lambda self, payloads, repairs: payloads[1:]}, "it must be a list of as many"),
    ({"recover": lambda self, payloads, repairs: [3] * 8}, r"recover\(\) gave 3 for a payload"),
    ({"recover": lambda self, payloads, repairs: [b"x"] * 8}, r"recover\(\) changed a payload that was not lost"),
    ({"recover": leaves}, "Mine failed: SystemExit"),
    ({"ask": lambda self, missing, now: 1 / 0}, "Mine failed: ZeroDivisionError"),
    ({"ask": lambda self, missing, now: None}, r"ask\(\) returned None: it must be a list of numbers"),
    ({"ask": lambda self, missing, now: [7]}, r"ask\(\) asks for 7, which is not missing"),
    ({"ask": lambda self, missing, now: ["x"]}, r"ask\(\) asks for 'x', which is not missing"),
    ({"ask": lambda self, missing, now: missing}, r"ask\(\) asks for Missing\(.*which is not missing"),
    ({"ask": leaves}, "Mine failed: SystemExit"),
]


@pytest.mark.parametrize(("methods", "words"), BROKEN)
def test_a_stream_goes_on_without_a_broken_repair(methods: dict[str, Any], words: str, guard: Guard) -> None:
    told: list[PartError] = []
    pair = run(mine(**methods), call=guard.call, failed=told.append)
    assert 1 <= len(told) <= 2  # both sides make one of it
    assert all(str(error).startswith("the repair Mine") for error in told)
    with pytest.raises(PartError, match=words):
        raise told[0]
    fates = Counter(pair.fates())
    assert fates.total() == FRAMES
    assert fates["shown"] >= 0.9 * FRAMES  # by asking, at the least: avlab's own rule takes over
    if "ask" in methods:
        assert packets(pair)["recovered"] > 5


@pytest.mark.parametrize("method", ["protect", "recover", "ask"])
def test_a_repair_with_a_loop_that_never_ends_is_ended(method: str, guard: Guard) -> None:
    told: list[PartError] = []
    began = time.monotonic()
    run(mine(**{method: spins}), call=guard.call, failed=told.append)
    assert time.monotonic() - began < 20
    assert "the repair Mine had not returned after 1.5 s, and was ended" in str(told[0])


def test_without_anyone_to_tell_a_broken_repair_ends_the_run() -> None:
    with pytest.raises(PartError, match="Mine failed: ZeroDivisionError"):
        run(mine(protect=lambda self, payloads: 1 / 0))


def test_no_packet_of_a_repair_is_longer_than_a_packet_may_be() -> None:
    pair = run(Xor)
    assert max(event.batch.size for event in sent(pair, OWN)) <= MAX_PACKET
