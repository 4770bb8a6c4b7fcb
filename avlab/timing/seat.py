"""The place of a pacer in a stream: what sits there may be anyone's own, and is held to its contract. Pure.

A pacer that fails, loses what it holds, or returns nonsense is told of in a sentence, and what it holds leaves by its
deadline, as all that comes after does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from avlab.parts import Call, Dropped, Due, PartError, called, missing_methods, named, number, shown
from avlab.timing.pacing import (
    FOREVER_NS,
    DeadlinePacer,
    FeedbackPacer,
    NoPacing,
    PiRule,
    TutorialPacer,
    tutorial_rule,
)
from avlab.wire.units import NS

DROPPED_AS = ("skipped", "late", "lost", "incomplete")
"""Why a frame may be dropped before it is sent: words of the ledger."""

METHODS = ("push", "wake_at", "pull")
"""What a pacer has to have."""

STANDS_NS = NS
"""A pacer whose next frame is further off than this stands still: another one takes over at once."""


def pacer_name(pacer: Any) -> str:
    """What a pacer is called, in the record and in the panel: its `name`, or its class's."""
    name = getattr(pacer, "name", None)
    return name if isinstance(name, str) else named(pacer if isinstance(pacer, type) else type(pacer))


def pacer_said(pacer: Any) -> str:
    """What a sentence calls a pacer, or the rule in it, which is what its author wrote."""
    if isinstance(pacer, FeedbackPacer):
        return f"the rule {named(pacer.rule)}"
    return f"the pacer {named(pacer if isinstance(pacer, type) else type(pacer))}"


