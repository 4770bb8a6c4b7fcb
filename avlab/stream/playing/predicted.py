"""Where pictures are decoded that are predicted from others: every one, in order, on a thread of its own.

What a loss has spoilt is marked, until a picture comes that needs no other, or one that is said to be whole by then.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from avlab.media.videodecoder import CALLED, DecodedPicture, DecodeError, VideoDecoder
from avlab.stream.handle import Worker
from avlab.stream.playing.decoding import Decoded
from avlab.timing.jitterbuffer import Frame
from avlab.wire.payloads import h264, h265
from avlab.wire.units import H264_CODING, H265_CODING

MOST_WAITING = 64
"""Pictures that wait to be decoded; of more, all are given up to the next that needs no other."""

MOST_REORDERED = 17
"""Pictures that a decoder may hold back (H.264 A.3.1 and H.265 A.4.2 let it have 16)."""

NONE_OUT = -(1 << 62)
"""Before the ticks of any picture."""

FAILURES = 3
"""So many key frames of which none could be decoded, and a sentence says so. Others may only want what was lost."""

CORRUPT = 10
"""So many pictures that are whole and do not decode whole, and a sentence says so."""

UNKEYED = 300
"""So many pictures, some ten seconds, and none of them needs no other: a sentence says so."""

_RECOVERS = {H264_CODING: h264.recovers_in, H265_CODING: h265.recovers_in}

Damaged = Literal["show", "freeze"]


class PredictedDecoding:
    """Decodes a stream's pictures in the order in which they are `put`: what `decoding.Decoder` is.

    `coding` is what they are in, and `setup` the parameter sets that were told beforehand. With `damaged` "freeze" a
    picture that a loss has spoilt is not shown. `notice(name, words)` is told what a person should know, and `ready`
    called when pictures have been decoded, both on the decoding thread.

    ValueError, in a sentence, where this PyAV has no such decoder.
    """

    def __init__(
        self,
        coding: str,
        *,
        setup: bytes = b"",
        damaged: Damaged = "show",
        notice: Callable[[str, str], None] = lambda name, words: None,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._decoder = VideoDecoder(coding, setup=setup)
        self._called = CALLED[coding]
        self._damaged, self._notice, self._ready = damaged, notice, ready
        self._changed = threading.Condition()
        # None: nothing more comes; a decoder: what comes is another stream, and for that one
        self._waiting: deque[Frame | VideoDecoder | None] = deque()
        self._done: deque[Decoded] = deque()
        self._ended = False
        # Of the decoding thread alone.
        self._inside: dict[int, Frame] = {}  # that the decoder has been fed, by ticks, in that order
        self._spoilt: bool | None = None  # by a loss; None before the first picture that needs no other
        self._since = 0  # the place in the order of the newest loss
        self._fed = 0
        self._whole_at: int | None = None  # the place from which on pictures are whole again, without a key frame
        self._places: dict[int, int] = {}  # of those inside
        self._out = NONE_OUT  # the ticks of the newest that has come out
        self._failed = 0  # in a row
        self._corrupt = 0  # of which nothing was lost
        self._told = self._told_unkeyed = False

    # ---- from the client's thread

    def put(self, frame: Frame) -> None:
        """See `Decoder`."""
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                self._done += [Decoded(each, None, "skipped") for each in self._waiting if isinstance(each, Frame)]
                left = [each for each in self._waiting if not isinstance(each, Frame)]
                self._waiting.clear()
                self._waiting += left
                frame = replace(frame, after_loss=True)
            self._waiting.append(frame)
            self._changed.notify()

    def renew(self, coding: str, *, setup: bytes = b"") -> None:
        """What is `put` from here on is of another stream, and needs nothing that came before.

        ValueError, in a sentence, where this PyAV has no such decoder.
        """
        decoder = VideoDecoder(coding, setup=setup)
        with self._changed:
            self._waiting += (None, decoder)
            self._changed.notify()

    def end(self) -> None:
        """See `Decoder`."""
        with self._changed:
            self._waiting.append(None)
            self._changed.notify()

    def done(self) -> list[Decoded]:
        """See `Decoder`."""
        with self._changed:
            out = list(self._done)
            self._done.clear()
        return out

    # ---- the decoding thread

    def run(self, worker: Worker) -> None:
        """The thread's body."""
        while not worker.stopping.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if self._ended:
                    return
                frame = self._waiting.popleft()
            if isinstance(frame, VideoDecoder):
                self._begin(frame)
                continue
            decoded = self._drained() if frame is None else self._fed_with(frame)
            with self._changed:
                self._done += decoded
            if decoded:
                self._ready()

    def wake(self) -> None:
        """Let the thread look up, when it is to stop."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _begin(self, decoder: VideoDecoder) -> None:
        self._decoder, self._called = decoder, CALLED[decoder.coding]
        self._spoilt, self._since, self._fed, self._out = None, 0, 0, NONE_OUT
        self._whole_at = None
        self._failed, self._told = 0, False

    def _fed_with(self, frame: Frame) -> list[Decoded]:
        if frame.data is None:
            return [Decoded(frame, None)]
        self._fed += 1
        if frame.after_loss:
            self._lose()
        if self._spoilt is None and self._fed >= UNKEYED and not self._told_unkeyed:
            self._told_unkeyed = True
            self._notice(
                "no key frame",
                f"{UNKEYED} pictures of {self._called} have come, and none that needs no other: there is nothing to "
                "show before one. Have the server send key frames every few seconds",
            )
        if self._spoilt is not False and self._whole_at is None:
            count = _RECOVERS[frame.coding](frame.data) if frame.coding in _RECOVERS else None
            self._whole_at = None if count is None else self._fed + count
        self._inside[frame.ticks] = frame
        self._places[frame.ticks] = self._fed
        try:
            out = [self._seen(seen) for seen in self._decoder.decode(frame.data, frame.ticks)]
        except DecodeError as error:
            self._lose()
            self._fail(frame, str(error))
            out = [self._given_up(frame)]
        for overdue in self._overdue():
            self._fail(overdue, "")
            out.append(self._given_up(overdue))
        return [each for each in out if each is not None]

    def _overdue(self) -> list[Frame]:
        """The pictures inside that will not come out any more: the decoder gives them in the order in which they are
        seen, and holds one back for no more than so many that are seen after it. Pictures before a key frame that are
        predicted from what came before it are passed over without a word, and hold up nothing.
        """
        held = min(MOST_REORDERED, self._decoder.reorders)
        inside = list(self._inside.values())
        overdue = []
        for at, frame in enumerate(inside):
            later = sum(each.ticks > frame.ticks for each in inside[at + 1 :])
            if later >= held or frame.ticks < self._out or len(inside) - at > MOST_REORDERED:
                overdue.append(frame)
        return overdue

    def _drained(self) -> list[Decoded]:
        out = [self._seen(seen) for seen in self._decoder.drain()]
        out += [self._given_up(frame) for frame in list(self._inside.values())]
        return [each for each in out if each is not None]

    def _lose(self) -> None:
        self._since, self._whole_at = self._fed, None
        if self._spoilt is False:
            self._spoilt = True

    def _given_up(self, frame: Frame) -> Decoded | None:
        self._places.pop(frame.ticks, None)
        return None if self._inside.pop(frame.ticks, None) is None else Decoded(frame, None)

    def _seen(self, seen: DecodedPicture) -> Decoded | None:
        frame, place = self._inside.pop(seen.stamp, None), self._places.pop(seen.stamp, 0)
        self._out = seen.stamp
        if frame is None:
            return None
        recovered = self._whole_at is not None and place >= self._whole_at and not seen.corrupt
        if place >= self._since and (seen.key or recovered):
            self._spoilt, self._whole_at = False, None
        if self._spoilt is None:
            return Decoded(frame, None)
        if seen.corrupt and not self._spoilt:
            self._spoilt, self._since = True, place
            self._tell_corrupt()
        self._failed = 0
        if self._spoilt and place >= self._since:
            if self._damaged == "freeze":
                return Decoded(frame, None)
            frame = replace(frame, damaged=True)
        return Decoded(frame, seen.image)

    def _tell_corrupt(self) -> None:
        self._corrupt += 1
        if self._corrupt == CORRUPT:
            self._notice(
                "damaged pictures",
                f"pictures of {self._called} come damaged, though no packet of them is missing: see whether the server "
                "cuts them, or what is between changes them",
            )

    def _fail(self, frame: Frame, words: str) -> None:
        """Nothing came of a picture; `words` is why, as far as it is known."""
        self._failed += frame.key
        if self._failed >= FAILURES and not self._told:
            self._told = True
            why = f": {words}" if words else ""
            self._notice(
                "pictures not decoded",
                f"pictures come as {self._called} and cannot be decoded{why}. See whether the server sends what it "
                "describes, and pictures of 4096x2304 at the most",
            )
