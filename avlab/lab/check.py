"""Checks of a student's work that say what is wrong, and a look at what was left behind; predictions are here, too.

Nothing here knows the page: what is returned displays itself, and a check never raises for what a student wrote.
"""

from __future__ import annotations

import asyncio
import gc
import math
import socket
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

from avlab import testing
from avlab.lab.predictions import PURPLE, Prediction, Verdict, predict
from avlab.measure.numbers import metrics
from avlab.media.codec import check_quality, check_width
from avlab.network.ratecontrol import Choice, Report
from avlab.network.settings import Network
from avlab.stream.handle import running_handles, stop_all, untold_errors
from avlab.stream.simulate import simulate
from avlab.timing.pacing import FeedbackPacer

__all__ = [
    "PURPLE",
    "Prediction",
    "Verdict",
    "begin",
    "controller",
    "function",
    "nothing_left",
    "part",
    "predict",
    "receiver",
    "rule",
]


# ---- a student's work


def function(work: Any, cases: Mapping[Any, Any], *, within: float = 1e-6) -> Verdict:
    """Hold a student's function against cases; the verdict names the first that is wrong.

    A case is `argument: result`, or `(argument, argument, ...): result`. Numbers may differ by the part `within`.
    """
    cases = dict(cases)  # a mistake in these is the teacher's, and raises
    return _guarded(work, lambda: _function(work, cases, within))


def _function(work: Any, cases: Mapping[Any, Any], within: float) -> Verdict:
    if not callable(work):
        return Verdict(
            False, f"{_short(work)} is no function: it is made with def, and handed over without parentheses."
        )
    name = _name(work)
    for key, right in cases.items():
        arguments = key if isinstance(key, tuple) else (key,)
        call = f"{name}({', '.join(map(_short, arguments))})"
        try:
            given = work(*arguments)
        except Exception as error:
            return Verdict(False, f"{call} fails with {_told(error)}.")
        if (words := _nothing(call, given)) is not None:
            return Verdict(False, words)
        try:
            same = _same(given, right, within)
        except Exception as error:
            right_text = f"should give {_short(right)}"
            return Verdict(
                False, f"{call} {right_text}; what it gives cannot be compared with that: it fails with {_told(error)}."
            )
        if not same:
            return Verdict(False, f"{call} gives {_short(given)} and should give {_short(right)}.")
    return Verdict(True, f"{name} is right in all {len(cases)} cases.")


def rule(work: Any, *, fps: float = 30.0, seconds: float = 60.0) -> Verdict:
    """Let a student's pacing rule run in simulated time, and say what is wrong with it or how well it does.

    What the rule must be is told by `FeedbackPacer`: a function of (delay, measured_fps, target_fps), in seconds.
    """
    return _guarded(work, lambda: _rule(work, fps, seconds))


def _rule(work: Any, fps: float, seconds: float) -> Verdict:
    name = _name(work)
    try:
        pacer = FeedbackPacer(work)
        trace = simulate(fps, pacer=pacer, seconds=seconds)
    except (TypeError, ValueError, RuntimeError) as error:  # a pacer's own sentences
        said = _said(error)
        if "returned Ellipsis" in said:
            return Verdict(False, f"{name} is not written yet: put your own in place of ...")
        # What a `reset` or a constructor raises comes as it is, and its words alone would not say whose they are.
        own = name in said or "rule" in said
        return Verdict(False, _sentence(said if own else f"{name} fails with {_told(error)}"))
    found = metrics.convergence(trace, at="sent")
    if pacer.stalls:
        return Verdict(
            False,
            f"{name} lets its wait run out in {pacer.stalls} of {round(fps * seconds)} frames. "
            f"{_DIRECTION} Or is its step too large?",
        )
    if found.settled_s is None:
        mean = "no frame left in time" if found.mean_fps is None else f"{found.mean_fps:.2f} fps on average"
        return Verdict(False, f"{name} never settles within 2 % of {fps:g} fps in {seconds:g} s ({mean}). {_DIRECTION}")
    drift = round(found.drift_ms_per_minute or 0.0, 2)
    slides = f"then {'falls behind' if drift > 0 else 'gets ahead'} by {abs(drift):.3g} ms a minute"
    return Verdict(
        True, f"{name} works: it settles in {found.settled_s:.2f} s and {slides if drift else 'does not drift'}."
    )


