"""An RTSP server with a script: a test says what it describes, what it answers, and every packet that it sends."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

import cv2
import numpy as np
from packing import JpegPacketizer

from avlab.core.arriving import Described
from avlab.core.repairing import Repair
from avlab.media import codec
from avlab.wire import rtcp, rtp, sdp
from avlab.wire.batch import Batch
from avlab.wire.units import NS, EncodedFrame

VIDEO = ("m=video 0 RTP/AVP 26", "a=control:0")
AUDIO = ("m=audio 0 RTP/AVP 97", "a=rtpmap:97 L16/8000", "a=control:1")
RATE = 8000
"""Of the sound in `AUDIO`, mono, so that a test's bytes are few."""

SOUND = 97
_TRACKS = ("video", "audio")


def description(*media: Sequence[str]) -> str:
    """A session description with these media."""
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=script", "c=IN IP4 0.0.0.0", "t=0 0", "a=control:*"]
    return "\r\n".join([*lines, *(line for each in media for line in each)]) + "\r\n"


def described(media: sdp.Media, *, ssrc: int | None = None, repair: Repair | None = None) -> Described:
    """A stream as a player is told of it."""
    return Described(
        media.payload_type,
        media.clock_rate,
        channels=media.channels,
        encoding=media.encoding,
        ssrc=ssrc,
        repairs=media.repairs,
        repair=repair,
    )


def single(data: bytes) -> Batch:
    """A datagram by itself."""
    return Batch(data, len(data))


def jpeg(number: int = 0, *, width: int = 64, height: int = 48) -> bytes:
    """A small picture, another one for each number, that RTP can carry."""
    image = np.full((height, width, 3), number * 7 % 250, np.uint8)
    cv2.line(image, (number % width, 0), (width - 1, height - 1), (255, 255, 255), 2)
    return codec.encode_jpeg(image)[0]


class Pictures:
    """Packets of pictures of one source; all that a sender may do wrong is in its arguments."""

    def __init__(self, *, ssrc: int = 0x1111, sequence: int = 100, ticks: int = 5_000) -> None:
        self.packer = JpegPacketizer(ssrc=ssrc, sequence=sequence, timestamp_offset=ticks)

    def frame(self, pts_ns: int, number: int = 0) -> list[bytes]:
        """A picture of a media time."""
        return self.packer.pack(EncodedFrame(0, pts_ns, jpeg(number), 64, 48))


