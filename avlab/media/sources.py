"""Where pictures and sound come from: a clip, a camera or microphone, anyone's iterable. All give the same two values.

Reads files with PyAV; `camera` and `microphone` have the devices. Each iterator opens what it reads for itself, so
pictures and sound may be read on two threads.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import count
from numbers import Real
from typing import Any, TypeVar

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from avlab.media.camera import CameraSource
from avlab.media.codec import Matrix, Picture, check_fps, display_matrix
from avlab.media.microphone import Microphone, MicrophoneSource
from avlab.media.packets import (
    Join,
    MediaError,
    open_clip,
    packets,
    picture_stream,
    picture_ticks,
    played,
    rounded,
    sound_stream,
    survey,
)
from avlab.wire.units import NS, Chunk, Samples

F = TypeVar("F", VideoFrame, AudioFrame)

CHUNK_NS = 40_000_000
"""Every chunk lasts 40 ms, which is 25 turns a second at each end: its packets are shorter, as each fits its size."""

SENT_RATES = (44_100, 48_000)
"""Rates of sound that are sent as they are; every other is resampled to 44,100 sample frames a second."""

UNDECODED = (
    "The {what} of {path!r} ({codec}) cannot be decoded here: only the {rest} will be streamed; convert the file with "
    "ffmpeg to have both."
)

HDR = (
    "{path!r} is HDR ({kind}), and its pictures are sent without tone mapping: their colours look pale, or too bright "
    "or dark; convert it to BT.709 first to have them right."
)

_HDR = {16: "PQ", 18: "HLG"}  # FFmpeg's AVCOL_TRC_SMPTE2084 and AVCOL_TRC_ARIB_STD_B67
_SLACK_NS = 10_000_000  # containers round a block's time (Matroska to 1 ms): only what is further off is a gap
_SHORT_NS = 250_000_000  # a header's duration may be off by a frame or a block of sound; more than this is missing
_LARGE = 1280 * 720  # pixels that one core decodes well in time: 5 ms each at this size
_HEADED = {"mov", "mp4", "matroska", "webm"}  # their headers state a duration, which elsewhere FFmpeg may guess


_BYTES = np.dtype(np.uint8)


class ClipSource:
    """A clip file. Pictures and sound share one origin: whichever starts first is at pts 0.

    `width` and `height` (upright, pixels) and `fps` (nominal) are None without pictures; `rate` (44100 or 48000) and
    `channels` (1 or 2), both as sent, are None without sound. `duration_ns` is one pass: the longer of both tracks,
    the last picture's own time included; with `loop`, every pass is exactly that long for both.

    `notices` are sentences that a person should know: sound or pictures that are there and do not decode, colours that
    are sent as they are.

    Raises FileNotFoundError when there is no such file, MediaError (a ValueError) when it is not a clip. A file that
    is damaged or cut short gives all that decodes; then its iterators raise MediaError.
    """

    live = False

    def __init__(self, path: str | os.PathLike[str], *, loop: bool = False) -> None:
        self.path, self.loop = os.fspath(path), loop
        self.width: int | None = None
        self.height: int | None = None
        self.fps: Fraction | None = None
        self.rate: int | None = None
        self.channels: int | None = None
        self._matrix: Matrix | None = None
        self._stamped = False
        self.notices: tuple[str, ...] = ()
        starts: list[int] = []
        with open_clip(path) as container:
            video = picture_stream(container)
            picture = next(_decoded_pictures(container, video, []), None)
            if video and picture is not None:
                self._matrix = display_matrix(picture)
                across, down = max(1, round(picture.width * _aspect(video))), picture.height
                self.width, self.height = (down, across) if self._matrix and not self._matrix[0] else (across, down)
                self.fps = video.guessed_rate or video.average_rate or Fraction(25)
                starts.append(_ns(picture, picture.pts) or 0)
                self._stamped = picture.pts is not None or picture.dts is not None
                if picture.color_trc in _HDR:
                    self._note(HDR.format(path=self.path, kind=_HDR[picture.color_trc]))
            elif video:
                self._note(
                    UNDECODED.format(what="pictures", path=self.path, codec=video.codec_context.name, rest="sound")
                )
        with open_clip(path) as container:
            track = sound_stream(container)
            sound = next(self._audible(container, track), None)
            if sound is None and container.streams.audio and starts:
                codec = track.codec_context.name if track else "a codec that FFmpeg has no decoder for"
                self._note(UNDECODED.format(what="sound", path=self.path, codec=codec, rest="pictures"))
            if sound is not None:
                self.rate = sound.sample_rate if sound.sample_rate in SENT_RATES else SENT_RATES[0]
                self.channels = min(2, sound.layout.nb_channels)
                starts.append(_ns(sound, sound.pts) or 0)
        if not starts:
            raise MediaError(self._why_nothing())
        self._origin_ns = min(starts)
        self._joins: tuple[Join, ...] = ()
        self._claimed_ns, self.duration_ns = self._measure()

    def _note(self, words: str) -> None:
        self.notices = (*self.notices, words)

    @staticmethod
    def _audible(container: InputContainer, track: AudioStream | None) -> Iterator[AudioFrame]:
        """The frames of sound that can be decoded, and made into samples."""
        for frame in _decoded_sound(container, track, []):
            with suppress(av.error.FFmpegError, ValueError):
                AudioResampler("s16", "stereo", SENT_RATES[0]).resample(frame)
                yield frame

    @property
    def has_video(self) -> bool:
        """Whether there are pictures."""
        return self.width is not None

    @property
    def has_audio(self) -> bool:
        """Whether there is sound."""
        return self.rate is not None

    def pictures(self, leap: Callable[[], int | None] | None = None) -> Iterator[Picture]:
        """The pictures in order of showing, endless with `loop`; none when the clip has none.

        `leap` is asked before each is read. From the pts that it names, in ns, reading goes on with the first picture
        that decoding can begin with, unread what lies between; `index` counts on at the nominal rate. With None, and
        where there is no such picture or the file has no way to it, reading goes on where it was.
        """
        index, last_ns = -1, 0
        pending_ns: int | None = None  # until there is a picture

        def target() -> int | None:
            nonlocal pending_ns
            pending_ns = (leap() if leap else None) or pending_ns
            return pending_ns

        for turn in self._turns(self.has_video):
            start_ns = turn * self.duration_ns
            for pts_ns, frame in self._pass_of_pictures(start_ns, target):
                unread = round((start_ns + pts_ns - last_ns) * (self.fps or 25) / NS) - 1
                index += 1 + (max(0, unread) if pending_ns is not None else 0)
                last_ns, pending_ns = start_ns + pts_ns, None
                yield Picture(index, last_ns, frame, self._matrix)

    def chunks(self) -> Iterator[Chunk]:
        """The sound as int16 chunks of exactly 40 ms; holes in it are silent, and so is what the last chunk lacks."""
        if self.rate is None or self.channels is None:
            return
        size = self.rate * CHUNK_NS // NS
        for index, samples in enumerate(_cut(self._line_of_sound(self.rate, self.channels), size, self.channels)):
            yield Chunk(index, index * CHUNK_NS, samples, self.rate)

    def timestamps_ns(self) -> list[int]:
        """The pts of one pass of pictures, rising, from the packets alone: nothing is decoded."""
        with open_clip(self.path) as container:
            video = picture_stream(container)
            base = (video.time_base if video else None) or Fraction(1)
            stamps = (round(tick * base * NS) - self._origin_ns for tick in picture_ticks(container, self._joins))
            return sorted({stamp for stamp in stamps if 0 <= stamp < self.duration_ns})

    def close(self) -> None:
        """Nothing is held open between iterators; each closes its file when it ends or is closed."""

    def _turns(self, present: bool) -> Iterable[int]:
        if not present:
            return ()
        return count() if self.loop else (0,)

    def _pass_of_pictures(self, start_ns: int, leap: Callable[[], int | None]) -> Iterator[tuple[int, VideoFrame]]:
        """Each picture with its pts within this pass, which begins at `start_ns`."""
        faults: list[str] = []
        last, number, ordered = -1, 0, True
        from_ns, leaps = 0, self._stamped and not self._joins  # behind a join, the file's timestamps say nothing
        target_ns = leap() if leaps else None
        if target_ns is not None and self.loop and target_ns >= start_ns + self.duration_ns:
            return
        with open_clip(self.path) as container:
            video = picture_stream(container)
            aspect, scaler = _aspect(video), VideoReformatter()
            # Threads a frame each cost a fifth more CPU and delay the first picture: only big ones need them.
            if video and video.width * video.height > _LARGE:
                video.thread_type = "AUTO"
            frames = _decoded_pictures(container, video, faults, self._joins)
            while True:
                if video and target_ns is not None and target_ns > start_ns + max(last, 0):
                    leaps = _sought(container, video, target_ns - start_ns + self._origin_ns)
                    if not leaps and self.loop:
                        return  # the next picture that decoding can begin with is the first
                    from_ns = target_ns - start_ns if leaps else last + 1
                    if not leaps:  # an attempt that fails has lost its place, too
                        _sought(container, video, max(last, 0) + self._origin_ns, backward=True)
                target_ns = None
                frame = next(frames, None)
                if frame is None:
                    break
                stamp = _ns(frame, frame.pts if ordered else frame.dts)
                if from_ns and stamp is not None and stamp - self._origin_ns < from_ns:
                    continue  # a container that leads to a place before it, or what the decoder still had
                # AVI has no pts, and those made up for B-frames step back; in order of showing, dts is as good.
                ordered = ordered and ((_ns(frame, frame.pts) or 0) - self._origin_ns > last or frame.pts is None)
                stamp = _ns(frame, frame.pts if ordered else frame.dts)
                # A raw stream carries no timestamps: then the nominal rate is all there is.
                pts_ns = round(number * NS / (self.fps or 25)) if stamp is None else stamp - self._origin_ns
                number += 1
                if last < pts_ns < self.duration_ns:
                    if aspect != 1:
                        frame = scaler.reformat(frame, max(1, round(frame.width * aspect)), threads=1)
                    yield pts_ns, frame
                    last, from_ns = pts_ns, 0
                    target_ns = leap() if leaps else None
                    if target_ns is not None and self.loop and target_ns >= start_ns + self.duration_ns:
                        return
        self._complain(faults, "pictures")

    def _pass_of_sound(self, rate: int, channels: int) -> Iterator[tuple[int | None, Samples]]:
        faults: list[str] = []
        layout = "mono" if channels == 1 else "stereo"
        resampler, shape = AudioResampler("s16", layout, rate), None
        with open_clip(self.path) as container:
            for frame in _decoded_sound(container, sound_stream(container), faults, self._joins):
                # Broadcasts change from stereo to 5.1 on the way, which a resampler in use does not take.
                if shape not in (None, found := (frame.format.name, frame.layout.name, frame.sample_rate)):
                    resampler = AudioResampler("s16", layout, rate)
                shape = found
                try:
                    parts = resampler.resample(frame)
                except (av.error.FFmpegError, ValueError):  # sound of a kind that FFmpeg cannot convert
                    faults.append("")
                    continue
                for part in parts:
                    yield self._sound(part, channels)
            for part in resampler.resample(None) if shape else ():
                yield self._sound(part, channels)
        self._complain(faults, "sound")

    def _sound(self, frame: AudioFrame, channels: int) -> tuple[int | None, Samples]:
        stamp = _ns(frame, frame.pts)
        samples: Samples = np.asarray(frame.to_ndarray(), np.int16).reshape(-1, channels)
        return None if stamp is None else stamp - self._origin_ns, samples

    def _line_of_sound(self, rate: int, channels: int) -> Iterator[Samples]:
        """Every pass laid on one line of samples: holes filled, overlaps trimmed, each pass as long as the period."""
        silence = np.zeros((rate // 50, channels), np.int16)
        done = 0  # sample frames given so far
        for turn in self._turns(self.has_audio):
            start, end = _sample(turn * self.duration_ns, rate), _sample((turn + 1) * self.duration_ns, rate)
            slack = 0  # the first block of a pass lies where its timestamp says, to the sample
            for pts_ns, block in self._pass_of_sound(rate, channels):
                due = done if pts_ns is None else min(start + _sample(pts_ns, rate), end)
                if abs(due - done) > slack:
                    while done < due:
                        yield silence[: due - done]
                        done += min(due - done, len(silence))
                    block = block[done - due :]
                block = block[: end - done]
                yield block
                done += len(block)
                slack = _sample(_SLACK_NS, rate)
            while self.loop and done < end:
                yield silence[: end - done]
                done += min(end - done, len(silence))

    def _measure(self) -> tuple[int, int]:
        """How long the header says that the clip is (0 when nothing does), and how long it is by its packets."""
        with open_clip(self.path) as container:
            claimed = _claimed_end(container)
            end = Fraction(0)
            if claimed > 60:  # the end can be looked up: a film of gigabytes need not be read through
                with suppress(av.error.FFmpegError):
                    container.seek(round((claimed - 10) * av.time_base))
                    end = self._last_end(container, played(container))
        if not end:
            with open_clip(self.path) as container:
                end = self._last_end(container, played(container))
        claimed_ns = round(claimed * NS) - self._origin_ns if claimed else 0
        return claimed_ns, max(1, round(end * NS) - self._origin_ns)

    def _last_end(self, container: InputContainer, streams: Sequence[VideoStream | AudioStream]) -> Fraction:
        """When the last packet ends, in seconds on the file's clock; joins found on the way are kept."""
        found = survey(container, streams, 1 / (self.fps or Fraction(25)))
        self._joins = found.joins
        return found.end

    def _why_nothing(self) -> str:
        with open_clip(self.path) as container:
            if any(packet.size for packet in packets(container, *played(container))):
                return f"Nothing in {self.path!r} could be decoded; convert it with ffmpeg, to MP4 for instance."
        return (
            f"{self.path!r} holds not one frame: its recording was broken off or the end of the file is missing; "
            "copy or download it again, or record it anew."
        )

    def _complain(self, faults: Sequence[str], what: str) -> None:
        """At the end of a pass: say what was missing."""
        if self.duration_ns < self._claimed_ns - _SHORT_NS:
            raise MediaError(
                f"{self.path!r} stops after {self.duration_ns / NS:.1f} s of {self._claimed_ns / NS:.1f} s: "
                "the rest of the file is missing; copy or download it again."
            )
        if faults:
            raise MediaError(
                f"{self.path!r} is damaged: {len(faults)} packet{'s' * (len(faults) > 1)} of its {what} could not be "
                f"decoded{faults[0]}; copy or download it again."
            )


