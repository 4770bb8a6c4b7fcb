"""Says what a clip claims and what its timestamps say, side by side, because they disagree and that is the lesson.

Reads files with PyAV and cv2.
"""

from __future__ import annotations

import html
import math
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
import av.error
import cv2
from av.container import InputContainer
from av.video.stream import VideoStream

from avlab.media.packets import by_position, open_clip, picture_stream, picture_ticks, played, sound_stream, survey
from avlab.wire.text import printable


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
    """What cv2.VideoCapture answers for the same file; None where it cannot open it, or answers what cannot be."""

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
        return "\n".join([printable(self.path), "", *lines, "", self.disagreements()])

    def _repr_html_(self) -> str:
        def cells(row: tuple[str, ...], tag: str) -> str:
            style = ("text-align:left", *["text-align:right"] * 3)
            return "".join(f'<{tag} style="{s}">{html.escape(c)}</{tag}>' for s, c in zip(style, row, strict=True))

        body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in self.rows())
        head = f"<thead><tr>{cells(_HEAD, 'th')}</tr></thead>"
        caption = f'<caption style="text-align:left"><b>{html.escape(printable(self.path))}</b></caption>'
        return f"<table>{caption}{head}<tbody>{body}</tbody></table><p>{html.escape(self.disagreements())}</p>"


_HEAD = ("", "container (PyAV)", "cv2", "timestamps")


def probe(path: str | os.PathLike[str]) -> ClipInfo:
    """What a clip says of itself, what cv2 makes of it, and what its timestamps say; nothing is decoded.

    Raises FileNotFoundError for a missing file and MediaError (a ValueError) for one that is not a clip.

    Args:
        path: A clip's file.
    """
    claims = _claims(path)
    with open_clip(path) as container:
        joins = survey(container, played(container), Fraction(1, 25)).joins if by_position(container) else ()
    with open_clip(path) as container:
        video = picture_stream(container)
        base = (video.time_base if video else None) or Fraction(1)
        measured = _measure(picture_ticks(container, joins), base, len(joins))
    opencv = _ask_opencv(path) if claims.video_codec else OpenCV(None, None, None, None)
    return ClipInfo(os.fspath(path), claims, measured, opencv)


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
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:  # a name that is no UTF-8 ends the process in cv2
        return OpenCV(None, None, None, None)
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)  # what it cannot open it says in the table, not on standard error
    # Whole, as a name that begins with a word and a colon is an address to it.
    capture = cv2.VideoCapture(os.path.abspath(path))
    try:
        if not capture.isOpened():
            return OpenCV(None, None, None, None)
        fps, frames, width, height = (_answer(capture.get(what)) for what in _ASKED)
        return OpenCV(fps or None, *(None if number is None else round(number) for number in (frames, width, height)))
    finally:
        capture.release()
        cv2.utils.logging.setLogLevel(level)


_ASKED = (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)


def _answer(value: float) -> float | None:
    """None for what is no answer: of a file that tells no duration, cv2 counts some -10^17 frames."""
    return value if math.isfinite(value) and value >= 0 else None


def _text(value: float | None, form: str = "") -> str:
    return "" if value is None else format(value, form)


def _rate(value: Fraction | float | None) -> str:
    return "" if value is None else f"{float(value):.6g}"


def _size(width: int | None, height: int | None) -> str:
    return f"{width}x{height}" if width and height else ""