def controller(work: Any, *, rate: float = 3_000.0, seconds: float = 60.0) -> Verdict:
    """Let a student's rate controller meet a bottleneck in simulated time, and say what is wrong, or how well it does.

    What it must be is told by `RateController`: an object with `update(report)`, which returns a `Choice` or None. The
    bottleneck takes `rate` kbit/s, a tenth less than the stream begins with; what waits longer than 0.2 s is dropped.
    """
    return _guarded(work, lambda: _controller(work, rate, seconds))


def _controller(work: Any, rate: float, seconds: float) -> Verdict:
    try:
        judged = _Judged(work() if isinstance(work, type) else work)
        network = Network(rate=rate, queue=0.2, delay=0.02)
        trace = simulate(30.0, network=network, rate_control=judged, seconds=seconds)
    except _WrongError as wrong:
        return Verdict(False, str(wrong))
    except Exception as error:  # of its making
        return Verdict(False, f"{_name(work)} fails with {_told(error)}.")
    whole, waits = metrics.summary(trace), metrics.one_way_delay(trace)["delay_ms"]
    shown, used = whole.shown / whole.offered, (whole.bitrate_kbps or 0.0) / rate
    waited_ms = float(waits.median()) - 20
    found = f"{shown:.0%} of the frames are shown, and {used:.0%} of the path is used"
    sooner = "The round trip grows before anything is lost: go down when it does"
    if not judged.chosen:
        return Verdict(False, f"{judged.name} never chooses anything: {found}. Return a Choice when a report is bad.")
    if waited_ms > 100:
        return Verdict(False, f"{judged.name} keeps the queue full: packets wait {waited_ms:.0f} ms in it. {sooner}.")
    if shown < 0.97:
        return Verdict(False, f"{judged.name} lets the queue overflow: {found}. {sooner}.")
    if used < 0.6:
        return Verdict(False, f"{judged.name} is too modest: {found}. Try more again while the round trip is short.")
    return Verdict(True, f"{judged.name} works: {found}; packets wait {waited_ms:.0f} ms before the bottleneck.")


PARTS: dict[str, Callable[[Any], None]] = {
    "codec": testing.check_codec,
    "jitter_buffer": testing.check_jitter_buffer,
    "network": lambda work: testing.check_network(**_networks(work)),
    "pacer": testing.check_pacer,
    "payload": testing.check_payload,
    "playout_delay": testing.check_delay,
    "rate_control": testing.check_controller,
    "repair": testing.check_repair,
}
"""What holds a part against its contract, by the keyword that the part is handed in with."""


def part(kind: str, work: Any) -> Verdict:
    """Hold a student's part against its contract, without a stream: what `avlab.testing` raises, as a verdict.

    `kind` is the keyword by which it is handed in: "codec", "jitter_buffer", "network", "pacer", "payload",
    "playout_delay", "rate_control" or "repair"; a function as a network is its loss. ValueError for another word.
    """
    if kind not in PARTS:
        raise ValueError(f"a part is one of {', '.join(PARTS)}, not {kind!r}")
    return _guarded(work, lambda: _part(kind, work))


def _part(kind: str, work: Any) -> Verdict:
    try:
        PARTS[kind](work)
    except AssertionError as wrong:
        return Verdict(False, _sentence(_said(wrong)))
    return Verdict(True, f"{_name(work)} is a {kind.replace('_', ' ')} that keeps to its contract.")


def _networks(work: Any) -> dict[str, Any]:
    return {"loss": work} if callable(work) and not isinstance(work, Network) else {"network": work}


class _WrongError(Exception):
    """A sentence on a student's work."""


