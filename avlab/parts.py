"""What anyone's own part has to be, and the values that parts handle. The lowest floor: it imports nothing of avlab.

A part is a number, a function or a class of two or three methods, handed in by one keyword. A class is handed in as a
class, and one object is made for each stream and run. Times are float seconds here, but for a pacer's, which are
integer nanoseconds. `avlab.testing` holds a part against what stands here, without a stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple, Protocol, TypeAlias

# ---- values


class Packet(NamedTuple):
    """What parts see of a packet."""

    number: int
    """The sequence number, unwrapped: the packet after this one has the next number, whatever 16 bits do."""
    timestamp: int
    """The media clock's ticks, unwrapped: the same for all packets of a frame."""
    time: float
    """When it was sent, or arrived, in seconds since the first packet: a network counts from that of its direction."""
    size: int
    """Bytes, with the RTP header and without those of UDP and IP."""
    stream: str
    """"video" or "audio"; what repairs it and what reports of it is "video rtx", "video fec", "video rtcp", and
    to a network "tcp" is all that shares one TCP connection."""
    first: bool
    """Whether a frame begins with it."""
    marker: bool
    """Whether a frame ends with it."""
    payload: bytes
    """What it carries, without the RTP header."""
    deadline: float | None
    """When it is to be presented, on the clock of `time`; None where that is not known."""
    chance: float
    """One draw from 0 to 1, the packet's own: the same seed gives the same."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """An item that leaves a stage unused, and why; `reason` is one of the ledger's words."""

    item: Any
    """What was pushed."""
    reason: str
    """Why, in one word: "late", "incomplete", "duplicate", "skipped" or "lost"."""


@dataclass(frozen=True, slots=True)
class Due:
    """An item that leaves a pacer, and the moment at which it was meant to leave."""

    item: Any
    """What was pushed."""
    due_ns: int
    """The moment, in nanoseconds on the clock that `push` and `pull` were told."""


class Missing(NamedTuple):
    """A packet that has not come, though a later one has."""

    number: int
    """Its sequence number, unwrapped."""
    since: float
    """When it was found missing, in seconds since the first packet of the stream."""
    asked: int
    """How often it was asked for."""
    deadline: float | None
    """When it is of no more use, in the same seconds; None before the stream is presented."""
    round_trip: float | None
    """Seconds to the sender and back; None before that is known."""


class Encoded(NamedTuple):
    """A picture as bytes, from a codec that has key frames."""

    data: bytes
    """The bytes."""
    key: bool
    """Whether it can be decoded without those before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one receiver report (RFC 3550 6.4) told a sender, with what the sender knows of the time since the last."""

    time: float
    """When it came, in seconds on the sender's clock."""
    client: int
    """Which client's: the SSRC that the pictures are sent to it with."""
    loss: float
    """The fraction of packets lost since its last report, 0 to 1."""
    jitter: float
    """How unevenly packets arrive, in seconds (RFC 3550 6.4.1)."""
    round_trip: float | None
    """Seconds to the client and back, without the client's own time; None before it has seen a sender report."""
    sent_kbps: float
    """What was sent to it since its last report, in kilobits a second."""
    quality: int
    """JPEG quality of what is sent now, 1 to 100."""
    width: int
    """Pixels across of what is sent now, 16 to 2040."""


class Choice(NamedTuple):
    """What to send from now on."""

    quality: int
    """JPEG quality, 1 to 100."""
    width: int
    """Pixels across, 16 to 2040."""


def whole(packets: Iterable[Packet]) -> bool:
    """Whether packets are a frame without a gap: of one timestamp, from its first to its marker. In any order.

    Args:
        packets: Packets, as a jitter buffer is handed them.
    """
    ordered = sorted(packets, key=lambda packet: packet.number)
    if not ordered or not ordered[0].first or not ordered[-1].marker:
        return False
    numbers = [packet.number for packet in ordered]
    alike = all(packet.timestamp == ordered[0].timestamp for packet in ordered)
    return alike and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


# ---- parts


