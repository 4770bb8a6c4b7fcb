"""Says what a clip claims and what its timestamps say, side by side, because they disagree and that is the lesson.

Reads files with PyAV and cv2; every other room that opens a clip does so through `open_clip` here.
"""

from __future__ import annotations

import html
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from avlab.wire.units import NS


class MediaError(ValueError):
    """A file is not a clip, or stops being one on the way. The message is a sentence."""


def open_clip(path: str | os.PathLike[str]) -> InputContainer:
    """Open a file that has pictures or sound, for reading; close it after use.

    Raises FileNotFoundError when there is no such file, MediaError (a ValueError) when it cannot be played.
    """
    name = os.fspath(path)
    if not Path(name).exists():
        raise FileNotFoundError(f"There is no file {name!r}; check the name and the folder ({Path.cwd()}).")
    advice = "give a video or sound file that FFmpeg reads, such as MP4, MKV, WebM, MOV or WAV"
    if Path(name).is_dir():
        raise MediaError(f"{name!r} is a folder; {advice}.")
    nothing = f"{name!r} is not a clip (neither pictures nor sound could be found in it); {advice}."
    try:
        # "file:" keeps FFmpeg from taking a name with a colon for a network address.
        container = av.open("file:" + name, metadata_errors="replace")
    except PermissionError:
        raise PermissionError(f"The file {name!r} may not be read; change its permissions.") from None
    except (av.error.FFmpegError, ValueError, OSError):
        raise MediaError(_unfinished(name) or nothing) from None
    # FFmpeg draws text files as pictures of a terminal ("tty"): nobody who streams one means that.
    if container.format.name == "tty" or (picture_stream(container) is None and sound_stream(container) is None):
        container.close()
        raise MediaError(_unfinished(name) or nothing)
    return container


def _unfinished(name: str) -> str | None:
    """A sentence when the file is an MP4 or MOV without its index, the box "moov" (ISO 14496-12, section 4.2)."""
    size, at = Path(name).stat().st_size, 0
    kinds: list[bytes] = []
    with suppress(OSError), Path(name).open("rb") as file:
        while at + 8 <= size and len(kinds) < 100:
            file.seek(at)
            length, kind, large = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
            length = large if length == 1 else length or size - at  # 1: 64 bits follow; 0: to the end
            if length < 8:
                break
            at += length
            kinds.append(kind if at <= size else b"")
    if kinds[:1] != [b"ftyp"] or b"moov" in kinds:
        return None
    return (
        f"{name!r} is not a clip that can be played: an MP4 without its index (moov). Its recording was broken off, or "
        "a part of the file is missing; copy or download it again, or record it anew."
    )


def picture_stream(container: InputContainer) -> VideoStream | None:
    """The first video stream that is one: covers of albums are video streams of one picture, and are passed over."""
    covers = Disposition.attached_pic
    return next((v for v in container.streams.video if not v.disposition & covers and v.codec_context), None)


def sound_stream(container: InputContainer) -> AudioStream | None:
    """The first audio stream that FFmpeg can decode."""
    return next((a for a in container.streams.audio if a.codec_context), None)


def played(container: InputContainer) -> list[VideoStream | AudioStream]:
    """The one or two streams that are played."""
    return [s for s in (picture_stream(container), sound_stream(container)) if s is not None]


@dataclass(frozen=True, slots=True)
class Claims:
    """What the container says, read through PyAV. Rates in frames a second, sizes in pixels before rotation.

    `fps` is FFmpeg's r_frame_rate, a guess: the lowest rate on whose grid every timestamp lies. `average_fps` is frames
    by duration. What a file does not have or does not say is None.
    """

    video_codec: str | None
    width: int | None
    height: int | None
    rotation: int | None
    fps: Fraction | None
    average_fps: Fraction | None
    frames: int | None
    seconds: float | None
    audio_codec: str | None
    audio_rate: int | None
    channels: int | None
    container: str


@dataclass(frozen=True, slots=True)
class Measured:
    """What the timestamps of the pictures say. Gaps are in milliseconds, from one picture shown to the next.

    `fps` is pictures less one by the time from first to last; `variable` when gaps differ by more than the
    container's own rounding explains; `first_pts` in seconds. `joins` counts the places where timestamps start
    anew, as they do in recordings that were joined; from there on they are taken to go on.
    """

    frames: int
    fps: float | None
    smallest_gap_ms: float | None
    largest_gap_ms: float | None
    variable: bool
    first_pts: float | None
    joins: int = 0


