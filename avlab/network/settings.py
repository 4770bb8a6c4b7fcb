"""What a network does to packets, as a value: loss, bursts, delay, jitter, copies, a bottleneck. Pure.

`Network.presets` are networks that one meets, with the sources of their figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, ClassVar

from avlab.network.bottleneck import Bottleneck
from avlab.network.replay import Replay
from avlab.parts import Delay, Lost, named
from avlab.wire.text import spelt

LONGEST = 3_600
"""Seconds that a delay of anyone's own may say at most."""

MOST_S = 10
"""Seconds that `delay`, `jitter` and `queue` may be at most: beyond that, they are milliseconds that were meant."""

LONGEST_BURST = 1_000_000
"""Packets that `burst` may be at most."""

LOWEST_RATE, HIGHEST_RATE = 0.001, 1_000_000_000
"""Kilobits a second: a bit, and a terabit."""

MOST_DIGITS = 1_000
"""Of `seed`: Python writes out no number of over 4,300."""


@spelt
@dataclass(frozen=True, kw_only=True, repr=False)
class Network:
    """One way through a network. ValueError, naming the field and its range, for what cannot be.

    `loss` and `delay` may be functions of one's own, `lost(packet, state)` and `delay(packet, state)`: `packet` is an
    `avlab.Packet`, sent `packet.time` seconds after the first one, and `state` a dict that is empty at first, one for
    each client, direction and stream, of which both functions have the same.

    Loss, reordering and duplication touch UDP packets alone. Delay, jitter and rate hold the bytes of a TCP connection
    too, in order. Each stream draws from generators of its own, made from `seed`: the same seed loses the same packets,
    whatever another stream, another client or the clock does (rate and queue excepted).
    """

    loss: float | Lost = 0.0
    """The share of packets lost, 0 to 1; or `lost(packet, state)`, which says of each whether it is."""

    burst: float = 1.0
    """How many packets are lost in a row, on average, 1 to 1,000,000. 1 is chance alone, each packet for itself. It is
    of no use to a `loss` that is a function: ValueError for another value beside one.

    Bursts are those of Gilbert's two states (The Bell System Technical Journal 39, 1960, as Elliott generalised it in
    1963), the good one losing nothing and the bad one everything. With mean loss p and mean length b the bad state is
    left with probability 1/b, and entered with p / (b (1 - p)), so that a share p of the packets meets it. Independent
    loss has bursts of 1/(1 - p) by itself; a burst shorter than that is taken for it, so every pair of values can be.
    """

    delay: float | Delay = 0.0
    """Seconds that every packet takes, 0 to 10; or `delay(packet, state)`, which says of each how many. Packets keep
    their order unless `reorder` lets them overtake each other."""

    jitter: float = 0.0
    """Seconds that packets take beyond `delay`, on average, 0 to 10: exponentially distributed.

    Delays above the smallest fit an exponential distribution on the paths of RIPE's test boxes (Sukhov and others,
    Generating Function for Network Delay, arXiv:1003.0190, 2010). The mean difference of two such delays is their
    mean: what a receiver reports as jitter (RFC 3550, A.8) is this very number, where each packet draws its own.
    """

    reorder: bool = False
    """Whether packets may overtake each other. If so, each draws its own jitter. If not, jitter is a queue of other
    people's packets: it is met, drains as time passes, and is met anew; packets sent together wait alike. As an
    exponential wait has no memory, what is left of it is distributed as the whole: the mean is `jitter` either way.
    """

    duplicate: float = 0.0
    """The share of packets, of those not lost, that come twice, 0 to 1; the copy draws its own jitter."""

    rate: float | None = None
    """Kilobits a second through the bottleneck, 0.001 to 10^9; None for no bottleneck. Bytes of packets are counted, as
    the trace has them, without the headers of UDP and IP. All streams of a client share it."""

    queue: float = 0.1
    """Seconds of packets that wait before the bottleneck, 0 to 10; one that finds more waiting is lost (drop-tail).
    Bytes of a TCP connection are held back by their sender instead, until there is room."""

    bottleneck: Bottleneck | None = None
    """A bottleneck that other networks lead through, too, in place of `rate` and `queue`."""

    seed: int = 1
    """Another seed, other losses: a whole number of at most 1000 digits."""

    presets: ClassVar[Mapping[str, Network]]
    """Networks that one meets, by name."""

    sources: ClassVar[Mapping[str, str]]
    """Where each preset's figures come from."""

    def __post_init__(self) -> None:
        for name in ("loss", "duplicate"):
            if name == "loss" and callable(self.loss):
                continue
            if not _number(value := getattr(self, name)) or not 0 <= value <= 1:
                asked = f": did you mean {value / 100:g}?" if _number(value) and 1 < value <= 100 else ""
                raise ValueError(f"{name} must be a share of packets from 0 to 1, not {_said(value)}{asked}")
        if not _number(self.burst) or not self.burst >= 1:
            raise ValueError(f"burst must be 1 packet or more, not {_said(self.burst)}")
        if self.burst > LONGEST_BURST:
            raise ValueError(f"burst must be at most {LONGEST_BURST:,} packets, not {_said(self.burst)}")
        if callable(self.loss) and self.burst != 1:
            raise ValueError(f"burst is for a loss that is a number: {named(self.loss)} itself decides what is lost")
        for name in ("delay", "jitter", "queue"):
            if name == "delay" and callable(self.delay):
                continue
            if not _number(value := getattr(self, name)) or value < 0:
                raise ValueError(f"{name} must be 0 or more seconds, not {_said(value)}")
            if value > MOST_S:
                raise ValueError(f"{name} must be at most {MOST_S} seconds, not {_said(value)}{meant(value, MOST_S)}")
        if self.rate is not None:
            if not _number(self.rate) or self.rate <= 0:
                raise ValueError(f"rate must be more than 0 kbit/s, or None for no bottleneck, not {_said(self.rate)}")
            if not LOWEST_RATE <= self.rate <= HIGHEST_RATE:
                words = f"from {LOWEST_RATE} to {HIGHEST_RATE:,} kbit/s, or None for no bottleneck"
                raise ValueError(f"rate must be {words}, not {_said(self.rate)}")
        if self.bottleneck is not None:
            if not isinstance(self.bottleneck, Bottleneck):
                raise ValueError(f"bottleneck must be an avlab.Bottleneck, or None, not {_said(self.bottleneck)}")
            if self.rate is not None:
                raise ValueError("rate is of a bottleneck of its own: give rate or bottleneck, not both")
        if not isinstance(self.reorder, bool):
            raise ValueError(f"reorder must be True or False, not {_said(self.reorder)}")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise ValueError(f"seed must be a whole number, not {_said(self.seed)}")
        if abs(self.seed) >= 10**MOST_DIGITS:
            raise ValueError(f"seed must be a whole number of at most {MOST_DIGITS} digits, not {_said(self.seed)}")

    @property
    def clear(self) -> bool:
        """Whether packets pass as if there were no network: at once, each of them, once."""
        return not (self.loss or self.delay or self.jitter or self.duplicate or self.rate or self.bottleneck)

    @property
    def steady_delay(self) -> float:
        """Seconds that every packet takes at the least; 0 where a function decides."""
        return 0.0 if callable(self.delay) else self.delay

    @classmethod
    def replay(cls, trace: Any) -> Network:
        """A network that does to packets what one did in the run of `trace`: the same losses and delays, by time.

        What is sent t seconds after the first packet fares like what was sent then; a run that is longer than the
        record meets it again from its beginning. Where the clocks of the two sides were not the same one, delays are
        those beyond the quickest. ValueError for a trace without packets of which it is known when they were sent.

        Args:
            trace: A run's record: a client's, a relay's, a capture's, or both sides joined.
        """
        way = Replay(trace)
        return cls(loss=way.replayed_loss, delay=way.replayed_delay, reorder=True)

    def __repr__(self) -> str:
        said = (f"{field.name}={_written(getattr(self, field.name))}" for field in fields(self))
        return f"Network({', '.join(said)})"

    def __str__(self) -> str:
        """What it does, in a line; nothing of what it does not do."""
        said = []
        if callable(self.loss):
            said.append(f"loss {named(self.loss)}")
        elif self.loss:
            said.append(f"loss {self.loss:.3g}")
            said += [f"in bursts of {self.burst:g}"] if self.burst > 1 else []
        for name in ("delay", "jitter"):
            value = getattr(self, name)
            if callable(value):
                said.append(f"{name} {named(value)}")
            elif value:
                said.append(f"{name} {1e3 * value:g} ms")
        if self.reorder and (self.jitter or callable(self.delay)):
            said.append("reordering")
        said += [f"duplicate {self.duplicate:.3g}"] if self.duplicate else []
        said += [f"rate {self.rate:g} kbit/s, queue {1e3 * self.queue:g} ms"] if self.rate else []
        said += [str(self.bottleneck)] if self.bottleneck is not None else []
        return ", ".join(said) or "clear"


