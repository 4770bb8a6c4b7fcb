"""A student's reader of exactly so many bytes from a TCP connection, given streams that are cut in many ways."""

from __future__ import annotations

import io
import random
import socket
from collections import deque
from collections.abc import Iterable
from typing import Any

from avlab.lab.check.patience import Patience, WrongError, judged
from avlab.lab.check.words import name, no_function, nothing, said, short, told
from avlab.lab.predictions import Verdict

NEXT = b"next"
"""The beginning of the message after."""

_PEEK, _WAITALL = int(socket.MSG_PEEK), int(getattr(socket, "MSG_WAITALL", 0))


class _Endless(BaseException):
    """A reader would read for ever; no `except Exception` of a student's is to catch it."""


class _Pieces(io.RawIOBase):
    """The connection as a file, as `makefile` gives it."""

    def __init__(self, stream: _FedSocket) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        return self._stream.recv_into(buffer)


class _FedSocket:
    """A connected socket, as far as one reads from it: pieces come as they are cut, and nothing after the last."""

    family, type, proto = socket.AF_INET, socket.SOCK_STREAM, 0

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = deque(pieces)
        self._ended = 0
        self._timeout: float | None = None
        self.buffered = False  # whether it is read through a file that reads ahead
        self.closed = False

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        if isinstance(size, bool) or not hasattr(size, "__index__") or size < 0:
            raise ValueError(f"recv takes a number of bytes, 0 or more, and not {size!r}")
        if self.closed:
            raise OSError("the socket is closed")
        if size == 0:
            return b""
        if not self._pieces:
            self._ended += 1
            if self._ended > 100:
                raise _Endless
            return b""
        if flags & _PEEK:
            return self._pieces[0][:size]
        got = self._piece(size)
        while _WAITALL and flags & _WAITALL and self._pieces and len(got) < size:
            got += self._piece(size - len(got))
        return got

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        view = memoryview(buffer).cast("B")
        size = nbytes or len(view)
        if size > len(view):
            raise ValueError("buffer too small for requested bytes")
        piece = self.recv(size, flags)
        view[: len(piece)] = piece
        return len(piece)

    def recvfrom(self, size: int, flags: int = 0, /) -> tuple[bytes, None]:
        return self.recv(size, flags), None

    def recvmsg(self, size: int, ancillary: int = 0, flags: int = 0, /) -> tuple[bytes, list[Any], int, None]:
        return self.recv(size, flags), [], 0, None

    def makefile(self, mode: str = "r", buffering: int | None = None, **_: Any) -> Any:
        if "b" not in mode:
            raise ValueError('a text file gives no bytes: makefile("rb")')
        raw = _Pieces(self)
        if buffering == 0:
            return raw
        self.buffered = True
        # A buffer of one byte reads just what is asked for. A socket's own reads ahead, which the verdict tells.
        return io.BufferedReader(raw, 1)

    def settimeout(self, value: float | None, /) -> None:
        self._timeout = value

    def gettimeout(self) -> float | None:
        return self._timeout

    def setblocking(self, flag: bool, /) -> None:
        self._timeout = None if flag else 0.0

    def getblocking(self) -> bool:
        return self._timeout != 0

    def setsockopt(self, *_: Any) -> None:
        """Nothing that a reader could notice."""

    def getpeername(self) -> tuple[str, int]:
        return "127.0.0.1", 50_000

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 50_001

    def shutdown(self, _how: int, /) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> _FedSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _piece(self, size: int) -> bytes:
        piece = self._pieces.popleft()
        if len(piece) > size:
            self._pieces.appendleft(piece[size:])
        return piece[:size]


def receiver(work: Any, *, seed: int | None = None) -> Verdict:
    """Check a `receive(sock, size)` that returns exactly `size` bytes of a TCP connection, however they come.

    At the connection's end it is to raise ConnectionError, or another OSError or EOFError. `seed` draws the bytes, and
    how they are cut; without it they are others each time.

    Args:
        work: The student's function.
        seed: Draws the cases; None has others each time.
    """
    if seed is None:
        seed = random.SystemRandom().getrandbits(64)
    chance = random.Random(seed)
    return judged(work, lambda patience: _receiver(work, chance, patience))