@dataclass(frozen=True, slots=True)
class OpenCV:
    """What cv2.VideoCapture answers for the same file; None when it cannot open it."""

    fps: float | None
    frames: int | None
    width: int | None
    height: int | None


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """One clip, three witnesses. Displays itself as a table; `to_dict` gives plain values for JSON."""

    path: str
    claims: Claims
    measured: Measured
    opencv: OpenCV

    def to_dict(self) -> dict[str, Any]:
        """Plain values; rates as floats."""
        found = asdict(self)
        for key in ("fps", "average_fps"):
            found["claims"][key] = None if (rate := found["claims"][key]) is None else float(rate)
        return found

    def rows(self) -> list[tuple[str, str, str, str]]:
        """The table: (what, container through PyAV, cv2, timestamps), as text; what a witness does not say is empty."""
        c, m, o = self.claims, self.measured, self.opencv
        rows = [
            ("nominal fps", _rate(c.fps), _rate(o.fps), ""),
            ("average fps", _rate(c.average_fps), "", _rate(m.fps)),
            ("frames", _text(c.frames), _text(o.frames), _text(m.frames if c.video_codec else None)),
            ("smallest gap, ms", "", "", _text(m.smallest_gap_ms, ".2f")),
            ("largest gap, ms", "", "", _text(m.largest_gap_ms, ".2f")),
            ("variable rate", "", "", ("yes" if m.variable else "no") if m.fps else ""),
            ("first picture, s", "", "", _text(m.first_pts, ".3f")),
            ("start anew", "", "", _text(m.joins or None)),
            ("width x height", _size(c.width, c.height), _size(o.width, o.height), ""),
            ("rotation, degrees", _text(c.rotation), "", ""),
            ("duration, s", _text(c.seconds, ".3f"), "", ""),
            ("video codec", c.video_codec or "none", "", ""),
            ("audio codec", c.audio_codec or "none", "", ""),
            ("audio rate, Hz", _text(c.audio_rate), "", ""),
            ("audio channels", _text(c.channels), "", ""),
        ]
        return [row for row in rows if any(row[1:])]

    def disagreements(self) -> str:
        """One line that says where the witnesses differ, or that they agree."""
        c, m, o = self.claims, self.measured, self.opencv
        if c.video_codec is None:
            return "There are no pictures in it, only sound."
        found = []
        rates = {"nominal": c.fps, "average": c.average_fps, "cv2": o.fps, "timestamps": m.fps}
        said = {who: float(rate) for who, rate in rates.items() if rate}
        if said and max(said.values()) - min(said.values()) > 0.001 * min(said.values()):
            found.append("fps (" + ", ".join(f"{who} {rate:.6g}" for who, rate in said.items()) + ")")
        counts = {"container": c.frames, "cv2": o.frames, "timestamps": m.frames}
        counted = {who: n for who, n in counts.items() if n is not None}
        if len(set(counted.values())) > 1:
            found.append("frames (" + ", ".join(f"{who} {n}" for who, n in counted.items()) + ")")
        if c.rotation and o.width and (o.width, o.height) != (c.width, c.height):
            found.append("size (cv2 turns the picture upright)")
        if m.first_pts is None:
            found.append("when its pictures are shown (they carry no timestamps)")
        joined = f" Its timestamps start anew ({m.joins} x), as where recordings were joined." if m.joins else ""
        variable = " The rate is variable: no one number is its fps." if m.variable else ""
        return ("They disagree on " + " and on ".join(found) + "." if found else "They agree.") + joined + variable

    def __str__(self) -> str:
        table = [_HEAD, *self.rows()]
        wide = [max(len(row[i]) for row in table) for i in range(4)]
        lines = [
            "  ".join([row[0].ljust(wide[0]), *(row[i].rjust(wide[i]) for i in (1, 2, 3))]).rstrip() for row in table
        ]
        lines.insert(1, "-" * (sum(wide) + 6))
        return "\n".join([self.path, "", *lines, "", self.disagreements()])

    def _repr_html_(self) -> str:
        def cells(row: tuple[str, ...], tag: str) -> str:
            style = ("text-align:left", *["text-align:right"] * 3)
            return "".join(f'<{tag} style="{s}">{html.escape(c)}</{tag}>' for s, c in zip(style, row, strict=True))

        body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in self.rows())
        head = f"<thead><tr>{cells(_HEAD, 'th')}</tr></thead>"
        caption = f'<caption style="text-align:left"><b>{html.escape(self.path)}</b></caption>'
        return f"<table>{caption}{head}<tbody>{body}</tbody></table><p>{html.escape(self.disagreements())}</p>"


