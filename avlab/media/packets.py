"""Opens clips and reads their packets, without decoding: what is played, when it is shown, where files were joined.

Reads files with PyAV; every other room that opens a clip does so through `open_clip` here.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import av.error
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from avlab.wire.text import TOO_MANY_FILES
from avlab.wire.units import NS

_BACK_NS = NS // 2  # timestamps that step back by more than this have started anew,
_AHEAD_NS = 60 * NS  # and so have those which leap ahead of both streams by more than this


class MediaError(ValueError):
    """A file is not a clip, or stops being one on the way. The message is a sentence."""


def open_clip(path: str | os.PathLike[str]) -> InputContainer:
    """Open a file that has pictures or sound, for reading; close it after use.

    Raises FileNotFoundError when there is no such file, MediaError (a ValueError) when it cannot be played.
    """
    name = os.fspath(path)
    refuse_address(name)
    try:
        kind = os.stat(name).st_mode
    except PermissionError:
        raise PermissionError(f"The file {name!r} may not be read; change its permissions.") from None
    except (OSError, ValueError):  # a name that is too long, or has a zero in it, is no file's either
        raise FileNotFoundError(f"There is no file {name!r}; check the name and the folder ({Path.cwd()}).") from None
    advice = "give a video or sound file that FFmpeg reads, such as MP4, MKV, WebM, MOV or WAV"
    if stat.S_ISDIR(kind):
        raise MediaError(f"{name!r} is a folder; {advice}.")
    if not stat.S_ISREG(kind):  # to open a pipe that nobody writes to would wait for ever, deaf to Ctrl-C
        raise MediaError(f"{name!r} is no file, but a pipe or a device; {advice}.")
    nothing = f"{name!r} is not a clip (neither pictures nor sound could be found in it); {advice}."
    try:
        # "file:" keeps FFmpeg from taking a name with a colon for a network address.
        container = av.open("file:" + name, metadata_errors="replace")
    except PermissionError:
        raise PermissionError(f"The file {name!r} may not be read; change its permissions.") from None
    except (av.error.FFmpegError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise OSError(error.errno, TOO_MANY_FILES) from None
        raise MediaError(_unfinished(name) or nothing) from None
    # FFmpeg draws text files as pictures of a terminal ("tty"): nobody who streams one means that.
    if container.format.name == "tty" or (picture_stream(container) is None and sound_stream(container) is None):
        container.close()
        raise MediaError(_unfinished(name) or nothing)
    return container


_ADDRESS = re.compile(r"(?:rtsps?|classic|https?|ftp|file|udp|rtp|rtmp|srt):/|[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def refuse_address(name: str) -> None:
    """MediaError, saying what to do, for an address where a file is meant: unless there is a file of that name."""
    found = _ADDRESS.match(name)
    if found is None or Path(name).exists():
        return
    scheme = found[0].partition(":")[0].lower()
    advice = "download it first, and give the path of the file"
    if scheme in ("rtsp", "rtsps", "classic"):
        advice = "play it with 'avlab play' or avlab.Client, or relay it with 'avlab relay'"
    elif scheme == "file":
        advice = "leave out what stands before its path"
    raise MediaError(f"{name!r} is an address, and the path of a clip is meant: {advice}.")


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
    """The audio stream that players take, the default one, else the first, of those that FFmpeg can decode."""
    known = [stream for stream in container.streams.audio if stream.codec_context]
    return next((a for a in known if a.disposition & Disposition.default), known[0] if known else None)


def played(container: InputContainer) -> list[VideoStream | AudioStream]:
    """The one or two streams that are played."""
    return [s for s in (picture_stream(container), sound_stream(container)) if s is not None]


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
class _PacketRun:
    """Packets from a position in the file on whose timestamps rise; `seen_ns` is each stream's last decoding time."""

    position: int
    start_ns: int | None = None
    end_ns: int = 0
    seen_ns: dict[int, int] = field(default_factory=dict)


def survey(container: InputContainer, streams: Sequence[VideoStream | AudioStream], step: Fraction) -> Survey:
    """Read all packets of the streams, without decoding; `step` is how long a picture lasts that does not say, in s.

    Pictures without timestamps are counted instead.
    """
    runs, unstamped, joinable = [_PacketRun(0)], 0, by_position(container)
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
                runs.append(_PacketRun(position))
            else:  # the other stream's packet was handed out first, but this one lies before it
                runs[-1].position = position
            run = runs[-1]
        run.seen_ns[index] = now_ns
        start_ns = stamp * ns // per
        run.start_ns = start_ns if run.start_ns is None else min(run.start_ns, start_ns)
        length = packet.duration or 0
        run.end_ns = max(run.end_ns, rounded((stamp + length) * ns, per) + (0 if length else steps[index]))
    shift_ns, joins = 0, []
    for run, after in pairwise(runs):
        shift_ns += run.end_ns - (after.start_ns or 0)
        joins.append(Join(after.position, Fraction(shift_ns, NS)))
    return Survey(Fraction(runs[-1].end_ns + shift_ns, NS) or unstamped * step, tuple(joins))


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


def by_position(container: InputContainer) -> bool:
    """Whether what is shown later lies later in the file; not so in MP4 and MOV, whose index says what lies where."""
    return "mov" not in container.format.name.split(",")


def rounded(value: int, divisor: int) -> int:
    """The whole number nearest to a quotient, the higher one of two; `divisor` is above 0."""
    return (2 * value + divisor) // (2 * divisor)
