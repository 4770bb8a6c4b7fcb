"""How long a check waits for a student's work: each call has a second, and all of a check's calls have one together.

A check runs on a thread of its own, so that work which cannot be ended, as a long `time.sleep`, does not keep the
notebook waiting: its thread is left behind, and named.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from avlab.lab.check import words
from avlab.lab.predictions import Verdict
from avlab.parts import PartEndedError, PartError
from avlab.stream.guard import Guard

Error = TypeVar("Error", bound=BaseException)

LIMIT_S = 1.0
"""How long one call of a student's work may take, and how much of a processor all of a check's calls together, seconds;
so long they may sleep, too."""

ASLEEP = 0.2
"""Work that uses less of a processor than this share of its time is asleep."""

FAST_ASLEEP = 0.05
"""Work that uses less than this share is asleep even where other programs leave it little of a processor."""

HOPELESS = 4
"""After so many times the limit a check ends, whoever keeps its calls from the processor."""

NAP_S = 0.008
"""A call that sleeps takes longer."""

THREAD = "avlab-check"
"""The name of the thread that a check runs on."""


class WrongError(Exception):
    """A sentence on a student's work: a check's verdict, from deep within."""


class Patience:
    """Calls a student's work for one check, and ends a call that takes too long."""

    def __init__(self, guard: Guard, who: str) -> None:
        self._guard, self._who = guard, who
        self._calls = 0
        self._taken_s = self._worked_s = 0.0

    def call(self, function: Callable[..., Any], *arguments: Any, busy: bool = False) -> Any:
        """What it returns; what it raises comes as it is. WrongError when it, or all calls together, take too long.

        Work that may be `busy`, as a codec is, may take longer in all, unless it sleeps.
        """
        began_s, worked_s = time.perf_counter(), time.thread_time()
        raised: list[BaseException] = []

        def kept() -> Any:
            try:
                return function(*arguments)
            except BaseException as error:
                raised.append(error)
                raise

        try:
            given = self._guard.call(self._who, kept)
        except PartEndedError:
            raise WrongError(self._too_long()) from None
        except PartError:
            raise raised[-1] from None
        finally:
            self._calls += 1
            self._taken_s += time.perf_counter() - began_s
            self._worked_s += time.thread_time() - worked_s
        if self._taken_s > LIMIT_S and self._calls > 2 and (self._naps() if busy else self._dawdles()):
            raise WrongError(self._too_slow())
        return given

    def _dawdles(self) -> bool:
        """Whether it is its own fault that it took so long: other programs, too, keep a call from the processor."""
        asleep = self._worked_s < FAST_ASLEEP * self._taken_s
        return asleep or self._worked_s > LIMIT_S or self._taken_s > HOPELESS * LIMIT_S

    def _naps(self) -> bool:
        """Whether its time went by in sleep: others' programs, too, keep a call from the processor, for less."""
        return self._taken_s > NAP_S * self._calls and self._worked_s < FAST_ASLEEP * self._taken_s

    def _too_long(self) -> str:
        return f"{self._who} had not returned after {LIMIT_S:g} s, and was stopped: is there a loop that never ends?"

    def _too_slow(self) -> str:
        each = f"{self._who} took {self._taken_s:.1f} s for {self._calls} calls, and was stopped"
        if self._worked_s < ASLEEP * self._taken_s:
            return f"{each}: it sleeps. Leave out time.sleep and what else waits: whoever calls it does the waiting."
        return f"{each}: is there a loop that runs longer than it has to?"


def let_through(error: BaseException) -> None:
    """Raise what a simulated run has wrapped on its way out: the check's own sentence, and Ctrl-C."""
    found: BaseException | None
    for found in (_in(error, KeyboardInterrupt), _in(error, WrongError)):
        if found is not None:
            raise found


def _in(error: BaseException | None, kind: type[Error]) -> Error | None:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__
    return error


def judged(work: Any, check: Callable[[Patience], Verdict]) -> Verdict:
    """The check's verdict, whatever the student's objects do when they are called, compared, measured or printed.

    Ctrl-C alone gets through: it is the person's. What else is no Exception, as `exit()`, ends a check and no notebook.
    """
    over = threading.Event()  # the check has ended, or its work does not
    ended: list[Verdict | BaseException] = []
    who = words.name(work)
    with Guard(lambda _words: over.set(), limit_s=LIMIT_S) as guard:
        patience = Patience(guard, who)

        def run() -> None:
            try:
                ended.append(check(patience))
            except BaseException as error:
                ended.append(error)
            over.set()

        context = contextvars.copy_context()
        thread = threading.Thread(target=lambda: context.run(run), name=THREAD, daemon=True)
        thread.start()
        over.wait()
        if ended:
            thread.join()
    if not ended:
        return Verdict(
            False,
            f"{who} has not returned, and cannot be stopped: restart the kernel. Is there a time.sleep, or a wait for "
            "something that never comes?",
        )
    [found] = ended
    if isinstance(found, Verdict):
        return found
    try:
        let_through(found)
    except WrongError as wrong:
        return Verdict(False, words.said(wrong))
    return Verdict(False, f"{who} cannot be checked: something of it fails with {words.told(found)}.")