_BACK_NS = NS // 2  # timestamps that step back by more than this have started anew,
_AHEAD_NS = 60 * NS  # and so have those which leap ahead of both streams by more than this

_HEAD = ("", "container (PyAV)", "cv2", "timestamps")


def probe(path: str | os.PathLike[str]) -> ClipInfo:
    """What a clip says of itself, what cv2 makes of it, and what its timestamps say; nothing is decoded.

    Raises FileNotFoundError for a missing file and MediaError (a ValueError) for one that is not a clip.
    """
    claims = _claims(path)
    with open_clip(path) as container:
        joins = survey(container, played(container), Fraction(1, 25)).joins if _by_position(container) else ()
    with open_clip(path) as container:
        video = picture_stream(container)
        base = (video.time_base if video else None) or Fraction(1)
        measured = _measure(picture_ticks(container, joins), base, len(joins))
    opencv = _ask_opencv(path) if claims.video_codec else OpenCV(None, None, None, None)
    return ClipInfo(os.fspath(path), claims, measured, opencv)


@dataclass(frozen=True, slots=True)
class Join:
    """A place where timestamps start anew, as in recordings that were joined: `shift` seconds mend what comes after.

    `position` counts bytes from the file's beginning.
    """

    position: int
    shift: Fraction


@dataclass(frozen=True, slots=True)
class Survey:
    """What a file's packets say: when the last of them ends, in seconds on its own clock, and where it was joined."""

    end: Fraction
    joins: tuple[Join, ...]


@dataclass(slots=True)
class _Run:
    """Packets from a position in the file on whose timestamps rise; `seen_ns` is each stream's last decoding time."""

    position: int
    start_ns: int | None = None
    end_ns: int = 0
    seen_ns: dict[int, int] = field(default_factory=dict)


def survey(container: InputContainer, streams: Sequence[VideoStream | AudioStream], step: Fraction) -> Survey:
    """Read all packets of the streams, without decoding; `step` is how long a picture lasts that does not say, in s.

    Pictures without timestamps are counted instead.
    """
    runs, unstamped, joinable = [_Run(0)], 0, _by_position(container)
    # A broadcast has a million packets: whole numbers here, which take a third of the time that fractions take.
    bases = {stream.index: ((stream.time_base or Fraction(1)) * NS).as_integer_ratio() for stream in streams}
    steps = {stream.index: round(step * NS) if stream.type == "video" else 0 for stream in streams}
    for packet in packets(container, *streams):
        if not packet.size or packet.is_discard:
            continue
        index, dts, pts, position = packet.stream_index, packet.dts, packet.pts, packet.pos
        stamp, decoded = (dts if pts is None else pts), (pts if dts is None else dts)
        if stamp is None or decoded is None:
            unstamped += steps[index] > 0
            continue
        ns, per = bases[index]
        now_ns = decoded * ns // per
        run = runs[-1]
        if position is not None and position < run.position:
            run = next(run for run in reversed(runs) if run.position <= position)
        before_ns = run.seen_ns.get(index)
        jumps = before_ns is not None and not before_ns - _BACK_NS <= now_ns <= max(run.seen_ns.values()) + _AHEAD_NS
        if jumps and joinable and position is not None:
            if run is runs[-1]:
                runs.append(_Run(position))
            else:  # the other stream's packet was handed out first, but this one lies before it
                runs[-1].position = position
            run = runs[-1]
        run.seen_ns[index] = now_ns
        start_ns = stamp * ns // per
        run.start_ns = start_ns if run.start_ns is None else min(run.start_ns, start_ns)
        length = packet.duration or 0
        run.end_ns = max(run.end_ns, _rounded((stamp + length) * ns, per) + (0 if length else steps[index]))
    shift_ns, joins = 0, []
    for run, after in pairwise(runs):
        shift_ns += run.end_ns - (after.start_ns or 0)
        joins.append(Join(after.position, Fraction(shift_ns, NS)))
    return Survey(Fraction(runs[-1].end_ns + shift_ns, NS) or unstamped * step, tuple(joins))


