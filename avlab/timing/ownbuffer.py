"""The place of a jitter buffer in a client: what sits there is anyone's own, and is held to its contract. Pure.

A jitter buffer that fails, returns nonsense, or holds packets for ever is told of in a sentence; what it held goes to
the one that comes with avlab, which takes over.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from avlab.parts import (
    Call,
    Dropped,
    Packet,
    PartError,
    called,
    missing_methods,
    named,
    number,
    shown,
    whole,
)
from avlab.timing.jitterbuffer import AssemblingBuffer, Frame, Run
from avlab.timing.recentnumbers import WINDOW, RecentNumbers, RecentRuns
from avlab.wire.rtp import HEADER_BYTES, payloads
from avlab.wire.units import NS, WireError

HOLD_NS = NS
"""So long after its deadline a packet has to have left, or it never will. A whole second, as a buffer that looks at
what it holds only when something comes is not broken."""

SLACK_NS = 1_000
"""It is asked so long after the moment that its wake_at names: float seconds that were put together in another order
differ in their last digit."""

MOST_HELD = 16_384
"""More packets than this are not on their way to be shown, whatever their deadlines."""

REASONS = ("incomplete", "late", "duplicate")

Tell = Callable[[int, str], None]
"""Told what became of a packet of a run, by its place in that run: used, duplicate or late."""


@dataclass(slots=True, eq=False)
class _Held:
    """A packet that was pushed and has not left."""

    packet: Packet
    run: Run
    at: int  # its place in the run that it came in
    arrived_ns: int
    deadline_ns: int
    tell: Tell | None

    def settle(self, fate: str) -> None:
        if self.tell is not None:
            self.tell(self.at, fate)


class OwnBuffer:
    """A jitter buffer of anyone's own in the place of a `AssemblingBuffer`; see `avlab.parts`.

    `part` is a class, made by the first packet. It is asked by `pull` after each packet, at each packet's deadline and
    when its own `wake_at` says so. What it gives is turned into frames by what `usual` has for it, and `usual` takes
    over from one that fails: `failed` is told. Without `failed`, PartError is raised.

    Every packet that is pushed has to come out, once: in a frame, or as `Dropped(packets, reason)`.
    """

    def __init__(
        self,
        part: Any,
        usual: AssemblingBuffer,
        *,
        call: Call = called,
        failed: Callable[[PartError], None] | None = None,
    ) -> None:
        self._part, self._usual, self._call, self._failed = part, usual, call, failed
        self._said = f"the jitter buffer {named(part)}"
        self._at: Any = None
        self._wakes = False  # whether it has a wake_at
        self._broken = False
        self._epoch_ns = 0  # when the first packet came
        self._held: dict[int, _Held] = {}  # by the identity of the packet, in order of arrival
        self._seen = RecentRuns()  # numbers
        self._ends: dict[int, tuple[int, bool]] = {}  # timestamp and marker of the latest packets, by number
        self._closed = RecentNumbers()  # timestamps of the frames that have left
        self._deadlines: list[int] = []  # at which it has not been asked yet
        self._promise_ns: int | None = None  # what its wake_at said last
        self._late: dict[int, list[_Held]] = {}  # frames (ticks) of which packets were dropped as late, and no more
        self._refused: list[WireError] = []
        self._out: deque[Frame | Dropped] = deque()
        self._ending = False

    # ---- as a JitterBuffer

    def push_run(self, run: Run, now_ns: int, /, *, deadline_ns: int, tell: Tell | None = None) -> list[str]:
        """Take packets that came together, of a frame that is due at `deadline_ns`.

        Returns whether each is used or a duplicate by its number; what becomes of it in the end is told to `tell`.
        """
        fates = []
        for at in range(run.batch.total):
            one = run.part(at)
            fates.append("duplicate" if one.sequence in self._seen else "used")
            if self._broken:
                [fate] = self._usual.push_run(one, now_ns)
                if tell is not None:
                    tell(at, fate)
            else:
                self._push(one, at, now_ns, deadline_ns, tell)
            if fates[-1] == "used":
                self._seen.add(one.sequence, one.sequence)
        if not self._broken:
            self._guarded(lambda: self._ask(now_ns), now_ns)
        return fates

    @property
    def idle(self) -> bool:
        """Whether no moment changes anything: as far as can be told, never."""
        return False

    def wake_at(self) -> int | None:
        """The next moment at which the part is to be asked; now (0) when frames wait to be pulled."""
        if self._out:
            return 0
        if self._broken:
            return self._usual.wake_at()
        if not self._held:
            return None
        oldest_ns = next(iter(self._held.values())).deadline_ns + HOLD_NS
        moments = (self._promise_ns, self._deadlines[0] if self._deadlines else None, oldest_ns)
        return min(moment for moment in moments if moment is not None)

    def pull(self, now_ns: int, /) -> list[Frame | Dropped]:
        """What has left by now."""
        if not self._broken and self._held:
            wake_ns = self.wake_at()
            if self._ending or (wake_ns is not None and wake_ns <= now_ns):
                self._guarded(lambda: self._ask(now_ns), now_ns)
        if self._ending and not self._broken:
            self._give_up_all()
        self._close_late(now_ns)
        out = list(self._out)
        self._out.clear()
        if self._broken:
            if self._ending:
                self._usual.flush()
            out += self._usual.pull(now_ns)
        self._ending = False
        return out

    def refusals(self) -> list[WireError]:
        """Why packets were no part of their frames, since the last call."""
        out, self._refused = self._refused + self._usual.refusals(), []
        return out

    @property
    def newest_pts_ns(self) -> int | None:
        """The latest pts of what is held; None when nothing is."""
        if self._broken:
            return self._usual.newest_pts_ns
        return max((held.run.media_ns for held in self._held.values()), default=None)

    @property
    def ripe_pts_ns(self) -> int | None:
        """As of a `AssemblingBuffer`, once that has taken over: the part has deadlines of its own."""
        return self._usual.ripe_pts_ns

    def ripen(self, media_ns: int, now_ns: int) -> None:
        """See `ripe_pts_ns`."""
        self._usual.ripen(media_ns, now_ns)

    def pass_over(self, sequence: int, now_ns: int) -> None:
        """The packet of this number is of no frame: what comes after it begins one, or is parity, too."""
        self._ends[sequence] = -1, True
        self._usual.pass_over(sequence, now_ns)

    def adjoin(self, before: int, after: int) -> bool:
        """See `AssemblingBuffer`."""
        return self._usual.adjoin(before, after)

    def expire(self, media_ns: int) -> None:
        """Media time has passed `media_ns`: the part's own deadlines tell it so."""
        self._usual.expire(media_ns)

    def flush(self) -> None:
        """Nothing more is waited for: the next `pull` asks once more, and gives up what is held."""
        self._ending = True

    # ---- the part

    def _push(self, run: Run, at: int, now_ns: int, deadline_ns: int, tell: Tell | None) -> None:
        if not self._ends:
            self._epoch_ns = now_ns
        sequence, ticks = run.sequence, run.ticks
        [payload] = payloads(run.batch)
        packet = Packet(
            sequence,
            ticks,
            self._seconds(now_ns),
            run.batch.length,
            "video",
            self._begins(run, payload),
            run.marker,
            payload,
            self._seconds(deadline_ns),
            random.Random(sequence).random(),
        )
        self._ends[sequence] = ticks, run.marker
        if len(self._ends) > WINDOW:
            del self._ends[next(iter(self._ends))]
        self._held[id(packet)] = _Held(packet, run, at, now_ns, deadline_ns, tell)
        heapq.heappush(self._deadlines, deadline_ns)
        self._guarded(lambda: self._hand_in(packet, now_ns), now_ns)

    def _begins(self, run: Run, payload: bytes) -> bool:
        """Whether a frame begins with a packet: its payload says so, or the packet before it."""
        if run.form is not None and not run.form.by_marker:
            return run.form.begins(payload)
        if run.form is None and self._usual.begins is not None:
            return self._usual.begins(payload)
        before = self._ends.get(run.sequence - 1)
        if before is None:
            return not self._ends
        return before[1] or before[0] != run.ticks

    def _hand_in(self, packet: Packet, now_ns: int) -> None:
        if self._at is None:
            self._at = self._call(self._said, self._part)
            if missing := missing_methods(self._at, ("push", "pull")):
                raise PartError(f"{self._said} has no method {missing[0]}: it needs push and pull")
            self._wakes = not missing_methods(self._at, ("wake_at",))
        if len(self._held) > MOST_HELD:
            raise self._holds()
        self._call(self._said, self._at.push, packet, self._seconds(now_ns))

    def _ask(self, now_ns: int) -> None:
        """Have it give what it has, and say when to ask again."""
        promised = self._promise_ns is not None and self._promise_ns <= now_ns
        given = self._checked(self._call(self._said, self._at.pull, self._seconds(now_ns)))
        for reason, packets in given:
            for held in packets:
                del self._held[id(held.packet)]
            if reason is None:
                self._give(packets)
            else:
                self._drop(packets, reason)
        while self._deadlines and self._deadlines[0] <= now_ns:
            heapq.heappop(self._deadlines)
        self._promise_ns = None
        if not self._held:
            self._deadlines.clear()
            return
        if self._wakes:
            self._promise_ns = self._promised_ns()
        if self._promise_ns is not None and self._promise_ns <= now_ns and not given:
            if promised and self._promise_ns > self._epoch_ns:
                at = self._seconds(self._promise_ns)
                raise PartError(f"{self._said} gives nothing at {at:.3f} s, as its wake_at() promised")
            if promised:  # 0 for "whenever you like"
                self._promise_ns = None
        if next(iter(self._held.values())).deadline_ns + HOLD_NS <= now_ns:
            raise self._holds()

    def _promised_ns(self) -> int | None:
        given = self._call(self._said, self._at.wake_at)
        if given is None:
            return None
        seconds = number(given)
        if seconds is None:
            raise PartError(f"{self._said}: its wake_at() returned {shown(given)}: it must be seconds, or None")
        if seconds > 1e9:
            return None
        return self._epoch_ns + math.ceil(seconds * NS) + SLACK_NS if seconds > 0 else self._epoch_ns

    def _holds(self) -> PartError:
        held = next(iter(self._held.values()))
        due = f"its deadline at {self._seconds(held.deadline_ns):.3f} s"
        return PartError(
            f"{self._said} holds packet {held.packet.number} for ever, or has lost it: by {due} it must leave in a "
            "frame, or as Dropped(packets, reason)"
        )

    def _seconds(self, at_ns: int) -> float:
        return (at_ns - self._epoch_ns) / NS

    # ---- what it gives

    def _checked(self, given: Any) -> list[tuple[str | None, list[_Held]]]:
        """Frames (None) and what was dropped (why), as what is held. PartError for anything else."""
        if not isinstance(given, list | tuple):
            raise PartError(
                f"{self._said}: its pull() returned {shown(given)}: it must be a list of frames, empty if there is none"
            )
        out: list[tuple[str | None, list[_Held]]] = []
        taken: set[int] = set()
        for item in given:
            packets = item.item if isinstance(item, Dropped) else item
            if isinstance(item, Dropped) and isinstance(packets, Packet):
                packets = [packets]
            right = isinstance(packets, list | tuple) and all(isinstance(packet, Packet) for packet in packets)
            if not right or not packets:
                raise PartError(
                    f"{self._said}: its pull() gave {shown(item)}: it must be a frame, which is a list of the packets "
                    "that were pushed, or Dropped(packets, reason)"
                )
            reason = item.reason if isinstance(item, Dropped) else None
            if isinstance(item, Dropped) and not (isinstance(reason, str) and reason in REASONS):
                raise PartError(
                    f"{self._said} dropped packets as {shown(reason)}: say "
                    f'{", ".join(chr(34) + each + chr(34) for each in REASONS[:-1])} or "{REASONS[-1]}"'
                )
            if reason is None and not whole(packets):
                numbers = ", ".join(str(packet.number) for packet in packets[:20])
                raise PartError(f"{self._said}: packets {numbers}, which it gave, are no frame: see avlab.whole")
            out.append((reason, [self._known(packet, taken) for packet in packets]))
        return out

    def _known(self, packet: Packet, taken: set[int]) -> _Held:
        """What is held of a packet: the very one, or one that is equal to it."""
        held = self._held.get(id(packet))
        if held is None or id(held.packet) in taken:
            alike = (each for each in self._held.values() if each.packet == packet and id(each.packet) not in taken)
            held = next(alike, None)
        if held is None:
            raise PartError(
                f"{self._said}: its pull() gave packet {shown(packet.number)}, which was not pushed, or has left before"
            )
        taken.add(id(held.packet))
        return held

    def _give(self, packets: Sequence[_Held]) -> None:
        """A frame leaves."""
        ticks = packets[0].run.ticks
        again = ticks in self._closed.numbers
        for held in packets:
            held.settle("duplicate" if again else "used")
        if not again:
            frame = self._frame(packets)
            self._out.append(frame if frame.data is not None else Dropped(frame, "incomplete"))

    def _drop(self, packets: Iterable[_Held], reason: str) -> None:
        """Packets leave unused, and with them the frames that nothing else is held of."""
        frames: dict[int, list[_Held]] = {}
        for held in packets:
            frames.setdefault(held.run.ticks, []).append(held)
            self._held.pop(id(held.packet), None)
        for ticks, members in frames.items():
            over = ticks in self._closed.numbers
            for held in members:
                held.settle(reason if reason != "incomplete" else "late" if over else "used")
            if reason == "late" and not over:  # the rest of its frame may still be in time
                self._late.setdefault(ticks, []).extend(members)
            elif reason == "incomplete" and not over:
                self._out.append(Dropped(self._frame(members), reason))

    def _close_late(self, now_ns: int) -> None:
        """Frames of which there was nothing but packets too late leave as such, once they are due."""
        for ticks, members in list(self._late.items()):
            if not self._ending and (
                members[0].deadline_ns > now_ns or any(held.run.ticks == ticks for held in self._held.values())
            ):
                continue
            del self._late[ticks]
            if ticks not in self._closed.numbers:
                self._out.append(Dropped(self._frame(members), "late"))

    def _give_up_all(self) -> None:
        """What is held leaves: what is whole as frames, as it may only have waited for its time."""
        left, self._held = list(self._held.values()), {}
        for ticks in sorted({held.run.ticks for held in left}):
            members = [held for held in left if held.run.ticks == ticks]
            if whole(held.packet for held in members):
                self._give(members)
            else:
                self._drop(members, "incomplete")

    def _frame(self, packets: Sequence[_Held]) -> Frame:
        """Packets of one timestamp as a frame: whole, if they are one."""
        runs = [held.run for held in sorted(packets, key=lambda held: held.run.sequence)]
        form = runs[0].form
        assembler = self._usual.assembler() if form is None else form.assembler()
        for run in runs:
            self._refused += assembler.add_run(run.sequence, run.marker, run.batch)
        assembler.begins(runs[0].sequence)
        data = assembler.frame() if assembler.complete else None
        self._closed.add((runs[0].ticks,))
        arrivals = [held.arrived_ns for held in packets]
        return Frame(
            runs[0].ticks,
            runs[0].media_ns,
            data,
            sum(run.batch.length - HEADER_BYTES for run in runs),
            len(runs),
            len(assembler.missing),
            min(arrivals),
            None if data is None else max(arrivals),
            coding=assembler.coding,
            key=assembler.key,
            numbers=(runs[0].sequence, runs[-1].sequence),
        )

    # ---- what became of it

    def _guarded(self, ask: Callable[[], None], now_ns: int) -> None:
        if self._broken:
            return
        try:
            ask()
        except PartError as error:
            if self._failed is None:
                raise
            self._fall_back(now_ns)
            self._failed(error)

    def _fall_back(self, now_ns: int) -> None:
        """The one that comes with avlab from here on, with all that is held."""
        self._broken = True
        left = {held.run.sequence for held in self._held.values()}
        self._usual.after(self._seen.without(left), self._closed.numbers)
        for held in self._held.values():
            [fate] = self._usual.push_run(held.run, held.arrived_ns)
            held.settle(fate)
        self._held.clear()
        self._out.extend(self._usual.pull(now_ns))


def check_own_buffer(choice: Any) -> Any:
    """A jitter buffer's class as it is, or None. TypeError, in a sentence, for anything else."""
    if choice is None:
        return None
    if not isinstance(choice, type):
        raise TypeError(
            f"jitter_buffer must be a class with push and pull, not {shown(choice)}: one object is made of it for each "
            "stream"
        )
    if missing := missing_methods(choice, ("push", "pull")):
        raise TypeError(f"the jitter buffer {named(choice)} has no method {missing[0]}: it needs push and pull")
    return choice
