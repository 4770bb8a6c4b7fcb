"""ffmpeg at both ends, fed and read through pipes: MJPEG as RTP/JPEG over UDP, its pictures in I420."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

from benchmarks.peers.job import Desk

_GUARD = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
_QUIET = ["ffmpeg", "-hide_banner", "-loglevel", "fatal", "-nostdin"]
_PIPE_BYTES = 1 << 20
_SCALE = 4
"""FFmpeg's -q:v that makes JPEGs of about the size that the others make at quality 80."""


def send(desk: Desk) -> None:
    """Feed the pictures to ffmpeg; with `paces`, it reads them no faster than their rate (-re)."""
    job = desk.job
    raw = ["-f", "rawvideo", "-pix_fmt", "yuvj420p", "-s", f"{job.width}x{job.height}", "-r", f"{job.fps or 30:g}"]
    to = [f"rtp://127.0.0.1:{job.port + 2 * receiver}?pkt_size=1400" for receiver in range(job.receivers)]
    out = ["-f", "rtp", to[0]] if len(to) == 1 else ["-f", "tee", "|".join(f"[f=rtp]{url}" for url in to)]
    encode = [
        "-map",
        "0:v",
        "-c:v",
        "mjpeg",
        "-threads",
        "1",
        "-huffman",
        "default",
        "-q:v",
        str(_SCALE),
        "-fps_mode",
        "passthrough",
    ]
    pace = ["-re"] if job.paces else []
    command = [*_GUARD, *_QUIET, *pace, *raw, "-i", "pipe:0", *encode, *out]
    desk.board.wait_receivers()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0) as sender:
        assert sender.stdin is not None
        fcntl.fcntl(sender.stdin, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        for picture in desk.pictures():
            while picture:
                picture = picture[sender.stdin.write(picture) :]


def receive(desk: Desk) -> None:
    """An ffmpeg, and this process reads it."""
    job, receiver = desk.job, desk.receiver
    described = Path(job.folder) / f"{receiver}.sdp"
    described.write_text(
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=bench\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {job.port + 2 * receiver} RTP/AVP 26\n"
    )
    at_once = ["-fflags", "nobuffer", "-flags", "low_delay", "-probesize", "32", "-analyzeduration", "0"]
    at_once += ["-threads", "1"]  # a thread a frame would hold back as many frames
    at_once += [
        "-reorder_queue_size",
        "0",
        "-max_delay",
        "0",
        "-buffer_size",
        "4194304",
        "-protocol_whitelist",
        "file,udp,rtp",
    ]
    out = ["-f", "rawvideo", "-pix_fmt", "yuvj420p", "-fps_mode", "passthrough", "pipe:1"]
    command = [*_GUARD, *_QUIET, *at_once, "-i", str(described), *out]
    picture = memoryview(bytearray(job.picture_bytes))
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as taker:
        assert taker.stdout is not None
        desk.board.ready(receiver)
        fcntl.fcntl(taker.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        while True:
            done = 0
            while done < len(picture):
                got = taker.stdout.readinto(picture[done:])
                if not got:
                    raise RuntimeError("ffmpeg has ended")
                done += got
            desk.decoded(picture, depth=1, own=True)