def _rounded(value: int, divisor: int) -> int:
    return (2 * value + divisor) // (2 * divisor)


def _by_position(container: InputContainer) -> bool:
    """Whether what is shown later lies later in the file; not so in MP4 and MOV, whose index says what lies where."""
    return "mov" not in container.format.name.split(",")


def picture_ticks(container: InputContainer, joins: Sequence[Join] = ()) -> list[int]:
    """When each picture is shown, in ticks of its stream's time base, rising; read from packets, without decoding."""
    video = picture_stream(container)
    if video is None:
        return []
    # Packets come in decoding order (B-frames): sorted, they are in order of showing. An edit list discards some.
    shown = (packet for packet in packets(container, video, joins=joins) if packet.size and not packet.is_discard)
    stamps = (packet.dts if packet.pts is None else packet.pts for packet in shown)
    return sorted(stamp for stamp in stamps if stamp is not None)


def packets(
    container: InputContainer, *streams: VideoStream | AudioStream, joins: Sequence[Join] = ()
) -> Iterator[Packet[Any]]:
    """The packets of these streams in the file's order, to the end or to where the file can no longer be read.

    Behind each of the `joins` their timestamps are moved, so that they go on where those before it end.
    """
    with suppress(av.error.FFmpegError):
        for packet in container.demux(*streams):
            shift = next((join.shift for join in reversed(joins) if join.position <= (packet.pos or 0)), None)
            if shift is not None and packet.size:
                ticks = round(shift / packet.time_base)
                packet.pts = None if packet.pts is None else packet.pts + ticks
                packet.dts = None if packet.dts is None else packet.dts + ticks
            yield packet


def _claims(path: str | os.PathLike[str]) -> Claims:
    with open_clip(path) as container:
        video, audio = picture_stream(container), sound_stream(container)
        return Claims(
            video_codec=video.codec_context.name if video else None,
            width=video.width if video else None,
            height=video.height if video else None,
            rotation=_rotation(container, video) if video else None,
            fps=video.base_rate if video else None,
            average_fps=video.average_rate if video else None,
            frames=(video.frames or None) if video else None,
            seconds=None if container.duration is None else container.duration / av.time_base,
            audio_codec=audio.codec_context.name if audio else None,
            audio_rate=audio.rate if audio else None,
            channels=audio.channels if audio else None,
            container=container.format.name,
        )


def _rotation(container: InputContainer, video: VideoStream) -> int | None:
    # The display matrix hangs on the decoded picture: the first one is enough.
    with suppress(av.error.FFmpegError):
        for frame in container.decode(video):
            return frame.rotation if abs(frame.rotation) <= 180 else None  # a matrix of zeros has no angle
    return None


def _measure(ticks: list[int], base: Fraction, joins: int) -> Measured:
    gaps = [after - before for before, after in pairwise(ticks)]
    first = float(ticks[0] * base) if ticks else None
    span = ticks[-1] - ticks[0] if ticks else 0
    if not span:
        return Measured(len(ticks), None, None, None, False, first, joins)
    # Rounding to the container's ticks moves a gap by up to two of them; a gap of few ticks is no rounding.
    mean = Fraction(span, len(gaps))
    explained = min(max(Fraction(2), Fraction(1, 10_000) / base), mean / 4)
    smallest, largest = min(gaps), max(gaps)
    return Measured(
        frames=len(ticks),
        fps=float(1 / (mean * base)),
        smallest_gap_ms=float(smallest * base * 1000),
        largest_gap_ms=float(largest * base * 1000),
        variable=largest - smallest > explained,
        first_pts=first,
        joins=joins,
    )


def _ask_opencv(path: str | os.PathLike[str]) -> OpenCV:
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)  # what it cannot open it says in the table, not on standard error
    capture = cv2.VideoCapture(os.fspath(path))
    try:
        if not capture.isOpened():
            return OpenCV(None, None, None, None)
        fps, frames = capture.get(cv2.CAP_PROP_FPS), round(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
        return OpenCV(fps, frames, round(width), round(height))
    finally:
        capture.release()
        cv2.utils.logging.setLogLevel(level)


def _text(value: float | None, form: str = "") -> str:
    return "" if value is None else format(value, form)


def _rate(value: Fraction | float | None) -> str:
    return "" if value is None else f"{float(value):.6g}"


def _size(width: int | None, height: int | None) -> str:
    return f"{width}x{height}" if width and height else ""