class Sound:
    """Packets of sound of one source: mono, 20 ms each."""

    def __init__(self, *, ssrc: int = 0x2222, sequence: int = 500, ticks: int = 77_000) -> None:
        self.ssrc, self.sequence, self.ticks = ssrc, sequence, ticks

    def packet(self, pts_ns: int, *, milliseconds: int = 20) -> bytes:
        """So much sound from a media time on."""
        payload = np.full(RATE * milliseconds // 1000, 1000, ">i2").tobytes()
        stamp = rtp.rtp_timestamp(pts_ns, RATE, self.ticks)
        packet = rtp.RtpPacket(SOUND, self.sequence & 0xFFFF, stamp, self.ssrc, False, payload)
        self.sequence += 1
        return packet.serialize()


def sender_report(ssrc: int, ntp: int, ticks: int) -> bytes:
    """A sender report of one source; `ntp` has 64 bits."""
    report = rtcp.SenderReport(ssrc, ntp, ticks & 0xFFFFFFFF, 0, 0)
    return rtcp.serialize_compound([report, rtcp.Sdes(ssrc, "script")])


def bye(ssrc: int) -> bytes:
    """A source leaves."""
    return rtcp.serialize_compound([rtcp.ReceiverReport(ssrc), rtcp.Sdes(ssrc, "script"), rtcp.Bye((ssrc,))])


class ScriptedServer:
    """Describes `described`, answers every request with 200, and runs `script(self)` after PLAY.

    `headers` are PLAY's, `transport` is put behind each SETUP's. Requests of a method in `deaf` get no answer. The
    script sends by `send`, passes the time by `pause`, which is False once it is to end, and may `hang_up`.
    """

    def __init__(
        self,
        described: str,
        script: Callable[[ScriptedServer], None],
        *,
        headers: Sequence[str] = ("Range: npt=0-",),
        transport: str = "",
        timeout: int = 60,
    ) -> None:
        self.described, self.script, self.headers, self.transport = described, script, headers, transport
        self.timeout = timeout
        self.deaf: set[str] = set()
        self.asked: list[str] = []
        self.replies: list[str] = []  # to what the script asks
        self.failed: BaseException | None = None
        self._over = threading.Event()
        self._paused = 0.0  # until when the last pause was to be
        self._ways: dict[str, tuple[list[socket.socket], tuple[str, int]] | int] = {}
        self._connection: socket.socket | None = None
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtsp://127.0.0.1:{self._listener.getsockname()[1]}/script"

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(10)
        for each in self._sockets:
            each.close()
        if self.failed is not None:
            raise self.failed

    # ---- for scripts

    def send(self, stream: str, *packets: bytes, control: bool = False) -> None:
        """RTP packets, or RTCP ones when `control`, the way that the client asked for."""
        way = self._ways.get(stream)
        if way is None:
            return
        for packet in packets:
            if isinstance(way, int):
                assert self._connection is not None
                self._connection.sendall(struct.pack("!BBH", 0x24, way + control, len(packet)) + packet)
            else:
                pair, (host, port) = way
                pair[control].sendto(packet, (host, port + control))

    def say(self, data: bytes) -> None:
        """Bytes on the RTSP connection."""
        assert self._connection is not None
        self._connection.sendall(data)

    def pause(self, seconds: float) -> bool:
        """Wait; False when the script is to end. Short pauses one after the other keep time on a busy machine, too."""
        now = time.monotonic()
        in_step = seconds <= 0.1 and now - self._paused < 0.5
        self._paused = (self._paused if in_step else now) + seconds
        return not self._over.wait(max(0, self._paused - now))

    def hang_up(self) -> None:
        """End the connection."""
        if self._connection is not None:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
            self._connection.close()

    # ---- within

    def _begin(self, body: Callable[[], None]) -> None:
        def run() -> None:
            try:
                body()
            except OSError:
                pass  # the client has gone
            except BaseException as error:
                self.failed = error

        self._threads.append(threading.Thread(target=run, name="script"))
        self._threads[-1].start()

    def _accept(self) -> None:
        while not self._over.is_set():
            self._connection, _ = self._listener.accept()
            self._serve(self._connection)

    def _serve(self, connection: socket.socket) -> None:
        data = b""
        with connection:
            while more := self._read(connection):
                data += more
                while data:
                    if data[:1] == b"$":
                        size = 4 + int.from_bytes(data[2:4], "big")
                        if len(data) < size:
                            break
                        data = data[size:]
                        continue
                    head, end, rest = data.partition(b"\r\n\r\n")
                    if not end:
                        break
                    data = rest
                    self._answer(connection, head.decode())

    @staticmethod
    def _read(connection: socket.socket) -> bytes:
        try:
            return connection.recv(65_536)
        except OSError:
            return b""

    def _answer(self, connection: socket.socket, head: str) -> None:
        if head.startswith("RTSP/"):
            self.replies.append(head)
            return
        method, uri, _ = head.split(" ", 2)
        self.asked.append(method)
        if method in self.deaf:
            return
        number = re.search(r"CSeq: (\d+)", head)
        headers, body = [f"CSeq: {number[1] if number else 0}"], b""
        if method == "OPTIONS":
            headers.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN")
        elif method == "DESCRIBE":
            body = self.described.encode()
            headers += [f"Content-Base: {uri}/", "Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        elif method == "SETUP":
            asked = re.search(r"Transport: (.*)", head)
            assert asked is not None
            headers += self._set_up(_TRACKS[int(uri[-1])], asked[1].strip(), connection)
        elif method == "PLAY":
            headers += ["Session: 1", *self.headers]
        connection.sendall("\r\n".join(["RTSP/1.0 200 OK", *headers, "", ""]).encode() + body)
        if method == "PLAY":
            self._begin(lambda: self.script(self))

    def _set_up(self, stream: str, asked: str, connection: socket.socket) -> list[str]:
        told = asked + self.transport
        if ports := re.search(r"client_port=(\d+)", asked):
            pair = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
            for each in pair:
                each.bind(("127.0.0.1", 0))
            self._sockets += pair
            self._ways[stream] = pair, (connection.getpeername()[0], int(ports[1]))
            told += ";server_port={}-{}".format(*(each.getsockname()[1] for each in pair))
        else:
            channel = re.search(r"interleaved=(\d+)", asked)
            assert channel is not None
            self._ways[stream] = int(channel[1])
        return [f"Transport: {told}", f"Session: 1;timeout={self.timeout}"]


def playing(server: ScriptedServer, *, fps: int = 25, seconds: float = 60, sound: bool = True) -> None:
    """A script: pictures and sound, each packet when it is due."""
    pictures, tones = Pictures(), Sound()
    for number in range(round(seconds * fps)):
        pts_ns = number * NS // fps
        server.send("video", *pictures.frame(pts_ns, number))
        for at in range(0, 1000 // fps, 20) if sound else ():
            server.send("audio", tones.packet(pts_ns + at * NS // 1000))
        if not server.pause(1 / fps):
            return
