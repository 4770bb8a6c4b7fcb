"""A server's audience in numbers: who there is, how each fares, what it all comes to, who came and who left. Pure.

Names are strangers' (`wire.text.person` made them fit to be shown): text, for a page to escape.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from avlab.wire.units import NS

if TYPE_CHECKING:
    from datetime import tzinfo

    import pandas as pd

SPAN_NS = 2 * NS
"""Over which rates are taken."""

MARK_NS = NS // 4
"""Between two looks at the counts."""

UNNAMED_S = 1.5
"""A client's first report, which has its name, is there by then, if it has one."""

MOST_MISSED = 200
"""Of those who come and go: whoever connects over and over fills no memory."""

WIFI = (("2.4 GHz Wi-Fi (20 MHz)", 40.0), ("5 GHz Wi-Fi (80 MHz)", 250.0))
"""What one access point carries to a room, about, in Mbit/s of such packets: half of what it says or less, as all of a
room, near and far, share one channel."""


class Member(NamedTuple):
    """One client of a server, and how it fares; None for what is not known."""

    client: int
    """Its number, from 1, in the order in which clients came: no two of a server have the same."""
    name: str
    """What it says it is called, made fit to be shown; empty where it says nothing."""
    address: str
    since_ns: int
    """When it came, as Unix time."""
    fps: float | None = None
    """Frames sent to it a second."""
    loss: float | None = None
    """The share of packets, 0 to 1, that its latest report misses: of the stream that loses most."""
    jitter: float | None = None
    """Seconds, of the pictures' packets where there are any (RFC 3550 6.4.1)."""
    round_trip: float | None = None
    """Seconds."""
    kbps: float | None = None
    """Kilobits of RTP that are sent to it a second, pictures, sound and repair."""
    last_report: float | None = None
    """Seconds since its latest report."""
    group: str = ""
    """The multicast group whose packets it gets, of which there are as many for one as for all; else empty."""

    @property
    def called(self) -> str:
        """The name, or where it says none, the address."""
        return self.name or self.address


COLUMNS = ("name", "address", "since", "fps", "loss", "jitter", "round_trip", "kbps", "last_report")


def audience_table(members: Iterable[Member], zone: tzinfo) -> pd.DataFrame:
    """A row a client, by its number: `COLUMNS`, `since` as a time in `zone`, unknown numbers as NaN."""
    import pandas as pd

    rows = list(members)
    made = pd.DataFrame(index=pd.Index([row.client for row in rows], dtype="int64", name="client"))
    made["name"] = pd.Series([row.name for row in rows], made.index, dtype=object)
    made["address"] = pd.Series([row.address for row in rows], made.index, dtype=object)
    times = pd.DatetimeIndex(np.array([row.since_ns for row in rows], "datetime64[ns]"), tz="UTC")
    made["since"] = times.tz_convert(zone)
    for name in COLUMNS[3:]:
        made[name] = np.array([getattr(row, name) for row in rows], np.float64)  # None is NaN
    return made


def total_kbps(members: Iterable[Member]) -> float:
    """What all of them are sent, in kbit/s: what goes to a group is sent once."""
    alone, groups = 0.0, dict[str, float]()
    for row in members:
        if row.group:
            groups[row.group] = max(groups.get(row.group, 0.0), row.kbps or 0.0)
        else:
            alone += row.kbps or 0.0
    return alone + sum(groups.values())


def total_words(members: Sequence[Member]) -> str:
    """How many there are, what they are sent together, and whether a room's Wi-Fi carries that: a sentence."""
    mbps = total_kbps(members) / 1e3
    count = "1 client is" if len(members) == 1 else f"{len(members)} clients are"
    if not members:
        return "Nobody plays."
    said = f"{count} sent {_mbps(mbps)} Mbit/s"
    fits = [(name, carries) for name, carries in WIFI if mbps <= carries]
    if len(fits) == len(WIFI):
        return f"{said}: any Wi-Fi carries that, {WIFI[0][0]} about {WIFI[0][1]:.0f} Mbit/s for a whole room."
    if fits:
        name, carries = WIFI[0]
        return (
            f"{said}: more than {name} carries for a whole room (about {carries:.0f} Mbit/s); {fits[0][0]} carries "
            f"about {fits[0][1]:.0f}."
        )
    name, carries = WIFI[-1]
    return (
        f"{said}: more than {name} carries for a whole room (about {carries:.0f} Mbit/s). A lower quality or width, "
        "multicast, or a cable for the server's side makes room."
    )


def _mbps(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


class Pulse:
    """Rates of late, from counts that are looked at now and then. One thread marks, any may ask."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, int, int]] = deque(maxlen=SPAN_NS // MARK_NS + 1)

    def due(self, now_ns: int) -> bool:
        """Whether it is time for another look."""
        return not self._marks or now_ns - self._marks[-1][0] >= MARK_NS

    def mark(self, now_ns: int, frames: int, size: int) -> None:
        """So many frames and bytes in all were sent by now; fewer than before: they are counted anew."""
        if self._marks and (frames < self._marks[-1][1] or size < self._marks[-1][2]):
            self._marks.clear()
        self._marks.append((now_ns, frames, size))

    def rates(self, now_ns: int) -> tuple[float | None, float | None]:
        """Frames a second and kilobits a second, of the last two seconds; None before there is a quarter of one."""
        marks = list(self._marks)
        if len(marks) < 2 or now_ns - marks[-1][0] > SPAN_NS:
            return None, None
        span_s = (marks[-1][0] - marks[0][0]) / NS
        return (marks[-1][1] - marks[0][1]) / span_s, (marks[-1][2] - marks[0][2]) * 8 / 1e3 / span_s


class Change(NamedTuple):
    """Somebody has come, or left."""

    joined: bool
    member: Member

    def __str__(self) -> str:
        name, address = self.member.name, self.member.address
        return f"{f'{name} ({address})' if name else address} {'joined' if self.joined else 'left'}"


class Roll:
    """Calls the roll: who has come and left since the last time. Nobody is told of before a name had time to come."""

    def __init__(self) -> None:
        self._here: dict[int, Member] = {}
        self._told: set[int] = set()

    def call(self, members: Iterable[Member], now_unix_ns: int) -> list[Change]:
        """Who has come and left, the latter first."""
        now = {row.client: row for row in members}
        gone = self._told - now.keys()
        changes = [Change(False, row) for number, row in self._here.items() if number in gone]
        for number, row in now.items():
            waited = (now_unix_ns - row.since_ns) / NS
            if number not in self._told and (row.name or waited >= UNNAMED_S):
                self._told.add(number)
                changes.append(Change(True, row))
        self._told &= now.keys()
        self._here = now
        return changes[-MOST_MISSED:]
