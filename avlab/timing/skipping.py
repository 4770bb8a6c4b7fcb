"""Which pictures a sender that cannot keep up leaves out, so that those it sends come evenly and on time. Pure.

Asked before a picture is encoded, told when it was sent: what lies between the two is what a picture has to be chosen
ahead of its moment. The two may come from different threads.
"""

from __future__ import annotations

from avlab.wire.units import NS

BEHIND_NS = 60_000_000
HOPELESS_NS = NS
"""When pictures have been behind for so long before they are even encoded, the machine is too slow for the clip: some
are left out then until it keeps up. A single stall is caught up with by working faster, and costs no picture."""

CALM_NS = NS
"""No picture had to be left out for so long: the machine keeps up again."""

MOST_RUN_NS = NS // 2
"""Left out for so long without a break, as by a machine that does not even decode in time: the next one is sent, late
as it is. Few pictures are better than none."""

PROMPT_NS = NS // 1000
"""Who sends a picture so soon after its moment has waited for that, and not for the next look."""

MOST_LEAD_NS = NS
"""A picture is chosen no further ahead of its moment."""

MOST_LEAP_NS = 20 * NS
"""Nor does a leap lead further ahead."""

LEAP_READS = 4
"""A leap is taken to last as long as reading so many pictures does, before there has been one: it goes to a picture
that decoding can begin with, and decoders hand pictures out a few later."""


class Skipper:
    """Decides for each picture of one pass, in order. A `live` source has no pictures of the future to choose.

    Where not even reading keeps up, every picture would be late. A source that can leave pictures unread, `leaps`, is
    to ask `leap` before it reads each: it names a moment that is so far ahead that a picture due then can be sent.
    """

    def __init__(self, *, live: bool = False, leaps: bool = False) -> None:
        self._live, self._leaps, self._can_leap = live, leaps, leaps
        self._behind_since_ns: int | None = None
        self._slow_since_ns: int | None = None  # None: the machine keeps up
        self._last_skip_ns = 0
        self._run_since_ns: int | None = None  # since when every picture was left out
        self._look_ns = 0  # how long a picture that can be sent waits for the next look at it
        self._lead_ns = 0  # how long a picture takes from its choice until it can be sent, as learnt
        self._run_due_ns = 0  # when the first picture of the run was due,
        self._run_reads = 0  # and how many were read in it
        self._leap_ns: int | None = None  # how long a leap takes, as learnt; None: reading keeps up, as far as is known
        self._leaps_now = False  # the next picture is to be one that is reached by a leap
        self._asked_ns: int | None = None  # when a leap was asked for that has not led to a picture yet,
        self._target_ns = 0  # and to which moment

    @property
    def slow(self) -> bool:
        """Whether pictures are left out, as the machine does not keep up."""
        return self._slow_since_ns is not None

    def skips(self, due_ns: int, now_ns: int) -> bool:
        """Whether the next picture, due at `due_ns`, is left out: it would be late when its turn comes."""
        if self._slow_since_ns is None:
            if now_ns <= due_ns + BEHIND_NS:
                self._behind_since_ns = None
                return False
            if self._behind_since_ns is None:
                self._behind_since_ns = now_ns
            if now_ns <= self._behind_since_ns + HOPELESS_NS:
                return False
            self._slow_since_ns = self._last_skip_ns = now_ns
            self._run_since_ns, self._look_ns, self._lead_ns, self._leap_ns = None, 0, 0, None
            self._can_leap = self._leaps
        self._learn_leap(due_ns, now_ns)
        if now_ns > self._last_skip_ns + CALM_NS and due_ns >= now_ns:
            self._slow_since_ns = self._behind_since_ns = None
            return False
        if self._run_since_ns is None:
            self._run_since_ns, self._run_due_ns, self._run_reads = now_ns, due_ns, 0
        late = due_ns + BEHIND_NS < now_ns if self._live else due_ns < now_ns + self._lead_ns
        if late:
            self._last_skip_ns = now_ns
            if self._leap_ns is not None:  # reading on has been of no use before
                self._leaps_now = True
                return True
            if now_ns <= self._run_since_ns + MOST_RUN_NS:
                self._run_reads += 1
                return True
            run_ns = now_ns - self._run_since_ns
            if self._can_leap and not self._catches_up(run_ns, due_ns, now_ns):
                self._leap_ns = LEAP_READS * run_ns // self._run_reads
                self._leaps_now = True
                return True
        self._run_since_ns = None
        return False

    def leap(self, now_ns: int) -> int | None:
        """The moment, in ns, before which no picture is worth reading any more; None: the next one is.

        The picture that is read then is to be the first, from that moment on, that decoding can begin with. Where there
        is none, reading goes on where it was, and no more leaps are asked for until the machine has kept up again.
        """
        if self._leap_ns is None or not self._leaps_now:
            return None
        if self._asked_ns is None:
            self._asked_ns = now_ns
        self._target_ns = now_ns + min(MOST_LEAP_NS, self._leap_ns + self._lead_ns)
        return self._target_ns

    def _learn_leap(self, due_ns: int, now_ns: int) -> None:
        """A picture has come: how long it took to get there, if it was a leap, and whether it was one at all."""
        if self._asked_ns is not None and self._leap_ns is not None:
            took_ns = now_ns - self._asked_ns
            self._leap_ns = max(took_ns, self._leap_ns + (took_ns - self._leap_ns) // 8)
            self._last_skip_ns = max(self._last_skip_ns, due_ns)  # all up to this one
            if due_ns < self._target_ns:
                self._can_leap, self._leap_ns = False, None
        self._asked_ns, self._leaps_now = None, False

    def _catches_up(self, run_ns: int, due_ns: int, now_ns: int) -> bool:
        """Whether reading alone, as for `run_ns`, gets to what is due now, before one would give up waiting for it."""
        gained_ns = (due_ns - self._run_due_ns) - run_ns
        behind_ns = now_ns + self._lead_ns - due_ns
        return gained_ns * HOPELESS_NS >= behind_ns * run_ns

    @property
    def early_ns(self) -> int:
        """How long before its moment a picture may leave: who looks up seldom sends it at the look that is nearer."""
        return self._look_ns // 2 if self.slow else 0

    def sent(self, chosen_ns: int, ready_ns: int, due_ns: int, sent_ns: int) -> None:
        """A picture that was not left out at `chosen_ns` could be sent from `ready_ns` on, and was: choose accordingly.

        Where whoever sends looks up once in so long, the next picture is best due shortly before the next look.
        """
        if self._slow_since_ns is None or chosen_ns < self._slow_since_ns:
            return  # chosen before anything was left out: its lateness is the backlog's
        free_ns = due_ns - self.early_ns
        look_ns = sent_ns - ready_ns
        if ready_ns < free_ns:  # it had to wait for its moment: the next look is half as far as looks are apart,
            look_ns = 0 if 0 <= sent_ns - due_ns < PROMPT_NS else 2 * (sent_ns - free_ns)  # or comes at that moment
        self._look_ns += (min(look_ns, MOST_LEAD_NS) - self._look_ns) // 4
        too_late_ns = ready_ns + self._look_ns * 3 // 4 - due_ns
        if too_late_ns > 0:
            self._lead_ns = min(MOST_LEAD_NS, self._lead_ns + too_late_ns // 2)
        else:
            spare_ns = min(self._lead_ns, -too_late_ns)  # shrinks faster after leaps, which few pictures follow
            self._lead_ns -= max(self._lead_ns // 16, spare_ns // (8 if self._leap_ns is None else 4))