class ArraySource:
    """Pictures from anyone's iterable: BGR uint8 arrays of shape (height, width, 3), or pairs of (seconds, array).

    Plain arrays are shown at `fps` frames a second; pairs when they say, counted from the first. There is no sound.
    `width` and `height` are None until the first picture is known. `loop` needs an iterable that can be read again.

    Raises TypeError or ValueError, when the picture comes, if it is not such an array or its time does not rise.
    """

    live = False
    has_video = True
    has_audio = False
    rate: int | None = None
    channels: int | None = None
    duration_ns: int | None = None

    def __init__(self, frames: Iterable[Any], *, fps: float = 30.0, loop: bool = False) -> None:
        check_fps(fps)
        if loop and iter(frames) is frames:
            raise ValueError("loop=True needs frames that can be read again, such as a list; a generator runs out.")
        self._frames, self.loop = frames, loop
        self.fps: Fraction | None = Fraction(fps).limit_denominator(1001)
        self.width: int | None = None
        self.height: int | None = None
        if isinstance(frames, Sequence | np.ndarray):
            if not len(frames):
                raise ValueError("There are no pictures to stream: the sequence is empty.")
            self._read(frames[0], 0)

    def pictures(self) -> Iterator[Picture]:
        """The pictures; with `loop` endlessly, the last of a pass shown as long as the one before it."""
        rate = self.fps or Fraction(30)
        ticks, per = NS * rate.denominator, rate.numerator  # a fraction's own arithmetic takes ten times as long
        index, start_ns, gap_ns = 0, 0, rounded(ticks, per)
        while True:
            first, last_ns = None, -1
            for number, item in enumerate(self._frames):
                seconds, image = self._read(item, index)
                first = seconds if first is None else first
                pts_ns = rounded(number * ticks, per) if seconds is None else round((seconds - (first or 0.0)) * NS)
                if pts_ns <= last_ns:
                    raise ValueError(f"Frame {index} is at {seconds} s, not after the one before; times must rise.")
                gap_ns = pts_ns - last_ns if number else gap_ns
                last_ns = pts_ns
                yield Picture(index, start_ns + pts_ns, image)
                index += 1
            if not self.loop or last_ns < 0:
                return
            start_ns += last_ns + gap_ns

    def chunks(self) -> Iterator[Chunk]:
        """Nothing: there is no sound."""
        return iter(())

    def close(self) -> None:
        """Nothing to free: the frames are the caller's."""

    def _read(self, item: Any, index: int) -> tuple[float | None, NDArray[np.uint8]]:
        if type(item) is np.ndarray and item.dtype is _BYTES and item.ndim == 3 and item.shape[2] == 3 and item.size:
            self.height, self.width = item.shape[:2]  # as nearly all are: the rest is for those that are not
            return None, item
        seconds = None
        if isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], Real):
            seconds, item = float(item[0]), item[1]
            if not math.isfinite(seconds):
                raise ValueError(f"Frame {index} is at {seconds} s; its time must be a finite number of seconds.")
        wanted = "a frame is a BGR uint8 array of shape (height, width, 3), or a pair of (seconds, such an array)"
        if not isinstance(item, np.ndarray):
            raise TypeError(f"Frame {index} is of type {type(item).__name__}; {wanted}.")
        if item.dtype != np.uint8:
            raise ValueError(f"Frame {index} has dtype {item.dtype}; {wanted}; scale to 0..255, then .astype('uint8').")
        if item.ndim != 3 or item.shape[2] != 3 or 0 in item.shape:
            hint = "; cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) makes one of a grey picture" if item.ndim == 2 else ""
            raise ValueError(f"Frame {index} has shape {item.shape}; {wanted}{hint}.")
        self.height, self.width = item.shape[:2]
        return seconds, item