class _Judged:
    """A rate controller whose choices are looked at before they count."""

    def __init__(self, work: Any) -> None:
        self.name, self.chosen = _name(type(work)), 0
        self._update = getattr(work, "update", None)
        if not callable(self._update):
            raise _WrongError(f"{_short(work)} is no controller: it wants a class with a method update(self, report).")

    def update(self, report: Report, /) -> Choice | None:
        assert self._update is not None
        try:
            given = self._update(report)
        except Exception as error:
            raise _WrongError(f"{self.name}.update fails with {_told(error)}, when it is given {report}.") from error
        if given is ...:
            raise _WrongError(f"{self.name}.update is not written yet: put your own in place of ...")
        if given is None:
            return None
        try:
            quality, width = given
            check_quality(quality)
            check_width(width)
        except Exception as error:
            text = "it is to return Choice(quality=..., width=...), or None"
            raise _WrongError(
                f"{self.name}.update returned {_short(given)}: {text}. {_sentence(_said(error))}"
            ) from error
        self.chosen += 1
        return Choice(quality, width)


_DIRECTION = "Does the delay grow when measured_fps is above target_fps, and shrink when it is below?"


class _Endless(BaseException):
    """A reader would read for ever; no `except Exception` of a student's is to catch it."""


class _Stream:
    """As much of a connected socket as a reader needs: `recv` gives the pieces in which a stream arrives."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = deque(pieces)
        self._ended = 0

    def recv(self, size: int, _flags: int = 0) -> bytes:
        if not isinstance(size, int) or size < 0:
            raise ValueError(f"recv takes a number of bytes, 0 or more, and not {size!r}")
        if not self._pieces:
            self._ended += 1
            if self._ended > 100:
                raise _Endless
            return b""
        piece = self._pieces.popleft()
        if len(piece) > size:
            self._pieces.appendleft(piece[size:])
        return piece[:size]


def receiver(work: Any) -> Verdict:
    """Check a `receive(sock, size)` that returns exactly `size` bytes of a TCP connection, however they come.

    At the connection's end it is to raise ConnectionError, or another OSError or EOFError.
    """
    return _guarded(work, lambda: _receiver(work))


def _receiver(work: Any) -> Verdict:
    if not callable(work):
        return function(work, {})
    name = _name(work)
    runs: tuple[tuple[str, tuple[bytes, ...]], ...] = (
        ("come in one piece", (b"0123456789",)),
        ("come as 4 and 6", (b"0123", b"456789")),
        ("come one by one", tuple(bytes([byte]) for byte in b"0123456789")),
    )
    for how, pieces in runs:
        for after in ((), (b"next",)):
            stream = _Stream((*pieces[:-1], pieces[-1] + b"".join(after)))
            try:
                given = work(stream, 10)
            except _Endless:
                return Verdict(False, f"{name}: of 10 bytes that {how}, it has all and goes on reading.")
            except Exception as error:
                return Verdict(False, f"{name} fails with {_told(error)}, when 10 bytes {how}.")
            if (words := _nothing(f"{name}(sock, 10)", given)) is not None:
                return Verdict(False, words)
            if given != b"0123456789" and len(given) < 10:
                text = "recv returns what is there, so go on until all have come"
                return Verdict(False, f"{name}: of 10 bytes that {how}, it returns {_short(given)}: {text}.")
            if given != b"0123456789" or (after and stream.recv(4) != b"next"):
                text = "never ask recv for more than is still missing"
                return Verdict(False, f"{name}: of 10 bytes that {how}, it takes some of the next message: {text}.")
    try:
        given = work(_Stream((b"0123",)), 10)
    except (OSError, EOFError):
        return Verdict(True, f"{name} is right, however the stream is cut and wherever it ends.")
    except _Endless:
        text = "recv returns b'' at a connection's end: raise ConnectionError then"
        return Verdict(False, f"{name} goes on for ever when the connection ends after 4 of 10 bytes: {text}.")
    except Exception as error:
        return Verdict(False, f"{name} fails with {_told(error)} when the connection ends early.")
    text = "raise an error"
    return Verdict(False, f"{name} returns {_short(given)} when the connection ends after 4 of 10 bytes: {text}.")


def _guarded(work: Any, check: Callable[[], Verdict]) -> Verdict:
    """The check's verdict, whatever the student's objects do when they are called, compared, measured or printed.

    Ctrl-C alone gets through: it is the person's. What else is no Exception, as `exit()`, ends a check and no notebook.
    """
    try:
        return check()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Verdict(False, f"{_name(work)} cannot be checked: something of it fails with {_told(error)}.")


def _nothing(call: str, given: Any) -> str | None:
    """What is to be said of a function that is not written yet, or forgot its return."""
    if given is ...:
        return f"{call} is not written yet: put your own in place of ..."
    return f"{call} returns nothing: is there a return?" if given is None else None


def _same(given: Any, right: Any, within: float) -> bool:
    if isinstance(given, Real) and isinstance(right, Real):
        return math.isclose(given, right, rel_tol=within, abs_tol=within)
    same = given == right
    try:
        return bool(same)
    except ValueError:  # arrays compare one by one
        return bool(same.all())


# What is said of a student's objects asks them: their names, their repr. They may fail at that, too.


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"a {type(value).__name__} whose repr fails with {type(error).__name__}"
    return text if len(text) <= 60 else f"{text[:40]} ... ({len(text)} characters)"


def _name(work: Any) -> str:
    try:
        return str(getattr(work, "__name__", type(work).__name__))
    except KeyboardInterrupt:
        raise
    except BaseException:
        return str(type.__getattribute__(type(work), "__name__"))


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return ""


def _told(error: BaseException) -> str:
    said = _said(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


# ---- what is left

_uncaught: deque[str] = deque(maxlen=20)  # what threads and finalisers of this process failed of, while watched
_known: weakref.WeakSet[socket.socket] = weakref.WeakSet()  # sockets that were open before
_watching = False


def begin() -> None:
    """End what an earlier run left playing; from here on, errors of threads and open sockets are `nothing_left`'s."""
    global _watching
    stop_all()
    untold_errors()
    _uncaught.clear()
    _known.clear()
    _known.update(_open_sockets())
    if not _watching:
        _watching = True
        threading.excepthook = _kept(threading.excepthook, lambda args: f"thread {args.thread and args.thread.name}")
        sys.unraisablehook = _kept(sys.unraisablehook, lambda args: _short(args.object))


