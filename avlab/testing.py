"""Checks that anyone's own part can be held against, without a stream: each raises AssertionError with a sentence.

What a part has to be stands in `avlab.parts`. A check calls it as a stream does, in virtual time, with what streams
bring: packets that are lost, come twice or in another order, frames of all sizes. A call that takes 1.5 s is ended.
"""

from __future__ import annotations

import inspect
import random
import re
import warnings
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any

import numpy as np

from avlab.network.impairment import Impairment, InTransit, Seen
from avlab.network.ownrepair import TAKEN
from avlab.network.ratecontrol import asked
from avlab.network.settings import Network
from avlab.parts import (
    Call,
    Choice,
    Dropped,
    Encoded,
    Missing,
    Packet,
    PartEndedError,
    PartError,
    PartWarning,
    Report,
    described,
    missing_methods,
    named,
    number,
    shown,
    whole,
)
from avlab.stream.guard import Guard
from avlab.timing.pacing import FOREVER_NS
from avlab.timing.seat import Seat
from avlab.timing.target import OwnTarget, own_target

__all__ = [
    "check_codec",
    "check_controller",
    "check_delay",
    "check_jitter_buffer",
    "check_network",
    "check_pacer",
    "check_payload",
    "check_repair",
]


def __dir__() -> list[str]:
    return sorted(__all__)


NS = 1_000_000_000
FRAME_S = 1 / 30
DELAY_S = 0.1
"""From a packet's sending to its deadline."""


calling: ContextVar[Call | None] = ContextVar("calling", default=None)
"""What calls parts instead, for whoever watches over them: `avlab.check` lets go of one that cannot be ended."""


def _held(said: str, check: Callable[[Call], None]) -> None:
    """Run a check whose calls take no longer than they may; what a part fails of becomes an AssertionError."""
    with Guard(_stands_still) as guard:
        call = calling.get()
        try:
            check(call or guard.call)
        except (PartError, TypeError) as error:
            raise AssertionError(str(error)) from error
        except AssertionError:
            raise
        except Exception as error:  # an attribute, a comparison or the like: no call of a part's
            if call is not None:
                raise  # to whoever watches over it
            raise AssertionError(f"{said} cannot be checked: something of it fails with {described(error)}") from error


def _stands_still(words: str) -> None:
    warnings.warn(PartWarning(words, PartEndedError(words)), stacklevel=1)


def _needs(part: Any, said: str, methods: Sequence[str]) -> None:
    missing = missing_methods(part, methods)
    assert not missing, f"{said} has no method {missing[0]}: it needs {' and '.join(methods)}"


def _made(part: Any, said: str, methods: Sequence[str], call: Call) -> Any:
    """An object of a part that is handed in as a class, or as an object."""
    _needs(part, said, methods)
    made = call(said, part) if isinstance(part, type) else part
    _needs(made, said, methods)
    return made


# ---- pacers


class _Frame:
    """As much of a frame as a pacer sees, which changes nothing of it."""

    def __init__(self, index: int) -> None:
        self.index = index

    @property
    def pts_ns(self) -> int:
        return round(self.index * NS * FRAME_S)

    def __repr__(self) -> str:
        return f"frame {self.index}"


def check_pacer(pacer: Any) -> None:
    """Hold a pacer, or its class, against `avlab.parts.Pacer`: 100 frames at 30 fps, and a second start.

    Every frame has to leave, once, as Due or as Dropped, and `wake_at` has to name the moment. As in a stream, the next
    one is handed over when the one before has left.

    Args:
        pacer: An object, or its class.

    Raises:
        AssertionError: What is wrong, in a sentence.
    """
    said = f"the pacer {named(pacer if isinstance(pacer, type) else type(pacer))}"

    def check(call: Call) -> None:
        _needs(pacer, said, ("push", "wake_at", "pull") if isinstance(pacer, type) else ("restart", "push", "wake_at"))
        seat = Seat(pacer, call=call)
        for start_ns in (0, 10 * NS):
            seat.restart(start_ns)
            now_ns = start_ns
            for index in range(100):
                frame = _Frame(index)
                seat.push(frame, now_ns)
                for _ in range(1000):
                    wake_ns = seat.wake_at()
                    assert wake_ns is not None, f"{said} holds frame {index} for ever"
                    again_ns = seat.wake_at()
                    assert again_ns == wake_ns, (
                        f"{said}: its wake_at() said {wake_ns:,} and then {again_ns:,}, with nothing in between: it "
                        "is to change nothing"
                    )
                    assert wake_ns < FOREVER_NS, f"{said} stands still with frame {index}: no wake_at() is so far off"
                    now_ns = max(now_ns, wake_ns)
                    left = seat.pull(now_ns)
                    seat.notices()
                    if left:
                        break
                else:
                    raise AssertionError(f"{said} puts frame {index} off for ever")
                assert [leaving.item for leaving in left] == [frame], f"{said} holds frame {index} back"
            seat.push(_Frame(100), now_ns)  # it is to be forgotten at the start

    _held(said, check)