LiveSource = CameraSource | MicrophoneSource
"""What nobody can wait for: it is told by `begin` when it is listened to, and is not opened before."""

Source = ClipSource | ArraySource | LiveSource
"""What a server streams from. The iterators may run on two threads; closing one frees what it holds."""


def open_source(
    what: Any = None, *, loop: bool = False, fps: float | None = None, microphone: Microphone = False
) -> Source:
    """A path gives a `ClipSource`, a number a `CameraSource`, an iterable an `ArraySource`, anything else a TypeError.

    `fps` is how fast arrays are shown (30 by default) or what is asked of a camera. `microphone` (True, a device's
    number or a part of its name) goes with a camera; with None, it is all there is.
    """
    # A number may be 0, a microphone as good as any other: only False is none.
    if microphone is not False:
        return _open_live(what, loop=loop, fps=fps, microphone=microphone)
    if isinstance(what, str | os.PathLike):
        if fps is not None:
            raise ValueError("fps belongs to arrays only; a clip's pictures are shown when its timestamps say.")
        return ClipSource(what, loop=loop)
    if isinstance(what, int | np.integer) and not isinstance(what, bool):
        if loop:
            raise ValueError("loop=True needs a clip or frames that can be read again; a camera has no end.")
        return CameraSource(int(what), fps=fps)
    if isinstance(what, Iterable) and not isinstance(what, bytes | bytearray | memoryview):
        return ArraySource(what, loop=loop, fps=30.0 if fps is None else fps)
    raise TypeError(
        f"A source is the path of a clip, or an iterable of BGR arrays or of (seconds, array), or a camera's number, "
        f"or microphone=True, not {what!r:.60} of type {type(what).__name__}."
    )


