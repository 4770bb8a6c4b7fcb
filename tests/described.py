"""Streams without RTSP, for tests: ffmpeg as it sends a clip, and how much a client has shown."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ports
import tools
from rawclient import until

import avlab

SENT: dict[str, str] = {
    "jpeg": "mjpeg -huffman default -pix_fmt yuvj420p -force_duplicated_matrix 1 -q:v 5",
    "h264": "libx264 -preset ultrafast -tune zerolatency -g 8",
    "h265": "libx265 -preset ultrafast -tune zerolatency -x265-params keyint=8:log-level=none",
    "h264-b": "libx264 -preset ultrafast -g 12 -bf 4 -x264-params b-adapt=0:b-pyramid=normal:open-gop=1",
    "h265-b": "libx265 -preset ultrafast -x265-params keyint=12:bframes=4:b-adapt=0:log-level=none",
    "l16": "pcm_s16be -ar 44100 -ac 2",
    "aac": "aac -ar 44100 -ac 2",
    "opus": "libopus -ar 48000 -ac 2",
    "pcmu": "pcm_mulaw -ar 8000 -ac 1",
    "pcma": "pcm_alaw -ar 8000 -ac 1",
}
"""How ffmpeg is asked for what a description names."""


@contextmanager
def ffmpeg(
    data: Path, folder: Path, video: str, audio: str, *, host: str = "127.0.0.1", options: str = "", seconds: float = 60
) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """ffmpeg as it sends a clip again and again to free ports: its description, and the process."""
    bare = host.strip("[]")
    port = ports.free(4, "127.0.0.1" if bare[:3] in ("239", "232") else bare)
    file = folder / "session.sdp"
    command = ["ffmpeg", "-v", "error", "-nostdin", "-re", "-stream_loop", "-1", "-i", str(data / "count-15.mp4")]
    command += ["-t", str(seconds)]
    for kind, what, at in (("v", video, port), ("a", audio, port + 2)):
        if what:
            scaled = ["-vf", "scale=320:-2"] if kind == "v" else []
            command += ["-map", f"0:{kind}", "-t", str(seconds), f"-c:{kind}", *SENT[what].split(), *scaled]
            command += ["-rtpflags", "send_bye", "-f", "rtp", f"rtp://{host}:{at}{options}"]
    with tools.started(*command[:1], "-sdp_file", file, *command[1:]) as process:
        until(lambda: file.is_file() and file.read_text().count("\nm=") == bool(video) + bool(audio))
        yield file, process


def shown(client: avlab.Client) -> int:
    frames = client.trace.frames.query("stream == 'video'")
    return int(frames["fate"].isin(["shown", "damaged"]).sum())
