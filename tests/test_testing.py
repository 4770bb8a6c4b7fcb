"""Checks of parts: those of a student that are right pass, and each mistake gets its sentence."""

from __future__ import annotations

import functools
import threading
from typing import Any

import cv2
import numpy as np
import pytest

import avlab
from avlab import Choice, Dropped, Due, Encoded, Missing, Network, Packet, Report, testing, whole
from avlab.timing.pacing import DeadlinePacer, FeedbackPacer, NoPacing, TutorialPacer

# ---- parts as students write them


class Fixed:
    def __init__(self) -> None:
        self.frames: list[Any] = []
        self.start_ns = 0

    def restart(self, start_ns: int) -> None:
        self.frames, self.start_ns = [], start_ns

    def push(self, frame: Any, now_ns: int) -> None:
        self.frames.append(frame)

    def wake_at(self) -> int | None:
        return self.start_ns + self.frames[0].pts_ns if self.frames else None

    def pull(self, now_ns: int) -> list[Any]:
        frames, self.frames = self.frames, []
        return [Due(frame, now_ns) for frame in frames]


class Buffer:
    """Holds each frame until it is whole, and gives up what its deadline has passed."""

    def __init__(self) -> None:
        self.frames: dict[int, list[Packet]] = {}
        self.extra: list[Packet] = []
        self.done = -1

    def push(self, packet: Packet, now: float) -> None:
        frame = self.frames.setdefault(packet.timestamp, [])
        if packet.timestamp <= self.done or packet.number in [each.number for each in frame]:
            self.extra.append(packet)
        else:
            frame.append(packet)

    def pull(self, now: float) -> list[list[Packet] | Dropped]:
        out: list[list[Packet] | Dropped] = [Dropped([packet], "duplicate") for packet in self.extra]
        self.extra = []
        for timestamp in sorted(self.frames):
            packets = sorted(self.frames[timestamp])
            over = bool(packets) and (packets[0].deadline or 0.0) <= now
            if not over and not (packets and whole(packets)):
                break
            self.done = timestamp
            del self.frames[timestamp]
            if packets:
                out.append(packets if whole(packets) else Dropped(packets, "incomplete"))
        return out


class Awake(Buffer):
    def wake_at(self) -> float | None:
        deadlines = [packet.deadline or 0.0 for packets in self.frames.values() for packet in packets]
        return min(deadlines, default=None)


class Format:
    name = "mine"

    def pack(self, frame: bytes, most: int) -> list[bytes]:
        return [frame[at : at + most] for at in range(0, len(frame), most)]

    def unpack(self, payloads: list[bytes | None]) -> bytes | None:
        return None if None in payloads else b"".join(payload for payload in payloads if payload)


class Jpeg:
    def encode(self, image: Any, quality: int) -> bytes:
        return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()

    def decode(self, data: bytes) -> Any:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


class Grey(Jpeg):
    def decode(self, data: bytes) -> Any:
        return np.stack([cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)] * 3, axis=-1)


class Difference:
    """A codec that predicts: what has changed since the picture before."""

    def __init__(self) -> None:
        self.sent = self.seen = None

    def reset(self) -> None:
        self.sent = self.seen = None

    def encode(self, image: Any, quality: int, *, key: bool, pts: float) -> Encoded:
        key = key or self.sent is None
        change = image if key else image - self.sent
        self.sent = image
        return Encoded(bytes([key]) + np.array(image.shape[:2], np.uint16).tobytes() + change.tobytes(), key)

    def decode(self, data: bytes) -> Any:
        shape = (*np.frombuffer(data[1:5], np.uint16), 3)
        change = np.frombuffer(data[5:], np.uint8).reshape(shape)
        self.seen = change if data[0] else self.seen + change
        return self.seen


class Xor:
    name = "xor"

    def protect(self, payloads: list[bytes]) -> list[bytes]:
        longest = max(len(payload) for payload in payloads)
        total = 0
        for payload in payloads:
            total ^= int.from_bytes(len(payload).to_bytes(2) + payload.ljust(longest, b"\0"))
        return [total.to_bytes(longest + 2)]

    def recover(self, payloads: list[bytes | None], repairs: list[bytes | None]) -> list[bytes | None]:
        if payloads.count(None) != 1 or not repairs or repairs[0] is None:
            return payloads
        total, longest = int.from_bytes(repairs[0]), len(repairs[0]) - 2
        for payload in payloads:
            if payload is not None:
                total ^= int.from_bytes(len(payload).to_bytes(2) + payload.ljust(longest, b"\0"))
        back = total.to_bytes(longest + 2)
        return [back[2 : 2 + int.from_bytes(back[:2])] if payload is None else payload for payload in payloads]