class Seat:
    """A pacer for whoever sends; the same four methods, of which none fails where there is a `failed` to be told.

    `pull` gives `Due` and `Dropped` alone, and what it gives was pushed. Without `failed`, PartError is raised.
    A pacer handed in as a class is made at each `restart`.
    """

    def __init__(self, pacer: Any, *, call: Call = called, failed: Callable[[PartError], None] | None = None) -> None:
        self.pacer = pacer  # what was handed in
        self._call, self._failed = call, failed
        self._said = pacer_said(pacer)
        self._own = not _ours(pacer)
        self._at: Any = None if isinstance(pacer, type) else pacer
        self._start_ns = 0
        self._last_ns = 0
        self.held: list[Any] = []
        """What was pushed and has not left, oldest first."""

    @property
    def keeps_deadlines(self) -> bool:
        """Whether a sender that falls behind for long may skip frames."""
        try:
            return bool(getattr(self._at, "keeps_deadlines", False))
        except Exception:  # anyone's own
            return False

    @property
    def stands_ns(self) -> int:
        """From which moment on a frame is so far off that another pacer need not wait for it."""
        return self._last_ns + STANDS_NS

    def restart(self, start_ns: int, /) -> None:
        """Forget what waits; presentation time 0 falls on `start_ns`."""
        self._start_ns = self._last_ns = start_ns
        self.held = []
        try:
            if isinstance(self.pacer, type):
                self._at = self._ask(self.pacer)
                if missing := missing_methods(self._at, METHODS):
                    raise PartError(f"{self._said} has no method {missing[0]}: it needs push, wake_at and pull")
            if not missing_methods(self._at, ("restart",)):
                self._ask(self._at.restart, start_ns)
        except PartError as error:
            self._fall_back(error)

    def push(self, item: Any, now_ns: int, /) -> None:
        """Take a frame."""
        self.held.append(item)
        self._last_ns = now_ns
        try:
            if self._own:
                self._ask(self._at.push, item, now_ns)
            else:
                self._at.push(item, now_ns)
        except PartError as error:
            self._fall_back(error)

    def wake_at(self) -> int | None:
        """When the next frame leaves; None when none waits, and only then."""
        if not self._own:
            at_ns: int | None = self._at.wake_at()
            return at_ns
        if not self.held:
            return None
        try:
            return self._promised_ns()
        except PartError as error:
            self._fall_back(error)
            return self.wake_at()

    def pull(self, now_ns: int, /) -> list[Due | Dropped]:
        """What leaves by now."""
        self._last_ns = now_ns
        if self._own and not self.held:
            return []
        try:
            out = self._pulled(now_ns) if self._own else self._at.pull(now_ns)
        except PartError as error:
            self._fall_back(error)
            return self.pull(now_ns)
        for leaving in out:
            if self.held and self.held[0] is leaving.item:  # most leave in the order in which they came
                del self.held[0]
            else:
                self.held = [item for item in self.held if item is not leaving.item]
        return out

    def notices(self) -> list[str]:
        """What there is to tell a person since last asked."""
        if not self._own:
            ours = getattr(self._at, "notices", None)
            return [] if ours is None else ours()
        if missing_methods(self._at, ("notices",)):
            return []
        try:
            given = self._ask(self._at.notices)
            if given is None:
                return []
            if not isinstance(given, list | tuple) or not all(isinstance(words, str) for words in given):
                raise PartError(
                    f"{self._said}: its notices() returned {shown(given)}: it must be a list of sentences, empty if "
                    "there are none"
                )
            return list(given)
        except PartError as error:
            self._fall_back(error)
            return []

    def _ask(self, method: Callable[..., Any], *arguments: Any) -> Any:
        return self._call(self._said, method, *arguments) if self._own else method(*arguments)

    def _promised_ns(self) -> int:
        given: Any = self._ask(self._at.wake_at)
        if given is None:
            first = self.held[0]
            which = getattr(first, "index", None)
            which = getattr(getattr(first, "frame", None), "index", None) if not isinstance(which, int) else which
            frame = "a frame" if which is None else f"frame {which}"
            raise PartError(
                f"{self._said} holds {frame} for ever: its wake_at() must name a moment while a frame waits"
            )
        if (moment := number(given)) is None or math.isinf(moment):
            raise PartError(f"{self._said}: its wake_at() returned {shown(given)}: it must be nanoseconds, or None")
        moment_ns: int = min(FOREVER_NS, int(given))
        return moment_ns

    def _pulled(self, now_ns: int) -> list[Due | Dropped]:
        """What anyone's own gives, which is something once the moment has come that it has promised."""
        promised_ns = self._promised_ns()
        out = self._checked(self._ask(self._at.pull, now_ns), now_ns)
        if not out and promised_ns <= now_ns and self._promised_ns() <= now_ns:
            raise PartError(f"{self._said} gives nothing at {promised_ns / NS:.6f} s, as its wake_at() promised")
        return out

    def _checked(self, given: Any, now_ns: int) -> list[Due | Dropped]:
        if not isinstance(given, list | tuple):
            raise PartError(
                f"{self._said}: its pull() returned {shown(given)}: it must be a list of what is due, empty if nothing"
            )
        out: list[Due | Dropped] = []
        left = list(self.held)
        for leaving in given:
            item = leaving.item if isinstance(leaving, Due | Dropped) else leaving
            at = next((at for at, each in enumerate(left) if each is item), None)
            if at is None:
                raise PartError(
                    f"{self._said}: its pull() returned {shown(leaving)}: it must be a frame that was pushed, once, as "
                    "Due(frame, due_ns) or Dropped(frame, reason)"
                )
            del left[at]
            if isinstance(leaving, Dropped):
                if not isinstance(leaving.reason, str) or leaving.reason not in DROPPED_AS:
                    words = ", ".join(map(repr, DROPPED_AS))
                    raise PartError(f"{self._said} dropped a frame as {shown(leaving.reason)}: say one of {words}")
                out.append(leaving)
                continue
            due_ns: Any = leaving.due_ns if isinstance(leaving, Due) else now_ns
            if (moment := number(due_ns)) is None or math.isinf(moment):
                raise PartError(f"{self._said} returned a frame due at {shown(due_ns)}: it must be nanoseconds")
            out.append(Due(item, int(due_ns)))
        return out

    def _fall_back(self, error: PartError) -> None:
        """Deadlines from here on, for what is held and for what comes."""
        if self._failed is None:
            raise error
        self._at, self._own = DeadlinePacer(), False
        self._at.restart(self._start_ns)
        for item in self.held:
            self._at.push(item, self._last_ns)
        self._failed(error)


def _ours(pacer: Any) -> bool:
    """Whether all of a pacer is avlab's: it needs no watching."""
    if type(pacer) is FeedbackPacer:
        return pacer.rule is tutorial_rule or type(pacer.rule) is PiRule
    return type(pacer) in (DeadlinePacer, NoPacing, TutorialPacer)