def _open_live(what: Any, *, loop: bool, fps: float | None, microphone: Microphone) -> LiveSource:
    if not isinstance(microphone, bool | int | np.integer | str):
        raise TypeError(f"microphone is True, a device's number or a part of its name, not {microphone!r:.60}.")
    device = microphone if isinstance(microphone, bool | str) else int(microphone)
    if what is None:
        if loop or fps is not None:
            raise ValueError("loop and fps belong to pictures; a microphone by itself has neither end nor frames.")
        return MicrophoneSource(device)
    camera = open_source(what, loop=loop, fps=fps) if isinstance(what, int | np.integer) else None
    if not isinstance(camera, CameraSource):
        raise ValueError(
            "A microphone goes with a camera, as in Server(0, microphone=True), or stands alone, as in "
            "Server(microphone=True); clips have sound of their own, and arrays have none."
        )
    return CameraSource(camera.index, fps=fps, microphone=MicrophoneSource(device))


def _claimed_end(container: InputContainer) -> Fraction:
    """When pictures and sound end by the file's header, in seconds on its own clock; 0 when it does not say."""
    if _HEADED.isdisjoint(container.format.name.split(",")):
        return Fraction(0)
    whole = Fraction(container.duration or 0, av.time_base)
    ends = []
    for stream in played(container):
        # Matroska's header knows one duration, subtitles included; those who write it tag each stream with its own end.
        if tag := re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", "")):
            hours, minutes, seconds = map(Fraction, tag.groups())
            ends.append(min(whole, 3600 * hours + 60 * minutes + seconds))
        elif stream.duration is not None and stream.time_base:
            ends.append((stream.duration + (stream.start_time or 0)) * stream.time_base)
    return max(ends, default=whole)