def _receiver(work: Any, chance: random.Random, patience: Patience) -> Verdict:
    if not callable(work):
        return Verdict(False, no_function(work))
    who = name(work)
    buffered = False
    for message, pieces, how in _cuts(chance):
        size = len(message)
        for after in (b"", NEXT):
            stream = _FedSocket((*pieces[:-1], pieces[-1] + after))
            try:
                given = patience.call(work, stream, size)
            except _Endless:
                return Verdict(False, f"{who}: of {size:,} bytes that {how}, it has all and goes on reading.")
            except WrongError:
                raise
            except Exception as error:
                return Verdict(False, f"{who} fails with {told(error)}, when {size:,} bytes {how}.")
            if (words := nothing(f"{who}(sock, {size})", given)) is not None:
                return Verdict(False, words)
            if isinstance(given, list) and all(isinstance(piece, bytes | bytearray) for piece in given):
                return Verdict(False, f"{who} returns a list of pieces: join them, as in b''.join(pieces).")
            if not isinstance(given, bytes | bytearray | memoryview):
                return Verdict(False, f"{who} returns {short(given)}: bytes are wanted.")
            if given != message and len(given) < size:
                text = "recv returns what is there, so go on until all have come"
                return Verdict(False, f"{who}: of {size:,} bytes that {how}, it returns {_bytes(given)}: {text}.")
            if given == message + after and after:
                text = "never ask recv for more than is still missing"
                return Verdict(False, f"{who}: of {size:,} bytes that {how}, it takes the next message, too: {text}.")
            if given != message and len(given) == size:
                return Verdict(False, f"{who}: of {size:,} bytes that {how}, it returns others: {_bytes(given)}.")
            if stream.closed:
                return Verdict(False, f"{who} closes the connection, and the next message is still to come.")
            if given != message or (after and stream.recv(len(NEXT)) != NEXT):
                text = "never ask recv for more than is still missing"
                return Verdict(
                    False, f"{who}: of {size:,} bytes that {how}, it takes some of the next message: {text}."
                )
            buffered |= stream.buffered
    return _at_the_end(work, who, chance, patience, buffered)


def _at_the_end(work: Any, who: str, chance: random.Random, patience: Patience, buffered: bool) -> Verdict:
    """Whether a reader raises what it is to when the connection ends early: before the first byte, and among them."""
    for size, came in ((10, 4), (chance.randrange(20, 90), 0)):
        ends = f"the connection ends after {came} of {size} bytes"
        right = "recv returns b'' at a connection's end: raise ConnectionError then"
        stream = _FedSocket((bytes(chance.randrange(256) for _ in range(came)),) if came else ())
        try:
            given = patience.call(work, stream, size)
        except (OSError, EOFError):
            continue
        except _Endless:
            return Verdict(False, f"{who} goes on for ever when {ends}: {right}.")
        except WrongError as wrong:
            return Verdict(False, f"{said(wrong)} It was when {ends}: {right}.")
        except Exception as error:
            text = "raise ConnectionError, which tells whoever calls it that the connection, and nothing else, failed"
            return Verdict(False, f"{who} fails with {told(error)} when {ends}: {text}.")
        returns = "nothing" if given is None else _bytes(given)
        return Verdict(False, f"{who} returns {returns} when {ends}: raise ConnectionError, or nobody notices.")
    text = f"{who} is right, however the stream is cut and wherever it ends."
    if buffered:
        text += " (A file of makefile reads ahead: keep the one file for all messages of a connection.)"
    return Verdict(True, text)


def _cuts(chance: random.Random) -> list[tuple[bytes, list[bytes], str]]:
    """Messages, the pieces in which they come, and how that is said."""

    def drawn(size: int) -> bytes:
        return bytes(chance.choice(b"abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(size))

    ten, size = drawn(10), chance.randrange(11, 40)
    text, long = drawn(size), drawn(chance.randrange(9_000, 20_000))
    places = sorted(chance.sample(range(1, size), 3))
    parts = [text[begin:end] for begin, end in zip([0, *places], [*places, size], strict=True)]
    return [
        (ten, [ten], "come in one piece"),
        (ten, [ten[:4], ten[4:]], "come as 4 and 6"),
        (text, [text[at : at + 1] for at in range(size)], "come one by one"),
        (text, parts, f"come as {', '.join(str(len(part)) for part in parts[:-1])} and {len(parts[-1])}"),
        (long, [long[at : at + 1_460] for at in range(0, len(long), 1_460)], "come 1,460 at a time"),
    ]


def _bytes(given: Any) -> str:
    return short(given) if not hasattr(given, "__len__") or len(given) <= 20 else f"{len(given):,} bytes"