class Pacer(Protocol):
    """Decides when a frame leaves: `Server(pacer=)`, `simulate(pacer=)`. Times are integer nanoseconds.

    One that has no `restart` is handed in as a class, and made anew at each start. While a frame waits, `wake_at` names
    a moment, and at that moment `pull` gives something. These may be left out: `name` (the class's own),
    `keeps_deadlines` (False; True lets a sender that falls behind skip frames) and `notices()` (none), which returns
    sentences for a person that have come up since it was last asked.
    """

    def restart(self, start_ns: int, /) -> None:
        """Forget what waits: the stream begins, or begins again.

        Args:
            start_ns: The moment that presentation time 0 falls on, in ns on the sender's monotonic clock.
        """

    def push(self, item: Any, now_ns: int, /) -> None:
        """Take a frame: the next one is handed over when the one before has left.

        Args:
            item: The frame, of which nothing but its presentation time, `item.pts_ns`, in ns, is to be read.
            now_ns: The moment at which it is handed over, in ns; no earlier than that of the call before.
        """

    def wake_at(self) -> int | None:
        """When the next frame is due; None when none waits. Asks nothing of a clock and changes nothing."""

    def pull(self, now_ns: int, /) -> list[Any]:
        """What is due by now: `Due(item, due_ns)`, or the item itself; `Dropped(item, "skipped")` is never sent.

        Args:
            now_ns: The moment at which it is asked, in ns: that which `wake_at` named, or a little later.
        """


Rule: TypeAlias = Callable[[float, float, float], float]
"""A feedback rule: (delay, measured_fps, target_fps) to the next delay, in seconds."""

Lost: TypeAlias = Callable[[Packet, dict[Any, Any]], bool]
"""`Network(loss=)`: whether a packet is lost. The dict is empty at first, one for each client, direction and stream."""

Delay: TypeAlias = Callable[[Packet, dict[Any, Any]], float]
"""`Network(delay=)`: how many seconds a packet takes, 0 to 3600. The dict is the one that `Lost` has."""

Target: TypeAlias = Callable[[list[float]], float]
"""`Client(playout_delay=)`: the delays of the last 500 arrivals, oldest first, to a playout delay, all in seconds."""


class PlayoutDelay(Protocol):
    """Decides how long what has come waits before it is presented: `Client(playout_delay=)`, in its full form."""

    def observe(self, stream: str, delay: float, now: float, /) -> None:
        """Something of a stream arrived.

        Args:
            stream: "video" or "audio".
            delay: Seconds by which it came later than the quickest of all, 0 or more.
            now: When it arrived, in seconds since the first arrival.
        """

    def target(self, now: float, /) -> float | None:
        """The playout delay in seconds, kept within 0 to 5; None for the one that holds. Asked each half second.

        Args:
            now: The moment at which it is asked, in seconds, as `observe` has it.
        """


class JitterBuffer(Protocol):
    """Puts packets in order and gives whole frames: `Client(jitter_buffer=)`, `simulate(jitter_buffer=)`.

    `wake_at` may be left out. It is for pictures: sound has a ring of its own, in which each sample has its place by
    its timestamp. Each packet has a deadline, which is when its picture is to be shown; what is given long after it is
    too late. What was pushed has to be given, in a frame or as `Dropped`, within a second of that at the latest.
    """

    def push(self, packet: Packet, now: float, /) -> None:
        """A packet has arrived, in whatever order; one that was lost and repaired, too.

        Args:
            packet: The packet: `number` counts without wrapping round, times are in seconds.
            now: When it arrived, in seconds since the first packet of its stream, as all times in packets are.
        """

    def pull(self, now: float, /) -> list[list[Packet] | Dropped]:
        """Whole frames in order; `Dropped(packets, reason)`: "incomplete", "late" or "duplicate".

        Asked after each `push`, at each packet's deadline, and when `wake_at` says so.

        Args:
            now: The moment at which it is asked, in seconds, as `push` has it.
        """

    def wake_at(self) -> float | None:
        """The next moment at which `pull` has something to give, None for none: it is asked at each deadline anyway."""


class PayloadFormat(Protocol):
    """What an encoded frame is on the wire: `payload=` on both sides. Carried in RTP as X-<name>/90000."""

    name: str
    """Letters, digits and hyphens."""

    def pack(self, frame: bytes, most: int, /) -> list[bytes]:
        """Payloads that carry a frame, in the order in which they are to be sent, at least one.

        Args:
            frame: The encoded frame, at least 1 byte.
            most: Bytes that a payload may have at the most; each has 1 or more.
        """

    def unpack(self, payloads: list[bytes | None], /) -> bytes | None:
        """The frame, as `pack` was given it; None when it cannot be had of what came.

        Args:
            payloads: The frame's payloads in order, None for each that is lost.
        """


class Codec(Protocol):
    """Pictures to bytes and back: `codec=` on both sides.

    The full form is `encode(image, quality, *, key, pts)`, which returns `Encoded(data, key)`, and `reset()`.
    """

    def encode(self, image: Any, quality: int, /) -> bytes:
        """A picture as bytes, at least 1.

        Args:
            image: The picture, BGR, uint8, of shape (height, width, 3).
            quality: From 1 to 100; what it means is the codec's.
        """

    def decode(self, data: bytes, /) -> Any:
        """The picture, BGR, uint8, of shape (height, width, 3).

        Args:
            data: The bytes that `encode` made of it.
        """