def nothing_left() -> Verdict:
    """Whether a notebook has ended all that it began: no server or client, no thread, no socket, no unseen error."""
    left = [f"{handle!r} still runs: stop() it, or avlab.stop_all()" for handle in running_handles()]
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("avlab-")]
    if threads and not left:
        left.append(f"threads still run: {', '.join(threads)}")
    left += [
        f"a socket is still open at {_address(sock)}: close() it, or make it with a with statement"
        for sock in _open_sockets()
        if sock not in _known and not running_handles()
    ]
    left += [f"nobody was told of this error: {_told(error)}" for error in untold_errors()]
    left += list(_uncaught)
    _uncaught.clear()
    if left:
        return Verdict(False, "\n".join(_sentence(text) for text in left))
    return Verdict(True, "Nothing is left: no server or client, no thread, no socket, no error.")


def _kept(before: Callable[[Any], Any], who: Callable[[Any], str]) -> Callable[[Any], Any]:
    """A hook that keeps what it is told of and hands it on."""

    def hook(args: Any) -> None:
        _uncaught.append(f"{who(args)} failed with {_told(args.exc_value)}")
        before(args)

    return hook


def _open_sockets() -> list[socket.socket]:
    """Internet sockets of this process that are open, but for those by which event loops wake themselves."""
    objects = gc.get_objects()
    # By type(): proxies among the objects would be woken by isinstance().
    sockets = [thing for thing in objects if issubclass(type(thing), socket.socket) and thing.fileno() != -1]
    loops = [thing for thing in objects if issubclass(type(thing), asyncio.BaseEventLoop)] if sockets else []
    own = {id(getattr(loop, name, None)) for loop in loops for name in ("_ssock", "_csock")}
    internet = (socket.AF_INET, socket.AF_INET6)
    return [sock for sock in sockets if sock.family in internet and id(sock) not in own]


def _address(sock: socket.socket) -> str:
    kind = "UDP" if sock.type == socket.SOCK_DGRAM else "TCP"
    try:
        host, port = sock.getsockname()[:2]
    except OSError:
        return kind
    return f"{kind} {host}:{port}"