# ---- networks


def check_network(network: Network | None = None, *, loss: Any = None, delay: Any = None) -> None:
    """Hold a network's own functions against `avlab.parts.Lost` and `Delay`: 2,000 packets of two streams, twice.

    The same packets have to fare the same again: what is left to chance is drawn from `packet.chance`.

    Args:
        network: A network whose functions are checked.
        loss: The function alone, `lost(packet, state)`.
        delay: The function alone, `delay(packet, state)`.

    Raises:
        AssertionError: What is wrong, in a sentence.
    """

    said = "the network"

    def check(call: Call) -> None:
        way = network
        if way is None:
            way = Network(loss=0.0 if loss is None else loss, delay=0.0 if delay is None else delay)
        assert isinstance(way, Network), f"{shown(way)} is no network: hand in avlab.Network(loss=..., delay=...)"
        first, second = (_passed(way, call) for _ in range(2))
        functions = [named(part) for part in (way.loss, way.delay) if callable(part)]
        assert first == second, (
            f"the network's {' and '.join(functions)} did another thing with the same packets: remember in state, and "
            "take chance from packet.chance"
        )

    _held(said, check)


def _passed(network: Network, call: Call) -> list[tuple[int, Any]]:
    way = Impairment(network, call=call, describe=lambda packet: packet.item)
    out: list[tuple[int, Any]] = []
    for at in range(2000):
        now_ns = at // 10 * round(NS * FRAME_S)
        while (wake_ns := way.wake_at()) is not None and wake_ns <= now_ns:
            out += [(wake_ns, outcome) for outcome in way.pull(wake_ns)]
        stream = "audio" if at % 10 == 9 else "video"
        seen = Seen(at & 0xFFFF, at // 10 * 3000, at % 10 in (8, 9), bytes([at & 0xFF]) * 100)
        way.push(InTransit(stream, 1200 if stream == "video" else 900, seen), now_ns)
    while (wake_ns := way.wake_at()) is not None:
        out += [(wake_ns, outcome) for outcome in way.pull(wake_ns)]
    return out


# ---- playout delays


def check_delay(delay: Any) -> None:
    """Hold a playout delay, a function or a class, against `avlab.parts.Target` and `PlayoutDelay`.

    It is told of a calm minute, of one with jitter, and of delays that grow and shrink.

    Args:
        delay: A function, or a class.

    Raises:
        AssertionError: What is wrong, in a sentence.
    """

    said = f"the playout delay {named(delay if callable(delay) else type(delay))}"

    def check(call: Call) -> None:
        assert own_target(delay), (
            f"{shown(delay)} is no playout delay of one's own: it is a function target(delays), or a class with "
            "observe(stream, delay, now) and target(now)"
        )
        chance = random.Random(1)
        ways: list[Callable[[float], float]] = [
            lambda time: 0.0,
            lambda time: chance.expovariate(50),
            lambda time: 0.2 * abs(time % 20 - 10) / 10,
        ]
        for way in ways:
            aim = OwnTarget(delay, call=call)
            for at in range(1800):
                sent_ns = round(at * NS * FRAME_S)
                now_ns = sent_ns + round(way(at * FRAME_S) * NS)
                aim.observe("audio" if at % 3 == 2 else "video", sent_ns, now_ns)
                moved = aim.move_ns(0, now_ns)
                assert moved is None or abs(moved) <= 10 * NS, f"{said} moves by {moved} ns"

    _held(said, check)


# ---- rate controllers


def check_controller(controller: Any) -> None:
    """Hold a rate controller, or its class, against `avlab.parts.RateController`: good reports, bad ones, none known.

    `avlab.check.controller` says how well it does.

    Args:
        controller: An object, or its class.

    Raises:
        AssertionError: What is wrong, in a sentence.
    """
    said = f"the rate controller {named(controller if isinstance(controller, type) else type(controller))}"

    def check(call: Call) -> None:
        made = _made(controller, said, ("update",), call)
        now = Choice(80, 640)
        chance = random.Random(1)
        for at in range(400):
            bad = at // 50 % 2
            report = Report(
                time=at / 2,
                client=1 + at % 2,
                loss=chance.random() if bad else 0.0,
                jitter=chance.random() / 100,
                round_trip=None if at < 4 else 0.02 + 0.5 * bad * chance.random(),
                sent_kbps=0.0 if at == 7 else 2000 * now.width / 640,
                quality=now.quality,
                width=now.width,
            )
            now = asked(made, report, call=call) or now

    _held(said, check)


# ---- jitter buffers


def check_jitter_buffer(buffer: Any) -> None:
    """Hold a jitter buffer's class against `avlab.parts.JitterBuffer`: frames in order, shuffled, twice, with gaps.

    Whole frames have to leave by their deadlines, once and in order, and every packet that went in has to come out, in
    a frame or as Dropped(packets, reason).

    Args:
        buffer: A class.

    Raises:
        AssertionError: What is wrong, in a sentence.
    """
    said = f"the jitter buffer {named(buffer if isinstance(buffer, type) else type(buffer))}"
    assert isinstance(buffer, type), f"{said} is to be handed in as a class: one is made for each stream"

    def check(call: Call) -> None:
        chance = random.Random(1)
        in_order = _stream(frames=12)
        shuffled = sorted(in_order, key=lambda arrival: (arrival[0].timestamp, chance.random()))
        for at in range(1, len(shuffled) - 1):  # a frame's last packet and the next one's first change places
            if shuffled[at - 1][0].timestamp == shuffled[at][0].timestamp != shuffled[at + 1][0].timestamp:
                shuffled[at], shuffled[at + 1] = shuffled[at + 1], shuffled[at]
        twice = [arrival for arrival in in_order for _ in range(1 + (arrival[0].number % 5 == 0))]
        gaps = [arrival for arrival in in_order if arrival[0].number % 17 != 4]
        no_end = [arrival for arrival in in_order if not (arrival[0].marker and arrival[0].timestamp == 9000)]
        no_start = [arrival for arrival in in_order if arrival[0].timestamp > 3000 or not arrival[0].first]
        for what, arrivals in (
            ("packets in order", in_order),
            ("many packets in order", _stream(frames=120)),
            ("packets in another order", shuffled),
            ("some packets twice", twice),
            ("some packets lost", gaps),
            ("a frame's last packet lost", no_end),
            ("the first frames' first packets lost", no_start),
            ("nothing but a part of a frame", in_order[1:2]),
        ):
            moments = sorted(moment for _, moment in arrivals)
            _play(buffer, said, what, [(p, at) for (p, _), at in zip(arrivals, moments, strict=True)], call)

    _held(said, check)


def _stream(frames: int) -> list[tuple[Packet, float]]:
    out, at = [], 65_000
    for frame in range(frames):
        count = 1 + frame % 4
        for place in range(count):
            sent = frame * FRAME_S
            out.append(
                (
                    Packet(
                        at,
                        frame * 3000,
                        sent + 0.01 + place * 0.0005,
                        1200,
                        "video",
                        place == 0,
                        place == count - 1,
                        bytes([frame, place]),
                        sent + DELAY_S,
                        0.5,
                    ),
                    sent + 0.01 + place * 0.0005,
                )
            )
            at += 1
    return out


def _play(buffer: type, said: str, what: str, arrivals: list[tuple[Packet, float]], call: Call) -> None:
    made = _made(buffer, said, ("push", "pull"), call)
    wakes = callable(getattr(made, "wake_at", None))
    given: list[tuple[float, list[Packet]]] = []
    dropped: list[Packet] = []
    known = {packet.number: packet for packet, _ in arrivals}

    def pull(now: float) -> bool:
        out = call(said, made.pull, now)
        assert isinstance(out, list | tuple), (
            f"{said}: its pull() returned {shown(out)}: it must be a list of frames, empty if there is none"
        )
        for item in out:
            packets = item.item if isinstance(item, Dropped) else item
            packets = [packets] if isinstance(packets, Packet) else packets
            right = isinstance(packets, list | tuple) and all(isinstance(packet, Packet) for packet in packets)
            assert right and packets, (
                f"{said}: its pull() gave {shown(item)}: it must be a frame, which is a list of the packets that were "
                "pushed, or Dropped(packets, reason)"
            )
            strange = next((packet for packet in packets if known.get(packet.number) != packet), None)
            assert strange is None, (
                f"{said}, {what}: it gave packet {shown(strange and strange.number)} otherwise than it was pushed: "
                "packets leave as they came"
            )
            if isinstance(item, Dropped):
                assert isinstance(item.reason, str) and item.reason in ("incomplete", "late", "duplicate"), (
                    f'{said} dropped packets as {shown(item.reason)}: say "incomplete", "late" or "duplicate"'
                )
                dropped.extend(packets)
                continue
            numbers = ", ".join(str(packet.number) for packet in packets)
            assert whole(packets), f"{said}, {what}: packets {numbers}, which it gave, are no frame: see avlab.whole"
            in_order = [packet.number for packet in packets] == sorted(packet.number for packet in packets)
            assert in_order, f"{said}, {what}: the packets of a frame are not in their order: {numbers}"
            given.append((now, list(packets)))
        return bool(out)

    deadlines = sorted({packet.deadline or 0.0 for packet, _ in arrivals})
    events = sorted([(at, packet) for packet, at in arrivals], key=lambda event: event[0])
    moments = sorted([at for at, _ in events] + deadlines + [deadlines[-1] + 1.0, deadlines[-1] + 2.0])
    for moment in moments:
        for _ in range(100 if wakes else 0):
            wake = call(said, made.wake_at)
            if wake is None:
                break
            at = number(wake)
            assert at is not None, f"{said}: its wake_at() returned {shown(wake)}: it must be seconds, or None"
            if at > moment:
                break
            # A microsecond later: float seconds that were put together in another order differ in their last digit.
            assert pull(max(at, 0.0) + 1e-6) or at == 0.0 or call(said, made.wake_at) != wake, (
                f"{said}, {what}: it gives nothing at {at:.3f} s, as its wake_at() promised"
            )
        while events and events[0][0] <= moment:
            call(said, made.push, events.pop(0)[1], moment)
        pull(moment)

    order = [packets[0].number for _, packets in given]
    assert order == sorted(set(order)), f"{said}, {what}: its frames leave in another order than they were sent in"
    pushed = sorted((packet.number for packet, _ in arrivals))
    left = sorted([packet.number for _, packets in given for packet in packets] + [p.number for p in dropped])
    for each in sorted(set(pushed)):
        went, came = pushed.count(each), left.count(each)
        assert came >= went, (
            f"{said}, {what}: packet {each} went in {'once' if went == 1 else 'twice'} and came out "
            f"{'never' if came == 0 else 'once'}: what is in no frame leaves as Dropped(packets, reason)"
        )
    assert left == pushed, f"{said}, {what}: it gave packets more often than they were pushed"
    here = {packet.timestamp: [p for p, _ in arrivals if p.timestamp == packet.timestamp] for packet, _ in arrivals}
    on_time = {packets[0].timestamp: now for now, packets in given}
    for timestamp, packets in here.items():
        if not whole({packet.number: packet for packet in packets}.values()):
            continue
        last = packets[0].deadline or 0.0
        assert timestamp in on_time, f"{said}, {what}: the frame of timestamp {timestamp} is whole and was not given"
        assert on_time[timestamp] <= last + 2e-6, (
            f"{said}, {what}: the frame of timestamp {timestamp} leaves at {on_time[timestamp]:.3f} s, after its "
            f"deadline at {last:.3f} s"
        )


# ---- payload formats


def check_payload(payload: Any) -> None:
    """Hold a payload format, or its class, against `avlab.parts.PayloadFormat`: frames of 1 byte to 100,000.

    Pieces have 1 to `most` bytes, and of all of them `unpack` makes the frame again; with one lost it may say None.

    Args:
        payload: An object, or its class.

    Raises:
        AssertionError: What is wrong, in a sentence.
    """
    said = f"the payload format {named(payload if isinstance(payload, type) else type(payload))}"

    def check(call: Call) -> None:
        made = _made(payload, said, ("pack", "unpack"), call)
        _check_name(made, said, ("bytes",))
        chance = random.Random(1)
        for most in (100, 1_180):
            sizes = [1, 2, most - 1, most, most + 1, 3 * most, 100_000]
            for size in [*sizes, *(chance.randrange(1, 10 * most) for _ in range(50))]:
                frame = chance.randbytes(size)
                pieces = call(said, made.pack, frame, most)
                assert isinstance(pieces, list | tuple) and pieces, (
                    f"{said}: pack() of {size} bytes returned {shown(pieces)}: it must be a list of bytes, one at least"
                )
                for piece in pieces:
                    right = isinstance(piece, bytes | bytearray | memoryview) and 1 <= len(piece) <= most
                    assert right, (
                        f"{said}: pack() of {size} bytes gave a piece of {len(piece)} bytes: from 1 to {most} are asked"
                        if isinstance(piece, bytes | bytearray | memoryview)
                        else f"{said}: pack() gave {shown(piece)} as a piece: it must be bytes"
                    )
                back = call(said, made.unpack, list(pieces))
                assert isinstance(back, bytes | bytearray | memoryview) and bytes(back) == frame, (
                    f"{said}: of the {len(pieces)} pieces that pack() made of {size} bytes, unpack() makes "
                    f"{'nothing' if back is None else 'something else'}"
                )
                for lost in sorted({0, len(pieces) // 2, len(pieces) - 1}):
                    given: list[Any] = [None if at == lost else piece for at, piece in enumerate(pieces)]
                    _is_bytes_or_none(call(said, made.unpack, given), f"{said}: unpack() with a piece lost")
        _is_bytes_or_none(call(said, made.unpack, [None, None]), f"{said}: unpack() with all pieces lost")

    _held(said, check)


def _check_name(part: Any, said: str, taken: Sequence[str]) -> None:
    name = getattr(part, "name", None)
    assert isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,31}", name), (
        f"{said}: its name is {shown(name)}: it must be up to 32 letters, digits and hyphens, as they are said in SDP"
    )
    assert name.lower() not in taken, f"{said}: the name {name!r} is that of avlab's own: give it another one"


def _is_bytes_or_none(value: Any, call: str) -> None:
    assert value is None or isinstance(value, bytes | bytearray | memoryview), (
        f"{call} returned {shown(value)}: it must be the frame's bytes, or None"
    )


# ---- codecs


def check_codec(codec: Any) -> None:
    """Hold a codec, or its class, against `avlab.parts.Codec`: pictures of three sizes at three qualities.

    What is decoded has the picture's size and type, and at quality 90 resembles it, in its colours or in grey.

    Args:
        codec: An object, or its class.

    Raises:
        AssertionError: What is wrong, in a sentence.
    """
    said = f"the codec {named(codec if isinstance(codec, type) else type(codec))}"

    def check(call: Call) -> None:
        made = _made(codec, said, ("encode", "decode"), call)
        try:
            full = {"key", "pts"} <= set(inspect.signature(made.encode).parameters)
        except (TypeError, ValueError):  # some functions do not tell
            full = False
        for height, width in ((8, 8), (48, 64), (360, 640)):
            image = _picture(height, width)
            if full and callable(getattr(made, "reset", None)):
                call(said, made.reset)
            for at, quality in enumerate((90, 1, 100) * (20 if height < 300 else 1)):
                before = image.copy()
                if full:
                    key = at == 0
                    given = call(said, partial(made.encode, image, quality, key=key, pts=at * FRAME_S))
                    assert isinstance(given, Encoded) or (isinstance(given, tuple) and len(given) == 2), (
                        f"{said}: encode() returned {shown(given)}: with key= and pts= it is Encoded(data, key)"
                    )
                    data, is_key = given
                    assert is_key or not key, f"{said}: encode() was asked for a key frame, and made none"
                else:
                    data = call(said, made.encode, image, quality)
                assert isinstance(data, bytes | bytearray | memoryview) and len(data), (
                    f"{said}: encode() returned {shown(data)}: it must be bytes, one at least"
                )
                assert (image == before).all(), f"{said}: encode() has changed the picture that it was given"
                back = call(said, made.decode, bytes(data))
                right = isinstance(back, np.ndarray) and back.shape == image.shape and back.dtype == np.uint8
                kind = f"an array of {back.shape}, {back.dtype}" if isinstance(back, np.ndarray) else shown(back)
                assert right, (
                    f"{said}: decode() of a picture of {image.shape} gave {kind}: it must be BGR uint8 of that shape"
                )
                grey = (back == back[:, :, :1]).all()  # then it is held against the picture's own grey
                off = float(np.abs(back.astype(int) - (image.mean(axis=2, keepdims=True) if grey else image)).mean())
                assert quality < 90 or off < 40, (
                    f"{said}: at quality {quality}, what is decoded differs by {off:.0f} of 255 from the picture, on "
                    "average: are width and height, or the colours, in another order?"
                )

    _held(said, check)


def _picture(height: int, width: int) -> Any:
    """A picture that is another one upside down, mirrored, or with its colours changed."""
    rows, columns = np.mgrid[0:height, 0:width]
    planes = (255 * columns / width, 255 * rows / height, 40 + 0 * rows)
    return np.stack(planes, axis=-1).astype(np.uint8)


# ---- repairs


def check_repair(repair: Any) -> None:
    """Hold a repair, or its class, against `avlab.parts.Repair`: frames of 1 to 20 payloads, each one lost in turn.

    What it brings back has to be what was lost; what it has, it returns as it is; and it asks for nothing else than
    what is missing.

    Args:
        repair: A class.

    Raises:
        AssertionError: What is wrong, in a sentence.
    """
    said = f"the repair {named(repair if isinstance(repair, type) else type(repair))}"

    def check(call: Call) -> None:
        made = _made(repair, said, (), call)
        _check_name(made, said, TAKEN)
        has = {name: callable(getattr(made, name, None)) for name in ("protect", "recover", "ask")}
        assert any(has.values()), f"{said} has neither protect, recover nor ask: one of them at least"
        assert has["protect"] == has["recover"], f"{said} has one of protect and recover: one is of no use by itself"
        if has["protect"]:
            _check_recovery(made, said, call)
        if has["ask"]:
            _check_asking(made, said, call)

    _held(said, check)


def _check_recovery(made: Any, said: str, call: Call) -> None:
    chance = random.Random(1)
    protected = recovered = 0
    for count in (1, 2, 3, 5, 20, *(1 + at % 5 for at in range(40))):
        payloads = [chance.randbytes(1_160 if at < count - 1 else chance.randrange(1, 1_160)) for at in range(count)]
        repairs = call(said, made.protect, list(payloads))
        right = isinstance(repairs, list | tuple) and all(isinstance(each, bytes) and each for each in repairs)
        assert right, f"{said}: protect() of {count} payloads returned {shown(repairs)}: it must be a list of bytes"
        cases: list[tuple[list[bytes | None], list[bytes | None]]] = [
            (list(payloads), list(repairs)),
            (list(payloads), [None] * len(repairs)),
            ([None] * count, list(repairs)),
        ]
        cases += [([*payloads[:lost], None, *payloads[lost + 1 :]], list(repairs)) for lost in range(count)]
        cases.append(([None, *payloads[1:]], [None] * len(repairs)))
        for at, (given, with_repairs) in enumerate(cases):
            back = call(said, made.recover, list(given), list(with_repairs))
            assert isinstance(back, list | tuple) and len(back) == count, (
                f"{said}: recover() of {count} payloads returned {shown(back)}: it must be a list of as many"
            )
            for place, (was, want, got) in enumerate(zip(given, payloads, back, strict=True)):
                assert got is None or isinstance(got, bytes), (
                    f"{said}: recover() gave {shown(got)} for payload {place}: it must be bytes, or None"
                )
                assert was is None or got == was, f"{said}: recover() changed payload {place}, which was not lost"
                assert got is None or got == want, (
                    f"{said}: of {count} payloads, recover() brought back payload {place} as something else: "
                    f"{len(got)} bytes for {len(want)}"
                )
            if repairs and 3 <= at < 3 + count:
                protected += 1
                recovered += back[at - 3] is not None
    assert not protected or recovered, f"{said}: recover() brings back nothing, not even one lost payload of a frame"


def _check_asking(made: Any, said: str, call: Call) -> None:
    for count in (0, 1, 5) * 10:
        for asked_before, round_trip, deadline in ((0, None, None), (0, 0.05, 10.0), (3, 0.05, 10.01)):
            missing = [Missing(65_530 + 3 * at, 9.9, asked_before, deadline, round_trip) for at in range(count)]
            numbers = call(said, made.ask, list(missing), 10.0)
            assert isinstance(numbers, list | tuple | set), (
                f"{said}: ask() returned {shown(numbers)}: it must be a list of numbers, empty if there are none"
            )
            strange = [each for each in numbers if each not in {lost.number for lost in missing}]
            assert not strange, f"{said}: ask() asks for {shown(strange[0])}, which is not missing"