def _decoded_pictures(
    container: InputContainer, stream: VideoStream | None, faults: list[str], joins: Sequence[Join] = ()
) -> Iterator[VideoFrame]:
    """The pictures that can be decoded, in order of showing; what cannot is noted in `faults`."""
    return iter(()) if stream is None else _decoded(stream.decode, packets(container, stream, joins=joins), faults)


def _decoded_sound(
    container: InputContainer, stream: AudioStream | None, faults: list[str], joins: Sequence[Join] = ()
) -> Iterator[AudioFrame]:
    """The sound that can be decoded, in order; what cannot is noted in `faults`."""
    return iter(()) if stream is None else _decoded(stream.decode, packets(container, stream, joins=joins), faults)


def _decoded(decode: Callable[[Packet[Any]], list[F]], parts: Iterable[Packet[Any]], faults: list[str]) -> Iterator[F]:
    for packet in parts:
        try:
            yield from decode(packet)
        except av.error.FFmpegError:
            where = "" if packet.pts is None else f", the first at {float(packet.pts * packet.time_base):.1f} s"
            faults.append(where)


def _sought(container: InputContainer, video: VideoStream, from_ns: int, *, backward: bool = False) -> bool:
    """Go on with the first picture from then on (or the last before), in ns on the file's clock, that needs no other.

    False when there is none.
    """
    if not video.time_base:
        return False
    try:
        container.seek(math.ceil(from_ns / NS / video.time_base), backward=backward, stream=video)
    except av.error.FFmpegError:
        return False
    return True


def _aspect(stream: VideoStream | None) -> Fraction:
    """How much wider than high a pixel is: 1, but for DV, DVDs and HDV."""
    aspect = (stream and stream.sample_aspect_ratio) or Fraction(1)
    # Some files state nonsense; and what is off by a pixel or two was meant to be square.
    return Fraction(1) if not Fraction(1, 4) <= aspect <= 4 or abs(aspect - 1) < Fraction(1, 50) else aspect


def _ns(frame: VideoFrame | AudioFrame, stamp: int | None) -> int | None:
    return None if stamp is None or not frame.time_base else round(stamp * frame.time_base * NS)


def _sample(time_ns: int, rate: int) -> int:
    return (time_ns * rate + NS // 2) // NS


def _cut(runs: Iterable[Samples], size: int, channels: int) -> Iterator[Samples]:
    """The same samples in blocks of `size`, the last one filled up with silence."""
    held = np.empty((0, channels), np.int16)
    for run in runs:
        held = np.concatenate((held, run)) if len(held) else run
        while len(held) >= size:
            yield np.ascontiguousarray(held[:size])
            held = held[size:]
    if len(held):
        yield np.concatenate((held, np.zeros((size - len(held), channels), np.int16)))