class Again:
    name = "again"

    def ask(self, missing: list[Missing], now: float) -> list[int]:
        return [lost.number for lost in missing if not lost.asked]


class Careful:
    def update(self, report: Report) -> Choice | None:
        return Choice(report.quality, max(16, report.width - 8)) if report.loss > 0.1 else None


def by_chance(packet: Packet, state: dict[str, Any]) -> bool:
    state["bad"] = packet.chance < (0.5 if state.get("bad") else 0.02)
    return state["bad"]


def slowest(delays: list[float]) -> float:
    return max(delays)


class Remembers:
    def __init__(self) -> None:
        self.most = 0.0

    def observe(self, stream: str, delay: float, now: float) -> None:
        self.most = max(self.most, delay)

    def target(self, now: float) -> float | None:
        return self.most or None


GOOD: list[tuple[str, Any]] = [
    ("pacer", Fixed),
    ("pacer", Fixed()),
    ("pacer", DeadlinePacer()),
    ("pacer", NoPacing()),
    ("pacer", TutorialPacer()),
    ("pacer", FeedbackPacer(avlab.pi_rule)),
    ("jitter_buffer", Buffer),
    ("jitter_buffer", Awake),
    ("payload", Format),
    ("payload", Format()),
    ("codec", Jpeg),
    ("codec", Grey),
    ("codec", Difference),
    ("repair", Xor),
    ("repair", Again),
    ("rate_control", Careful),
    ("rate_control", avlab.Aimd()),
    ("network", Network(loss=0.1, jitter=0.01)),
    ("network", Network(loss=by_chance, delay=lambda packet, state: packet.chance / 10)),
    ("network", by_chance),
    ("playout_delay", slowest),
    ("playout_delay", Remembers),
]


@pytest.mark.parametrize(("kind", "part"), GOOD)
def test_a_part_that_is_right_passes(kind: str, part: Any) -> None:
    verdict = avlab.check.part(kind, part)
    assert verdict, verdict
    assert "keeps to its contract" in str(verdict)


# ---- mistakes


def of(kind: type, **methods: Any) -> type:
    return type("Mine", (kind,), methods)


def spins(*_: Any) -> Any:
    while True:
        pass


class Forgets(Buffer):
    """Loses what never became whole."""

    def pull(self, now: float) -> list[list[Packet] | Dropped]:
        return [item for item in super().pull(now) if not isinstance(item, Dropped)]


class Waits(Buffer):
    """Waits for a lost packet for ever."""

    def pull(self, now: float) -> list[list[Packet] | Dropped]:
        return super().pull(min(now, 0.0))


class AtOnce(Buffer):
    """Gives each packet as it comes."""

    def pull(self, now: float) -> list[list[Packet] | Dropped]:
        packets = [packet for frame in self.frames.values() for packet in frame]
        self.frames = {}
        return [[packet] for packet in packets]


class Newest(Buffer):
    """Gives frames as they become whole, whichever comes first."""

    def pull(self, now: float) -> list[list[Packet] | Dropped]:
        out: list[list[Packet] | Dropped] = [Dropped([packet], "duplicate") for packet in self.extra]
        self.extra = []
        for timestamp in list(self.frames):
            packets = sorted(self.frames[timestamp])
            if packets and (whole(packets) or (packets[0].deadline or 0.0) <= now):
                out.append(packets if whole(packets) else Dropped(packets, "incomplete"))
                self.frames[timestamp] = []
        return out


def later(method: str, kind: type, *, calls: int) -> type:
    """A part that is right for a while."""
    right = getattr(kind, method)

    @functools.wraps(right)
    def then(self: Any, *arguments: Any, **named: Any) -> Any:
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls > calls:
            raise OSError("no more")
        return right(self, *arguments, **named)

    return of(kind, **{method: then})


LATER: list[tuple[str, type, str]] = [
    ("pacer", Fixed, "push"),
    ("pacer", Fixed, "wake_at"),
    ("pacer", Fixed, "pull"),
    ("jitter_buffer", Buffer, "push"),
    ("jitter_buffer", Buffer, "pull"),
    ("jitter_buffer", Awake, "wake_at"),
    ("payload", Format, "pack"),
    ("payload", Format, "unpack"),
    ("codec", Jpeg, "encode"),
    ("codec", Jpeg, "decode"),
    ("codec", Difference, "encode"),
    ("repair", Xor, "protect"),
    ("repair", Xor, "recover"),
    ("repair", Again, "ask"),
    ("rate_control", Careful, "update"),
    ("playout_delay", Remembers, "observe"),
    ("playout_delay", Remembers, "target"),
]