def _written(value: Any) -> str:
    return named(value) if callable(value) else repr(value)


def _number(value: Any) -> bool:
    """Whether it is a number, however large; nan is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def meant(value: Any, most: float) -> str:
    """A question that ends a sentence on seconds which are too many, if they would do as milliseconds."""
    return f": did you mean {value / 1_000:g} s?" if value <= 1_000 * most else ""


def _said(value: Any) -> str:
    """A value as a sentence shows it, however large it is."""
    try:
        return f"{value!r:.60}"
    except ValueError:  # an int of more digits than Python writes out
        return "a number of thousands of digits"


class _Presets(dict[str, Network]):
    """The presets; a name that is none of them gets a sentence."""

    def __missing__(self, name: str) -> Network:
        near = get_close_matches(str(name), self, 1, 0.4)
        asked = f": did you mean {near[0]!r}?" if near else ""
        raise PresetError(f"there is no preset {name!r:.60}, only {', '.join(self)}{asked}")


class PresetError(KeyError):
    """A KeyError that shows its sentence as it is."""

    def __str__(self) -> str:
        return str(self.args[0])


Network.presets = MappingProxyType(
    _Presets(
        {
            "home-wifi": Network(loss=0.005, burst=3.0, delay=0.001, jitter=0.005),
            "4g": Network(loss=0.001, delay=0.030, jitter=0.015, rate=13_000, queue=0.3),
            "long-haul": Network(loss=0.001, delay=0.150, jitter=0.007),
            "classroom": Network(loss=0.02, burst=4.0, delay=0.005, jitter=0.030, rate=4_000, queue=0.2),
        }
    )
)
Network.sources = MappingProxyType(
    {
        "home-wifi": "Sui and others, Characterizing and Improving WiFi Latency in Large-Scale Operational Networks, "
        "MobiSys 2016: half of the delays of the Wi-Fi hop within 3 ms, nine tenths within 20 ms; the preset lies "
        "between (4 and 13 ms). Loss and bursts are round figures of our own.",
        "4g": "Huang and others, A Close Examination of Performance and Power Characteristics of 4G LTE Networks, "
        "MobiSys 2012: 13 Mbit/s downlink, the median. 3GPP TS 23.203, table 6.1.7, QCI 7 (live video): at most 0.1 % "
        "lost, 98 % within 100 ms (the preset: 89 ms). The queue is a round figure of our own.",
        "long-haul": "ITU-T G.114: 150 ms one way, up to which most conversations do not suffer. ITU-T Y.1541, "
        "classes 0 and 1: 0.1 % lost, 99.9 % of the delays within 50 ms of the smallest (the preset: 48 ms).",
        "classroom": "Pei and others, WiFi Can Be the Weakest Link of Round Trip Network Latency in the Wild, INFOCOM "
        "2016, on a campus: half of the packets over 20 ms on the Wi-Fi hop, a tenth over 100 ms; the preset has 26 "
        "and 74 ms. Loss, bursts, rate (a share of one access point) and queue are round figures of our own.",
    }
)
