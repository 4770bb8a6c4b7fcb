"""aiortc: WebRTC in Python, VP8 at the bitrate that it chooses; offers and answers go over a TCP connection."""

from __future__ import annotations

import asyncio
import fractions
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
from av import VideoFrame

from benchmarks.peers.job import Desk


class _AsItComes(MediaStreamTrack):
    """The pictures when their source has them; `take` waits for the next."""

    kind = "video"

    def __init__(self, take: Callable[[], Awaitable[Any]]) -> None:
        super().__init__()
        self._take = take
        self._number = 0

    async def recv(self) -> VideoFrame:
        frame = VideoFrame.from_ndarray(await self._take(), "bgr24")
        self._number += 1
        frame.pts, frame.time_base = self._number * 3000, fractions.Fraction(1, 90_000)
        return frame


class _InStep(VideoStreamTrack):
    """The pictures at the 30 a second that aiortc keeps."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._arrays = desk.arrays()

    async def recv(self) -> VideoFrame:
        pts, time_base = await self.next_timestamp()
        frame = VideoFrame.from_ndarray(next(self._arrays), "bgr24")
        frame.pts, frame.time_base = pts, time_base
        return frame


def send(desk: Desk) -> None:
    """Offer the pictures to everyone who connects."""
    asyncio.run(_send(desk))


async def _send(desk: Desk) -> None:
    job = desk.job
    arrays = desk.arrays()
    links: list[RTCPeerConnection] = []
    queues: list[asyncio.Queue[Any]] = []

    async def take() -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, next, arrays)

    def track() -> MediaStreamTrack:
        if job.receivers == 1:
            return _InStep(desk) if job.paces else _AsItComes(take)
        # A frame of its own for each: aiortc's MediaRelay gives all the same, and two encoders that scale it crash.
        queues.append(asyncio.Queue())
        return _AsItComes(queues[-1].get)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = RTCPeerConnection()
        links.append(link)
        link.addTrack(track())
        await link.setLocalDescription(await link.createOffer())
        _write(writer, link)
        await link.setRemoteDescription(await _read(reader))

    async with await asyncio.start_server(connected, "127.0.0.1", job.port):
        desk.board.ready()
        while len(links) < job.receivers or job.receivers == 1:
            await asyncio.sleep(0.1)
        while True:
            image = (await take()).copy()
            for waiting in queues:
                waiting.put_nowait(image)


def receive(desk: Desk) -> None:
    """Answer, and decode what comes."""
    desk.board.wait_sender()
    asyncio.run(_receive(desk))


async def _receive(desk: Desk) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", desk.job.port)
    link = RTCPeerConnection()
    link.on("track", lambda track: asyncio.ensure_future(_take(desk, track)))
    await link.setRemoteDescription(await _read(reader))
    await link.setLocalDescription(await link.createAnswer())
    _write(writer, link)
    await asyncio.Event().wait()


async def _take(desk: Desk, track: Any) -> None:
    while True:
        frame = await track.recv()
        desk.decoded(frame.to_ndarray(format="bgr24"), own=True)


def _write(writer: asyncio.StreamWriter, link: RTCPeerConnection) -> None:
    described = link.localDescription
    writer.write(json.dumps({"sdp": described.sdp, "type": described.type}).encode() + b"\n")


async def _read(reader: asyncio.StreamReader) -> RTCSessionDescription:
    return RTCSessionDescription(**json.loads(await reader.readline()))