@pytest.mark.parametrize(("kind", "part", "method"), LATER)
def test_a_part_that_fails_after_a_while_does_not_pass(kind: str, part: type, method: str) -> None:
    verdict = avlab.check.part(kind, later(method, part, calls=40))
    assert not verdict
    assert "failed: OSError: no more" in str(verdict)


WRONG: list[tuple[str, Any, str]] = [
    ("pacer", of(Fixed, pull=lambda self, now_ns: []), "gives nothing at"),
    ("pacer", of(Fixed, wake_at=lambda self: None), "holds frame 0 for ever"),
    ("pacer", of(Fixed, wake_at=lambda self: 2**62), "stands still"),
    ("pacer", of(Fixed, push=spins), "had not returned after 1.5 s"),
    ("pacer", of(Fixed, push=lambda self, frame, now_ns: 1 / 0), "ZeroDivisionError"),
    ("pacer", of(Fixed, restart=lambda self, start_ns: None)(), "must be a frame that was pushed"),
    ("pacer", type("Mine", (), {"push": spins}), "no method wake_at"),
    ("pacer", of(Fixed, push=lambda self, frame, now_ns: setattr(frame, "pts_ns", now_ns)), "AttributeError"),
    ("pacer", of(Fixed, notices=lambda self: 1 / 0), "ZeroDivisionError"),
    ("pacer", of(Fixed, __new__=lambda cls: 5), "no method push"),
    (
        "jitter_buffer",
        of(Buffer, push=lambda self, packet, now: Buffer.push(self, packet._replace(size=1), now)),
        "otherwise",
    ),
    (
        "jitter_buffer",
        of(Buffer, pull=lambda self, now: [Dropped(p, np.zeros(2)) for p in Buffer.pull(self, now)]),
        "as array",
    ),
    ("jitter_buffer", of(Buffer, wake_at=property(lambda self: 1 / 0)), "cannot be checked: .* ZeroDivisionError"),
    ("jitter_buffer", Forgets, "went in twice and came out once"),
    ("jitter_buffer", Waits, "Waits"),
    ("jitter_buffer", AtOnce, "are no frame: see avlab.whole"),
    ("jitter_buffer", Newest, "Newest"),
    ("jitter_buffer", of(Buffer, pull=lambda self, now: None), r"its pull\(\) returned None"),
    ("jitter_buffer", of(Buffer, pull=lambda self, now: [3]), r"its pull\(\) gave 3"),
    ("jitter_buffer", of(Buffer, wake_at=lambda self: 0.001), "gives nothing at 0.001 s"),
    ("jitter_buffer", of(Buffer, wake_at=lambda self: "soon"), "returned 'soon'"),
    ("jitter_buffer", of(Buffer, push=spins), "had not returned after 1.5 s"),
    ("jitter_buffer", Buffer(), "handed in as a class"),
    ("jitter_buffer", type("Mine", (), {}), "no method push"),
    ("payload", of(Format, name="a b"), "its name is 'a b'"),
    ("payload", of(Format, name="Bytes"), "the name 'Bytes' is that of avlab's own"),
    ("payload", of(Format, name=property(lambda self: 1 / 0)), "cannot be checked: .* ZeroDivisionError"),
    ("payload", of(Format, __new__=lambda cls: 5), "no method pack"),
    ("payload", of(Format, pack=lambda self, frame, most: [frame]), "gave a piece of"),
    ("payload", of(Format, pack=lambda self, frame, most: [frame[:most]]), "makes something else"),
    ("payload", of(Format, pack=lambda self, frame, most: []), "one at least"),
    ("payload", of(Format, unpack=lambda self, payloads: b"".join(payloads)), "TypeError"),
    ("payload", of(Format, unpack=lambda self, payloads: None), "makes nothing"),
    ("payload", of(Format, unpack=spins), "had not returned after 1.5 s"),
    ("codec", of(Jpeg, encode=lambda self, image, quality: image), r"encode\(\) returned"),
    ("codec", of(Jpeg, decode=lambda self, data: None), "gave None"),
    ("codec", of(Jpeg, decode=lambda self, data: Jpeg().decode(data)[::-1]), "differs by"),
    ("codec", of(Jpeg, decode=lambda self, data: Jpeg().decode(data)[:, :, ::-1]), "differs by"),
    ("codec", of(Jpeg, decode=lambda self, data: Jpeg().decode(data) / 255), "float64"),
    ("codec", of(Grey, decode=lambda self, data: Grey().decode(data)[::-1]), "differs by"),
    ("codec", of(Jpeg, __new__=lambda cls: 5), "no method encode"),
    ("codec", of(Jpeg, encode=spins), "had not returned after 1.5 s"),
    ("codec", of(Difference, encode=lambda self, image, quality, *, key, pts: b""), "it is Encoded"),
    ("repair", of(Xor, recover=lambda self, payloads, repairs: payloads), "brings back nothing"),
    ("repair", of(Xor, recover=lambda self, payloads, repairs: [p or b"?" for p in payloads]), "as something else"),
    ("repair", of(Xor, recover=lambda self, payloads, repairs: payloads[:-1]), "it must be a list of as many"),
    ("repair", of(Xor, protect=lambda self, payloads: None), r"protect\(\) of 1 payloads returned None"),
    ("repair", of(Xor, protect=spins), "had not returned after 1.5 s"),
    ("repair", of(Again, ask=lambda self, missing, now: [1]), "asks for 1, which is not missing"),
    ("repair", of(Again, ask=lambda self, missing, now: None), r"ask\(\) returned None"),
    ("repair", of(Again, name="RTX"), "the name 'RTX' is that of avlab's own"),
    ("repair", type("Mine", (), {"name": "mine"}), "neither protect, recover nor ask"),
    ("rate_control", of(Careful, update=lambda self, report: 3), "returned 3"),
    ("rate_control", of(Careful, update=lambda self, report: report.round_trip + 1), "TypeError"),
    ("rate_control", of(Careful, update=spins), "had not returned after 1.5 s"),
    ("rate_control", 3, "no method update"),
    ("rate_control", of(Careful, __init__=lambda self: 1 / 0), "ZeroDivisionError"),
    ("rate_control", of(Careful, __new__=lambda cls: 5), "no method update"),
    ("network", lambda packet: True, "TypeError"),
    ("network", Network(loss=lambda packet, state: COUNT()), "did another thing with the same packets"),
    ("network", Network(delay=lambda packet, state: -1), "returned -1"),
    ("network", 3, "is no network"),
    ("network", spins, "had not returned after 1.5 s"),
    ("playout_delay", lambda delays: delays, "it must return a number of seconds"),
    ("playout_delay", lambda delays: None, "returned nothing"),
    ("playout_delay", of(Remembers, target=lambda self, now: "x"), "returned 'x'"),
    ("playout_delay", type("Mine", (), {"observe": spins}), "no method target"),
    ("playout_delay", spins, "had not returned after 1.5 s"),
    ("playout_delay", 3, "is no playout delay"),
]