class Repair(Protocol):
    """Brings back pictures' packets lost over UDP: `Server(repairs=[Mine])` and `Client(repair=Mine)`, or `simulate`.

    Each method may be left out. What `protect` makes travels as an RTP stream of its own, described as X-<name>; what
    `ask` asks for is sent again as any server of avlab's offers it, whether it has `repairs` or not.
    """

    name: str
    """Letters, digits and hyphens; case makes no difference, and "rtx" and "fec" are taken."""

    def protect(self, payloads: list[bytes], /) -> list[bytes]:
        """Payloads to send beside those of a frame, of 1,180 bytes each at the most; none is an answer, too.

        Args:
            payloads: The payloads of one frame, in order.
        """

    def recover(self, payloads: list[bytes | None], repairs: list[bytes | None], /) -> list[bytes | None]:
        """The payloads of a frame again, with those that could be brought back in place of None.

        Args:
            payloads: The payloads of one frame, in order; None for each that has not come, or not yet.
            repairs: What `protect` made of them, in order; None likewise.
        """

    def ask(self, missing: list[Missing], now: float, /) -> list[int]:
        """The numbers, of those missing, to ask for again now: called when packets come, and each 10 ms.

        Args:
            missing: What is missing, in order of its numbers, which count without wrapping round.
            now: The moment, in seconds since the first packet of the stream, as the times in `missing` are.
        """


class RateController(Protocol):
    """Decides what is sent: `Server(rate_control=)`. Anyone's own has this one method."""

    def update(self, report: Report, /) -> Choice | None:
        """A report came; what to send from now on, or None to go on as before.

        Args:
            report: What a client says that it received, and what was sent to it meanwhile.
        """


# ---- what became of a part


class PartError(RuntimeError, ValueError):
    """A part has failed, in a sentence that names it; what it raised is its cause."""


class PartEndedError(PartError):
    """A part has not returned within its time, and its call was ended."""


class PartWarning(UserWarning):
    """A part has failed in a simulated run, which has gone on with the default; the sentence names both.

    Args:
        words: The sentence.
        error: What the part failed of.
    """

    def __init__(self, words: str, error: PartError) -> None:
        super().__init__(words)
        self.error = error
        """What the part failed of."""


def gone_on(error: Exception, instead: str) -> str:
    """In two sentences, what a part failed of and what there is instead.

    Args:
        error: What the part, or what hangs on it, failed of.
        instead: The second sentence.
    """
    words = str(error)
    return f"{words}{'' if words.endswith(('.', '?', '!')) else '.'} {instead}"


Call: TypeAlias = Callable[..., Any]
"""How a part is called: (what it is, function, *arguments) to what the function returns; raises `PartError`.

The pure floors are handed one by a driver that has a clock, and so sees to it that no part takes for ever.
"""


def called(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a part, as long as it takes, and give what it returns.

    Args:
        what: What the part is called, for a sentence.
        function: Its method, or the part itself.
        arguments: What it is called with.

    Raises:
        PartError: The part raised something, which is the cause.
    """
    try:
        return function(*arguments)
    except PartError:
        raise
    except Exception as error:
        raise PartError(f"{what} failed: {described(error)}") from error


def described(error: BaseException) -> str:
    """An error's kind and words, whatever a student's own class does when it is asked for them.

    Args:
        error: The error.
    """
    try:
        said = str(error)
    except Exception:
        said = ""
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def named(part: Any) -> str:
    """What a function, class or object is called.

    Args:
        part: The function, class or object.
    """
    try:
        return str(getattr(part, "__name__", None) or type(part).__name__)
    except Exception:
        return type.__getattribute__(type(part), "__name__")  # type: ignore[no-any-return]


def number(value: Any) -> float | None:
    """A number as a float, numpy's too; None for anything else, True and nan among it.

    Args:
        value: Anything.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        seconds = float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return -math.inf if value < 0 else math.inf
    return None if seconds != seconds else seconds


def shown(value: Any) -> str:
    """A value as a sentence shows it, however long it is and whatever it does when it is asked.

    Args:
        value: Anything.
    """
    try:
        text = " ".join(repr(value).split())
    except Exception as error:
        return f"a {type(value).__name__} whose repr fails with {type(error).__name__}"
    return text if len(text) <= 60 else f"{text[:50]}... ({len(text):,} characters)"


def missing_methods(part: Any, names: Sequence[str]) -> list[str]:
    """Which of a part's methods it does not have.

    Args:
        part: An object or a class.
        names: The methods' names.
    """

    def has(name: str) -> bool:
        try:
            return callable(getattr(part, name, None))
        except Exception:  # anyone's own __getattr__
            return False

    return [name for name in names if not has(name)]