class _Count:
    """Says another thing each time."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked % 7 == 0  # of 2,000 packets, which is no multiple of it


COUNT = _Count()


@pytest.mark.parametrize(("kind", "part", "words"), WRONG)
def test_each_mistake_has_its_sentence(kind: str, part: Any, words: str) -> None:
    check = {"playout_delay": "delay", "rate_control": "controller"}.get(kind, kind)
    given = {"loss": part} if kind == "network" and callable(part) else {}
    with pytest.raises(AssertionError, match=words) as raised:
        getattr(testing, f"check_{check}")(*([] if given else [part]), **given)
    assert "\n" not in str(raised.value)


def test_a_verdict_says_what_the_check_raises() -> None:
    verdict = avlab.check.part("jitter_buffer", Forgets)
    assert not verdict
    assert "Dropped(packets, reason)" in str(verdict)
    assert "cannot be compared" not in str(verdict)


def test_a_part_of_another_kind_is_an_error_of_whoever_asks() -> None:
    with pytest.raises(ValueError, match="a part is one of codec, jitter_buffer, network"):
        avlab.check.part("jitterbuffer", Buffer)


def test_what_does_not_end_is_named_while_it_stands_still() -> None:
    let_go = threading.Event()

    class Waits:
        def update(self, report: Report) -> None:
            let_go.wait(10)

    threading.Timer(5.0, let_go.set).start()
    with (
        pytest.warns(avlab.PartWarning, match="the rate controller Waits has not returned, and cannot be ended"),
        pytest.raises(AssertionError, match=r"had not returned after 1\.5 s"),
    ):
        testing.check_controller(Waits)
