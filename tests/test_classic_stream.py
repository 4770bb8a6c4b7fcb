"""The classic wire over real sockets: avlab and the tutorial's scripts both ways, and those who mean harm."""

from __future__ import annotations

import base64
import errno
import json
import os
import pickle
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import commands
import numpy as np
import ports
import pytest
import tools
import tutorial
from commands import running, sentence
from numpy.typing import NDArray
from rawclient import until

import avlab
from avlab.measure.numbers import metrics
from avlab.media import synth
from avlab.media.codec import decode_jpeg, encode_jpeg
from avlab.media.sources import ClipSource
from avlab.media.stereo import stereo
from avlab.stream.classic import classicaudience as classic_server
from avlab.stream.classic import classicreceiver as classic_client
from avlab.timing.allowance import Allowance
from avlab.wire.classic import ForeignPickleError
from avlab.wire.units import NS, Chunk, WireError

RATE = 44_100
SECONDS = 2


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of picture, 15 a second, and sound."""
    return synth.write(synth.constant("two.mp4", 15, SECONDS), tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def sound(clip: Path) -> bytes:
    """All of its sound as bytes."""
    chunks = stereo(ClipSource(clip).chunks(), rate=RATE, size=1024)
    return b"".join(chunk.samples.tobytes() for chunk in chunks)


def pictures(count: int = 30) -> list[NDArray[np.uint8]]:
    return [np.full((64, 64, 3), 2 * n + 10, np.uint8) for n in range(count)]


def noise(count: int = 4) -> list[NDArray[np.uint8]]:
    """Some 300 KB a picture at quality 90: far more than a datagram."""
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (480, 640, 3), dtype=np.uint8) for _ in range(count)]


def port_of(handle: avlab.Server) -> int:
    return int(handle.url.rpartition(":")[2])


def free_pair() -> int:
    """A port whose neighbour below is free as well, for pictures."""
    return ports.free(2) + 1


def events(trace: avlab.Trace) -> dict[str, str]:
    table = trace.settings.query("kind == 'event'")
    return {str(name): str(value) for name, value in zip(table["name"], table["value"], strict=True)}


def audience(server: avlab.Server) -> classic_server.ClassicAudience:
    assert isinstance(server.signalling, classic_server.ClassicAudience)
    return server.signalling


class Raw:
    """A client by hand, as the tutorial's: a datagram, and a connection to the port below, if it is wanted."""

    def __init__(self, server: avlab.Server, *, connect: bool = True, hello: bytes | None = b"Hello") -> None:
        self.port = port_of(server)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.udp.settimeout(60)
        self.tcp = socket.create_connection(("127.0.0.1", self.port - 1), 10) if connect else None
        if hello is not None:
            self.udp.sendto(hello, ("127.0.0.1", self.port))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.udp.close()
        if self.tcp is not None:
            self.tcp.close()

    def picture(self) -> bytes:
        """The next picture's JPEG."""
        return base64.b64decode(self.udp.recv(65_536), validate=True)

    def chunk(self) -> bytes | None:
        """The next chunk of sound; None at the connection's end."""
        assert self.tcp is not None
        prefix = self._bytes(8)
        if not prefix:
            return None
        pickled = self._bytes(struct.unpack("Q", prefix)[0])
        assert pickled[:2] == b"\x80\x03"
        data = pickle.loads(pickled)
        assert isinstance(data, bytes)
        return data

    def _bytes(self, count: int) -> bytes:
        """So many, or fewer at the connection's end; with a time-out, MSG_WAITALL does not wait for all."""
        assert self.tcp is not None
        data = b""
        while len(data) < count and (more := self.tcp.recv(count - len(data))):
            data += more
        return data


def heard_by(client: avlab.Client, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Where the sound that a client takes is collected."""
    heard: list[bytes] = []
    take = client.presentation.take_sound

    def spy(samples: NDArray[np.int16], **rest: int) -> str:
        heard.append(samples.tobytes())
        return take(samples, **rest)

    monkeypatch.setattr(client.presentation, "take_sound", spy)
    return heard


# ---- the tutorial's scripts


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("role", ["server-a", "server-b"])
def test_avlab_plays_the_tutorials_servers(
    role: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wav = tmp_path / "sound.raw"
    extract = ["ffmpeg", "-loglevel", "error", "-i", clip, "-ac", "2", "-ar", "44100", "-vn", "-f", "s16le", wav]
    tools.run(*extract)
    port = free_pair()
    with tutorial.peer(role, port=port, clip=clip) as peer:
        client = avlab.Client(f"classic://127.0.0.1:{port}", audio="null")
        heard = heard_by(client, monkeypatch)
        with client:
            shown = {frame.image.shape for frame in client.frames()}
            assert client.wait(60)
        report = peer.report()
    assert report["errors"] == []
    assert shown == {(225, 400, 3)}
    trace = client.trace
    video = trace.frames.query("stream == 'video'")
    # It reports, and sends for a moment more: ten frames wait at the most.
    assert 15 <= report["frames"] <= len(video) <= report["frames"] + 10
    assert list(video["index"]) == list(range(len(video)))
    whole = b"".join(heard)
    assert len(whole) >= report["sound_bytes"] > 4 * RATE
    assert wav.read_bytes().startswith(whole)
    assert metrics.summary(trace).audio_seconds == pytest.approx(len(whole) / 4 / RATE, abs=0.05)


@pytest.mark.parametrize("role", ["client-a", "client-b"])
def test_the_tutorials_clients_play_avlab(role: str, clip: Path, sound: bytes) -> None:
    with (
        avlab.Server(clip, wire="classic", width=400, once=True) as server,
        tutorial.peer(role, port=port_of(server)) as peer,
    ):
        assert server.wait(60)
        server.stop()
        report = peer.report()
    assert report["errors"] == []
    assert report["ended"] == "closed"
    assert report["frames"] == 15 * SECONDS
    assert report["empty_chunks"] == 1
    # It says hello first and connects afterwards: what was due before that is not repeated.
    assert len(sound) // 2 < report["sound_bytes"] <= len(sound)


def test_what_is_sent_byte_for_byte(clip: Path, sound: bytes) -> None:
    """Pictures that any decoder takes, in base64; sound in pickles of protocol 3, 1,024 sample frames each."""
    with avlab.Server(clip, wire="classic", width=160) as server, Raw(server) as raw:
        chunks = []
        while chunk := raw.chunk():
            chunks.append(chunk)
        assert chunk == b""  # an empty chunk is the end
        assert raw.chunk() is None
        jpegs = [raw.picture() for _ in range(15 * SECONDS)]
        assert server.status() == "0 clients, waiting for a client"
    assert {len(chunk) for chunk in chunks[:-1]} == {4096}
    assert b"".join(chunks) == sound
    assert {decode_jpeg(jpeg).shape for jpeg in jpegs} == {(88, 160, 3)}
    trace = server.trace
    assert list(trace.frames.query("stream == 'video'")["bytes"]) == [len(jpeg) for jpeg in jpegs]
    assert list(trace.packets.query("stream == 'video'")["bytes"]) == [len(base64.b64encode(jpeg)) for jpeg in jpegs]
    pacing = metrics.pacing(trace)
    assert pacing.frames == 15 * SECONDS
    assert trace.frames["timestamp"].isna().all()


# ---- avlab with itself, and what a record can say


@pytest.mark.alone
def test_a_clip_from_avlab_to_avlab(clip: Path, sound: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with avlab.Server(clip, wire="classic", once=True) as server:
        client = avlab.Client(server.url, audio="null")
        heard = heard_by(client, monkeypatch)
        with client:
            assert client.wait(60)
        assert server.wait(60)
    assert b"".join(heard) == sound
    frames, packets = client.trace.frames, client.trace.packets
    video = frames.query("stream == 'video'")
    assert list(video["index"]) == list(range(15 * SECONDS))
    assert video["fate"].isin(["shown", "skipped"]).all()
    assert video[["pts", "due", "sent", "timestamp", "packets_lost"]].isna().all(axis=None)
    assert (frames.query("stream == 'audio'")["fate"] == "shown").all()
    assert frames["timestamp"].isna().all()
    assert packets[["ssrc", "seq", "timestamp", "marker"]].isna().all(axis=None)
    assert len(client.trace.sync) == 0
    summary = metrics.summary(client.trace)
    assert (summary.lost, summary.av_p95_ms, summary.packet_loss_percent) == (None, None, None)
    assert summary.audio_seconds == pytest.approx(SECONDS, abs=0.1)
    assert metrics.loss(client.trace)["packet_loss"].isna().all()
    with pytest.raises(ValueError, match="carries no number"):
        avlab.join(server.trace, client.trace)
    assert avlab.plots.page(client.trace) is not None  # all that can be drawn of it


def test_no_sound_is_the_pictures_alone() -> None:
    with (
        avlab.Server(pictures(20), fps=40, wire="classic", once=True) as server,
        avlab.Client(server.url, audio="null") as client,
    ):
        assert client.wait(60)
    video = client.trace.frames
    assert len(video) == 20
    assert client.audio_seconds == 0


def test_who_joins_late_gets_what_is_due_now(clip: Path, sound: bytes) -> None:
    with avlab.Server(clip, wire="classic", width=160) as server, Raw(server) as first:
        for _ in range(10):
            first.picture()
        with Raw(server) as second:
            chunks = []
            while chunk := second.chunk():
                chunks.append(chunk)
            late = b"".join(chunks)
            assert len(late) < len(sound) * 3 // 4
            assert sound.endswith(late)
            second.picture()
    video = server.trace.frames.query("stream == 'video'")
    assert len(video) == 15 * SECONDS  # encoded once for all


def test_a_loop_has_no_seam(clip: Path, sound: bytes) -> None:
    with avlab.Server(clip, wire="classic", width=160, loop=True) as server, Raw(server) as raw:
        heard = b""
        while len(heard) < len(sound) + 40_000:
            heard += raw.chunk() or b""
        period = 4 * RATE * SECONDS
        assert heard[:period] == sound[:period]
        assert heard[period : period + 20_000] == sound[:20_000]


def test_when_everybody_has_left_the_clip_rewinds(clip: Path) -> None:
    with avlab.Server(clip, wire="classic", width=160) as server:
        for _ in range(2):
            with Raw(server) as raw:
                for _ in range(5):
                    raw.picture()
                assert server.clients == 1
            until(lambda: server.clients == 0)
            until(lambda: server.status() == "0 clients, waiting for a client")
    starts = server.trace.frames.query("stream == 'video' and index == 0")
    assert len(starts) == 2


@pytest.mark.parametrize(("rate", "channels"), [(48_000, 2), (48_000, 1), (44_100, 1), (44_100, 2)])
def test_any_sound_becomes_what_the_wire_has(rate: int, channels: int) -> None:
    """44.1 kHz stereo in chunks of 1,024; as loud as it was; a gap stays a gap."""
    size = rate // 50
    wave = (8000 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)).astype(np.int16)
    chunks = [
        Chunk(n, n * NS // 50, np.repeat(wave[n * size : (n + 1) * size, None], channels, axis=1), rate)
        for n in range(50)
    ]
    out = list(stereo(iter(chunks), rate=RATE, size=1024))
    heard = np.concatenate([chunk.samples for chunk in out])
    assert heard.shape == (RATE, 2)
    assert {len(chunk.samples) for chunk in out[:-1]} == {1024}
    assert [chunk.pts_ns for chunk in out] == [n * 1024 * NS // RATE for n in range(len(out))]
    expected = 8000 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    assert np.abs(heard - expected[:, None])[500:-500].max() < 4
    gap = [*chunks[:10], *chunks[30:]]
    pts = [chunk.pts_ns for chunk in stereo(iter(gap), rate=RATE, size=1024)]
    assert 30 * NS // 50 in pts
    assert [chunk.index for chunk in out] == list(range(len(out)))


# ---- frames that do not fit


def test_a_frame_too_large_is_told_once_and_the_stream_goes_on() -> None:
    with (
        avlab.Server(noise(), fps=60, loop=True, wire="classic", quality=100) as server,
        Raw(server) as raw,
    ):
        until(lambda: (server.trace.frames["fate"] == "skipped").sum() > 20)
        [said] = [words for words in server.notices if "datagram" in words]  # it may have been too slow, too
        assert "a datagram carries 65,507 at most here: lower the width to about" in said
        assert events(server.trace)["frame too large"] == said
        server.quality = 99
        until(lambda: sum("datagram" in words for words in server.notices) == 2)
        server.width, server.quality = 160, 20
        assert decode_jpeg(raw.picture()).shape == (120, 160, 3)
    frames = server.trace.frames
    skipped = frames[frames["fate"] == "skipped"]
    assert skipped["sent"].isna().all()
    assert (skipped["bytes"] > 65_507 * 3 // 4).all()
    # Paced like those that are sent: a clip of nothing else is not over at once.
    assert np.diff(np.asarray(skipped["due"], float)) == pytest.approx(1 / 60, abs=1e-6)


def test_what_the_system_refuses_to_send_has_the_same_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit was not what it was found to be: EMSGSIZE, as on macOS."""
    monkeypatch.setattr(classic_server, "largest_datagram", lambda link, most: 1 << 20)
    with avlab.Server(noise(), fps=60, loop=True, wire="classic", quality=95) as server, Raw(server) as raw:
        until(lambda: server.notices)
        assert "lower the width to about" in server.notices[0]
        server.width, server.quality = 160, 20
        assert len(raw.picture()) < 65_507
    assert server.error is None


def test_the_limit_is_found_out() -> None:
    with avlab.Server(pictures(1), wire="classic") as server:
        found = audience(server).video.max_datagram
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as plain:
            plain.sendto(bytes(found), ("127.0.0.1", port_of(server)))
            with pytest.raises(OSError, match="too long"):
                plain.sendto(bytes(found + 1), ("127.0.0.1", port_of(server)))


def test_the_command_line_tells_it_too(tmp_path: Path) -> None:
    """Noise as a clip cannot be had small; a wide one at full quality is large enough."""
    big = tmp_path / "big.mp4"
    recipe = synth.constant("big.mp4", 15, 1)
    big = synth.write(recipe, tmp_path)
    port = free_pair()
    with (
        running(
            "serve", big, "--wire", "classic", "--port", port, "--width", 2040, "--quality", 100, "--once"
        ) as serve,
        avlab.Client(serve.url, audio="null") as client,
    ):
        assert serve.url == f"classic://127.0.0.1:{port}"
        assert client.wait(60)
        code, _, said = serve.wait()
    assert code == 0
    [note] = [line for line in said.splitlines() if "datagram" in line]
    assert note.startswith("note: Frame 0 (2040x")
    assert "lower the width to about" in note


# ---- who is not well-behaved


@pytest.fixture(params=["with sound", "silent"])
def either(request: pytest.FixtureRequest, clip: Path) -> Any:
    """A clip with sound, and pictures without."""
    return clip if request.param == "with sound" else pictures()


def drain(udp: socket.socket) -> int:
    """How many datagrams wait."""
    count = 0
    udp.setblocking(False)
    with suppress(BlockingIOError):
        while udp.recv(65_536):
            count += 1
    udp.settimeout(10)
    return count


def test_without_a_connection_there_are_two_seconds_for_all_ports(either: Any) -> None:
    """A forged datagram is no weapon; one that proves its address by a connection is served on."""
    with (
        ExitStack() as stack,
        avlab.Server(either, wire="classic", width=160, loop=True) as server,
        Raw(server) as proven,
    ):
        proven.picture()
        forged = [stack.enter_context(Raw(server, connect=False, hello=b"")) for _ in range(10)]
        forged[0].picture()
        until(lambda: server.clients == 1)
        assert "no connection for sound" in events(server.trace)["client gone"]
        # Another port of the same address has no allowance of its own, nor have these a second one.
        forged.append(stack.enter_context(Raw(server, connect=False)))
        forged[0].udp.sendto(b"more", ("127.0.0.1", forged[0].port))
        until(lambda: "client waits" in events(server.trace))
        assert server.clients == 1
        with Raw(server) as other:
            other.picture()
            assert server.clients == 2
        for _ in range(20):
            proven.picture()
        assert 1 <= sum(drain(raw.udp) for raw in forged) <= 2 * 30 + 1


def test_a_connection_in_time_is_enough(either: Any) -> None:
    """It is kept open for a silent clip, too: the tutorial's client ends when it is closed."""
    with (
        avlab.Server(either, wire="classic", width=160, loop=True) as server,
        Raw(server, connect=False, hello=None) as late,
    ):
        late.udp.sendto(b"", ("127.0.0.1", late.port))
        late.picture()
        late.tcp = socket.create_connection(("127.0.0.1", late.port - 1), 10)
        for _ in range(75):  # more than the two seconds that others get
            late.picture()
            if isinstance(either, Path):
                assert len(late.chunk() or b"") == len(late.chunk() or b"") == 4096
        assert server.clients == 1
        server.stop()
        while chunk := late.chunk():
            pass
        assert chunk == b""  # an empty chunk, and then the end
        assert late.chunk() is None


def test_a_connection_too_late_has_the_pictures_go_on(either: Any) -> None:
    """A machine that opens its sound card for seconds says hello only once."""
    with (
        avlab.Server(either, wire="classic", width=160, loop=True) as server,
        Raw(server, connect=False) as late,
    ):
        until(lambda: "client gone" in events(server.trace))
        drain(late.udp)
        late.tcp = socket.create_connection(("127.0.0.1", late.port - 1), 10)
        for _ in range(20):
            late.picture()


def test_a_class_that_says_hello_at_once_is_served_when_it_connects(
    either: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More hellos than addresses may be without proof: those who are put off begin with their connection."""
    monkeypatch.setattr(classic_server, "Allowance", lambda: Allowance(at_a_time=0))
    with ExitStack() as stack:
        server = stack.enter_context(avlab.Server(either, wire="classic", width=160, loop=True))
        raws = [stack.enter_context(Raw(server, connect=False)) for _ in range(8)]
        until(lambda: len(audience(server).waiting) == 8)
        assert server.clients == 0
        for raw in raws:
            raw.tcp = stack.enter_context(socket.create_connection(("127.0.0.1", raw.port - 1), 10))
        for raw in raws:
            raw.picture()
        assert server.clients == 8


@pytest.mark.parametrize("role", ["client-a", "client-b"])
def test_the_tutorials_clients_play_a_silent_clip_to_its_end(role: str) -> None:
    with (
        avlab.Server(pictures(120), fps=30, wire="classic", once=True) as server,
        tutorial.peer(role, port=port_of(server)) as peer,
    ):
        assert server.wait(30)
        server.stop()
        report = peer.report()
    assert report["errors"] == []
    assert (report["ended"], report["frames"], report["empty_chunks"]) == ("closed", 120, 1)


def test_what_goes_wrong_with_one_ends_with_it(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that nobody thought of, in the code that serves one peer: the others go on, and the record says it."""
    receive = classic_server.TcpLink.receive

    def fail(link: Any, *args: Any) -> bytes | None:
        data = receive(link, *args)
        if data == b"bad":
            raise ZeroDivisionError("nobody thought of this")
        return data

    monkeypatch.setattr(classic_server.TcpLink, "receive", fail)
    with ExitStack() as stack:
        server = stack.enter_context(avlab.Server(clip, wire="classic", width=160, loop=True))
        good = stack.enter_context(Raw(server))
        good.picture()  # with its own connection, before there is another
        bad = stack.enter_context(Raw(server))
        bad.picture()
        assert bad.tcp is not None
        bad.tcp.sendall(b"bad")
        until(lambda: "client failed" in events(server.trace))
        assert "nobody thought of this" in events(server.trace)["client failed"]
        for _ in range(20):
            good.picture()
        assert server.error is None


def test_connections_that_ask_for_nothing_keep_nobody_out(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classic_server, "LATELY_NS", 0)  # as if they had been there for long
    with ExitStack() as stack:
        server = stack.enter_context(avlab.Server(clip, wire="classic", width=160, loop=True))
        where = ("127.0.0.1", port_of(server) - 1)
        for _ in range(classic_server.MAX_UNMET + 20):
            stack.enter_context(socket.create_connection(where, 10))
        until(lambda: "client refused" in events(server.trace))
        until(lambda: len(audience(server).listeners) <= classic_server.MAX_UNMET)
        with avlab.Client(server.url, audio="null") as client:
            until(lambda: client.audio_seconds > 0 and len(client.trace.frames) > 5)


def test_a_flood_of_datagrams_holds_nobody_up(clip: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(avlab.Server(clip, wire="classic", width=160, loop=True))
        good = stack.enter_context(avlab.Client(server.url, audio="null"))
        senders = [stack.enter_context(closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))) for _ in range(100)]
        to = ("127.0.0.1", port_of(server))
        for number in range(20_000):
            senders[number % 100].sendto(b"x" * (number % 1400), to)
        until(lambda: server.clients == 1)  # all are of one address, and share two seconds
        count = len(good.trace.frames.query("stream == 'video'"))
        until(lambda: len(good.trace.frames.query("stream == 'video'")) > count + 15)
        assert good.running
        assert server.running
    frames = server.trace.frames.query("stream == 'video'")
    assert not (frames["fate"] == "skipped").any()
    assert len(server.trace.settings) < 300


def test_one_who_never_reads_is_dropped(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it leaves is bounded, and in the end it is parted from; the others hear everything."""
    monkeypatch.setattr(classic_server, "STALL_BYTES", 20_000)
    with (
        avlab.Server(clip, wire="classic", width=160, loop=True, session_timeout=1) as server,
        Raw(server, hello=None) as good,
        socket.socket() as lazy,
    ):
        good.udp.sendto(b"", ("127.0.0.1", good.port))
        good.picture()
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect(("127.0.0.1", good.port - 1))
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as eyes:
            eyes.sendto(b"Hello", ("127.0.0.1", good.port))
            until(lambda: server.clients == 2)
            [listener] = [
                one for one in audience(server).listeners if one.link.socket.getpeername() == lazy.getsockname()
            ]
            listener.link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            seen = 0
            while server.clients == 2:
                assert good.chunk()
                seen = max(seen, listener.link.waiting)
        assert 20_000 - 4096 < seen < 40_000
        assert good.chunk()
    assert "it reads nothing" in events(server.trace)["client timed out"]
    packets = server.trace.packets.query("stream == 'audio'")
    assert (packets["fate"] == "socket_dropped").any()


def test_a_client_that_is_killed_is_missed(clip: Path) -> None:
    with (
        avlab.Server(clip, wire="classic", width=160, loop=True) as server,
        avlab.Client(server.url, audio="null") as good,
    ):
        with tutorial.peer("client-a", port=port_of(server)) as peer:
            until(lambda: server.clients == 2 and len(audience(server).listeners) == 2)
            peer.process.kill()
            until(lambda: server.clients == 1 and len(audience(server).listeners) == 1)
        count = len(good.trace.frames)
        until(lambda: len(good.trace.frames) > count + 30)
    assert server.error is None


def test_one_of_two_at_an_address_leaves_and_the_other_stays(clip: Path) -> None:
    """Which connection is whose, no one says: whoever is refused by its own machine is the one that went."""
    with (
        avlab.Server(clip, wire="classic", width=160, loop=True) as server,
        Raw(server, connect=False) as first,
        Raw(server, connect=False) as second,
    ):
        first.picture()
        second.picture()
        second.tcp = socket.create_connection(("127.0.0.1", second.port - 1), 10)  # taken for the first's
        until(lambda: audience(server).listeners)
        first.tcp = socket.create_connection(("127.0.0.1", first.port - 1), 10)
        until(lambda: len(audience(server).listeners) == 2)
        first.close()
        until(lambda: server.clients == 1)
        if sys.platform.startswith("linux"):
            assert list(audience(server).viewers) == [second.udp.getsockname()]
            until(lambda: all(viewer.listener for viewer in audience(server).viewers.values()))
            assert second.chunk()


def test_pictures_to_nobody_stop_where_the_system_tells() -> None:
    with avlab.Server(pictures(), fps=30, loop=True, wire="classic") as server:
        with Raw(server, connect=False) as raw:
            raw.picture()
        if sys.platform.startswith("linux"):
            until(lambda: server.clients == 0)
            assert "nobody listens there" in events(server.trace)["client gone"]


# ---- servers that are not what they seem


@dataclass
class Fake:
    """A server by hand on a pair of ports: `play(udp, client, connection)` runs once both have come."""

    play: Callable[[socket.socket, tuple[str, int], socket.socket], None]
    port: int = 0
    errors: list[BaseException] = field(default_factory=list)

    def run(self, udp: socket.socket, door: socket.socket) -> None:
        try:
            with door.accept()[0] as connection:
                connection.settimeout(60)
                _, client = udp.recvfrom(65_536)
                self.play(udp, client, connection)
        except BaseException as error:
            self.errors.append(error)


@contextmanager
def fake(play: Callable[[socket.socket, tuple[str, int], socket.socket], None]) -> Iterator[Fake]:
    server = Fake(play, free_pair())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.bind(("127.0.0.1", server.port))
        door.bind(("127.0.0.1", server.port - 1))
        door.listen()
        udp.settimeout(60)
        door.settimeout(60)
        thread = threading.Thread(target=server.run, args=(udp, door))
        thread.start()
        try:
            yield server
        finally:
            thread.join(30)
            assert not thread.is_alive()
    assert server.errors == []


def until_closed(connection: socket.socket) -> None:
    """Wait for the other side to hang up."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        return


class Touch:
    """What an attacker pickles: unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def message(pickled: bytes) -> bytes:
    return struct.pack("Q", len(pickled)) + pickled


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_a_malicious_pickle_is_refused(tmp_path: Path, protocol: int) -> None:
    touched = tmp_path / "touched"
    evil = message(pickle.dumps(Touch(touched), protocol))
    assert pickle.loads(evil[8:]) is None
    touched.unlink()

    def play(udp: socket.socket, client: tuple[str, int], connection: socket.socket) -> None:
        connection.sendall(message(pickle.dumps(bytes(4096))) + evil)
        until_closed(connection)

    with fake(play) as server:
        client = avlab.Client(f"classic://127.0.0.1:{server.port}", audio="null").start()
        with pytest.raises(ForeignPickleError, match="A peer tried to send something else than sound"):
            client.wait(60)
        client.stop()
    assert "something else than sound" in events(client.trace)["sound refused"]
    assert not touched.exists()


def test_a_malicious_pickle_ends_the_command_with_a_sentence(tmp_path: Path) -> None:
    touched = tmp_path / "touched"

    def play(udp: socket.socket, client: tuple[str, int], connection: socket.socket) -> None:
        connection.sendall(message(pickle.dumps(Touch(touched))))
        until_closed(connection)

    with fake(play) as server:
        url = f"classic://127.0.0.1:{server.port}"
        done = commands.run("play", url, "--no-window", "--audio", "null", "--json")
    assert done.returncode == 1
    assert sentence(done.stderr).startswith("A peer tried to send something else than sound")
    assert "nothing was unpickled" in json.loads(done.stdout)["error"]
    assert not touched.exists()


def test_garbage_is_passed_over_and_pictures_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    jpeg, _, _ = encode_jpeg(pictures(1)[0])

    def play(udp: socket.socket, client: tuple[str, int], connection: socket.socket) -> None:
        for junk in (b"", b"Hello", b"\xff" * 9000, base64.b64encode(b"no picture"), base64.b64encode(jpeg)[:-3]):
            udp.sendto(junk, client)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:  # another port of the same machine
            stranger.sendto(b"junk", client)
        for _ in range(5):
            udp.sendto(base64.b64encode(jpeg), client)
            time.sleep(0.01)
        connection.sendall(message(pickle.dumps(b"")))

    with fake(play) as server, avlab.Client(f"classic://127.0.0.1:{server.port}", audio="null") as client:
        assert client.wait(60)
    assert len(client.trace.frames) == 5
    assert (client.trace.settings["name"] == "malformed packet").sum() == 6
    assert ["cannot be read, and is passed over" in words for words in client.notices] == [True]


@pytest.mark.parametrize(
    "odd", [b"", b"GIF89a" + bytes(50), b"\xff\xd8{where}" + bytes(50)], ids=["empty", "GIF", "braces"]
)
def test_what_is_no_picture_at_all_is_said(odd: bytes) -> None:
    def play(udp: socket.socket, client: tuple[str, int], connection: socket.socket) -> None:
        for _ in range(10):
            udp.sendto(base64.b64encode(odd), client)
        connection.sendall(message(pickle.dumps(b"")))

    with fake(play) as server, avlab.Client(f"classic://127.0.0.1:{server.port}", audio="null") as client:
        assert client.wait(60)
    said = client.nothing_shown()
    assert said is not None
    assert re.search(
        r"^no picture was shown: none came \(what comes from .* cannot be read, and is passed over \(.+\)", said
    )


def test_sound_is_read_no_faster_than_it_plays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends ten seconds at once is held back by TCP, as the tutorial's is."""
    chunks = [message(pickle.dumps(bytes(4096))) for _ in range(430)]

    def play(udp: socket.socket, client: tuple[str, int], connection: socket.socket) -> None:
        try:
            connection.sendall(b"".join(chunks))
        except ConnectionError:
            return

    with fake(play) as server:
        client = avlab.Client(f"classic://127.0.0.1:{server.port}", audio="null")
        heard = heard_by(client, monkeypatch)
        with client:
            until(lambda: client.audio_seconds > 1)
            taken = sum(map(len, heard)) / 4 / RATE
            assert taken < client.audio_seconds + 0.5
    audio = client.trace.frames.query("stream == 'audio'")
    assert audio["fate"].isin(["shown", "in_flight"]).all()
    assert client.trace.packets["bytes"].sum() < 4 * RATE * 4


def test_sound_that_pauses_goes_on_from_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing says how long a pause was meant to be: what comes after it is played, not thrown away as late."""
    chunk = message(pickle.dumps(np.full((1024, 2), 1000, np.int16).tobytes()))

    def play(udp: socket.socket, client: tuple[str, int], connection: socket.socket) -> None:
        connection.sendall(20 * chunk)
        threading.Event().wait(1.0)
        connection.sendall(20 * chunk + message(pickle.dumps(b"")))

    with fake(play) as server, avlab.Client(f"classic://127.0.0.1:{server.port}", audio="null") as client:
        assert client.wait(60)
    audio = client.trace.frames.query("stream == 'audio'")
    assert list(audio["fate"]) == ["shown"] * 40
    assert np.diff(np.asarray(audio["shown"], float)).max() > 0.4


def test_pictures_without_sound_end_when_they_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has no sound port at all; nothing on the wire tells the end."""
    monkeypatch.setattr(classic_client, "QUIET_NS", NS // 2)
    jpeg = base64.b64encode(encode_jpeg(pictures(1)[0])[0])
    port = free_pair()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", port))
        udp.settimeout(60)

        def play() -> None:
            _, client = udp.recvfrom(65_536)
            for _ in range(20):
                udp.sendto(jpeg, client)
                time.sleep(0.02)

        thread = threading.Thread(target=play)
        thread.start()
        with avlab.Client(f"classic://127.0.0.1:{port}") as client:
            assert client.speaker_name == ""
            assert client.wait(60)
        thread.join(10)
    assert len(client.trace.frames) == 20
    told = events(client.trace)
    assert told["no sound"] == f"nothing listens on TCP port {port - 1}"
    assert "taken for the end" in told["quiet"]


def test_empty_chunks_without_end_cost_nobody_a_core() -> None:
    """What the tutorial's server does when its sound is over; the pictures go on, and their end is the end."""
    jpeg = base64.b64encode(encode_jpeg(pictures(1)[0])[0])
    empty = 1000 * message(pickle.dumps(b""))
    sent = []

    def play(udp: socket.socket, client: tuple[str, int], connection: socket.socket) -> None:
        connection.settimeout(0.01)
        for _ in range(50):
            udp.sendto(jpeg, client)
            try:
                sent.append(connection.send(empty))
            except TimeoutError:
                time.sleep(0.01)

    with fake(play) as server, avlab.Client(f"classic://127.0.0.1:{server.port}", audio="null") as client:
        assert client.wait(60)
    assert len(client.trace.frames) == 50
    assert "sound connection closed" in events(client.trace)
    assert client.audio_seconds == 0


def test_sound_in_crumbs_is_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample frame a message is more work than sound: it is taken as whole runs."""
    wave = np.arange(8000, dtype=np.int16).repeat(2).reshape(-1, 2)
    crumbs = b"".join(message(pickle.dumps(sample.tobytes())) for sample in wave)

    def play(udp: socket.socket, client: tuple[str, int], connection: socket.socket) -> None:
        connection.sendall(crumbs + message(pickle.dumps(b"")))

    with fake(play) as server:
        client = avlab.Client(f"classic://127.0.0.1:{server.port}", audio="null")
        heard = heard_by(client, monkeypatch)
        with client:
            assert client.wait(60)
    assert b"".join(heard) == wave.tobytes()
    audio = client.trace.frames
    assert audio["bytes"].sum() == wave.nbytes
    assert len(audio) < 200
    # A machine that stood still may have had a run too late; none may be forgotten.
    assert audio["fate"].isin(["shown", "late", "skipped"]).all()
    assert (audio["fate"] == "shown").any()


@pytest.mark.parametrize("host", ["::1", "localhost"])
def test_other_ways_to_name_this_machine(host: str, clip: Path) -> None:
    with avlab.Server(clip, wire="classic", width=160, host=host, loop=True) as server:
        where = f"[{host}]" if ":" in host else host
        assert server.url == f"classic://{where}:{port_of(server)}"
        with avlab.Client(server.url, audio="null") as client:
            until(lambda: len(client.trace.frames.query("stream == 'video'")) > 3 and client.audio_seconds > 0)


def without_sound(path: Path) -> Path:
    """A clip of two seconds that has pictures alone."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=15)
        video.width = video.height = 64
        for image in pictures(15 * SECONDS):
            out.mux(video.encode(av.VideoFrame.from_ndarray(image, "bgr24")))
        out.mux(video.encode())
    return path


CHUNK = message(pickle.dumps(bytes(4096)))
END = message(pickle.dumps(b""))


def reset(connection: socket.socket) -> None:
    """Close as a machine does whose program was killed while it had something to read."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("how", ["closed", "reset"])
@pytest.mark.parametrize("sound", [CHUNK, b""], ids=["with sound", "silent"])
def test_a_server_that_is_gone_in_mid_stream_is_told(how: str, sound: bytes) -> None:
    jpeg = base64.b64encode(encode_jpeg(pictures(1)[0])[0])

    def play(udp: socket.socket, client: tuple[str, int], connection: socket.socket) -> None:
        for _ in range(5):
            udp.sendto(jpeg, client)
            connection.sendall(sound)
            time.sleep(0.02)
        if how == "reset":
            reset(connection)

    with fake(play) as server, avlab.Client(f"classic://127.0.0.1:{server.port}", audio="null") as client:
        assert client.wait(20)
    [said] = client.notices
    assert "was stopped or lost in mid-stream" in said
    assert len(client.trace.frames.query("stream == 'video'")) == 5


def test_a_server_that_is_gone_before_a_picture_is_an_error() -> None:
    def play(udp: socket.socket, client: tuple[str, int], connection: socket.socket) -> None:
        connection.sendall(5 * CHUNK)

    with fake(play) as server:
        client = avlab.Client(f"classic://127.0.0.1:{server.port}", audio="null").start()
        with pytest.raises(ConnectionError, match="closed the connection before a picture came"):
            client.wait(20)
        client.stop()


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETDOWN])
def test_a_network_that_goes_down_is_told_as_a_server_that_is_gone(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    jpeg = base64.b64encode(encode_jpeg(pictures(1)[0])[0])
    receive = classic_client.TcpLink.receive

    def fail(link: Any, *args: Any) -> bytes | None:
        data = receive(link, *args)
        if data is None:
            raise OSError(number, os.strerror(number))
        return data

    def play(udp: socket.socket, client: tuple[str, int], connection: socket.socket) -> None:
        for _ in range(5):
            udp.sendto(jpeg, client)
            time.sleep(0.02)

    monkeypatch.setattr(classic_client.TcpLink, "receive", fail)
    with fake(play) as server, avlab.Client(f"classic://127.0.0.1:{server.port}", audio="null") as client:
        assert client.wait(20)
    assert "was stopped or lost in mid-stream" in client.notices[0]


def test_what_nobody_thought_of_in_its_sound_ends_a_client_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, data: bytes, now_ns: int) -> Any:
        raise ZeroDivisionError("nobody thought of this")

    def play(udp: socket.socket, client: tuple[str, int], connection: socket.socket) -> None:
        connection.sendall(CHUNK)
        until_closed(connection)

    monkeypatch.setattr(classic_client.ClassicSound, "feed", fail)
    with fake(play) as server:
        client = avlab.Client(f"classic://127.0.0.1:{server.port}", audio="null").start()
        with pytest.raises(WireError, match=r"the sound from .* cannot be taken \(ZeroDivisionError: nobody thought"):
            client.wait(20)
        client.stop()


def test_sound_without_one_picture_is_told() -> None:
    def play(udp: socket.socket, client: tuple[str, int], connection: socket.socket) -> None:
        connection.sendall(5 * CHUNK + END)

    with fake(play) as server:
        url = f"classic://127.0.0.1:{server.port}"
        done = commands.run("play", url, "--no-window", "--audio", "null")
    assert done.returncode == 0
    assert done.stderr.startswith("note: Sound comes from 127.0.0.1")
    assert "not one picture" in done.stderr


def test_an_orderly_end_is_no_notice(clip: Path) -> None:
    with (
        avlab.Server(clip, wire="classic", once=True) as server,
        avlab.Client(server.url, audio="null") as client,
    ):
        assert client.wait(20)
    assert client.notices == ()


@pytest.mark.parametrize("silent", [False, True])
def test_a_server_that_is_killed_is_told(clip: Path, tmp_path: Path, silent: bool) -> None:
    source = without_sound(tmp_path / "silent.mp4") if silent else clip
    port = free_pair()
    with (
        running("serve", source, "--wire", "classic", "--port", port, "--width", 160, "--loop") as server,
        running("play", server.url, "--no-window", "--audio", "null") as player,
    ):
        with avlab.Client(server.url, audio="null") as client:
            until(lambda: len(client.trace.frames) > 5)
            server.process.kill()
            assert client.wait(20)
        code, _, said = player.wait()
    assert "was stopped or lost" in client.notices[0]
    assert code == 0
    assert "was stopped or lost" in said


@pytest.mark.parametrize("hang_up", [True, False])
def test_a_server_that_sends_nothing(hang_up: bool) -> None:
    over = threading.Event()

    def play(udp: socket.socket, client: tuple[str, int], connection: socket.socket) -> None:
        if not hang_up:
            over.wait(60)

    with fake(play) as server:
        client = avlab.Client(f"classic://127.0.0.1:{server.port}", audio="null", timeout=0.5).start()
        words = "closed the connection before" if hang_up else "neither picture nor sound has come"
        with pytest.raises(OSError, match=words):
            client.wait(60)
        over.set()
        client.stop()


# ---- what a person gets wrong, and starting again


def test_no_server_at_all() -> None:
    port = free_pair()
    with pytest.raises(ConnectionRefusedError, match=f"nothing listens at 127.0.0.1:{port}"):
        avlab.Client(f"classic://127.0.0.1:{port}", timeout=0.3).start()


@pytest.mark.parametrize(
    "url",
    [
        "classic://",
        "classic:",
        "classic://host:99999",
        "classic://host:0",
        "classic://host/path",
        "classic://:9688",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match=r"write it as classic://host:port"):
        avlab.Client(url)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"video_over": "tcp"}, "no way to ask for anything else"),
        ({"audio_over": "udp"}, "no way to ask for anything else"),
        ({"av_offset": 0.1}, "nothing ties a picture to its sound"),
        ({"timeout": 0}, "timeout must be more than 0"),
        ({"playout_delay": 9}, "playout_delay must be 0 to 5"),
        ({"audio": "loud"}, "audio must be"),
    ],
)
def test_what_the_wire_has_no_way_to_do(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        avlab.Client("classic://127.0.0.1:9688", **setting)


def test_a_playout_delay_is_told_not_to_apply() -> None:
    client = avlab.Client("classic://127.0.0.1:9688", playout_delay=0.2)
    client.playout_delay = 0.3
    assert client.playout_delay == 0
    [said] = client.notices
    assert "no timestamps" in said
    assert avlab.Client("classic://127.0.0.1").notices == ()
    assert avlab.Client("rtsp://127.0.0.1").playout_delay == 0.1


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"wire": "morse"}, "wire must be 'rtsp', 'http' or 'classic', not 'morse'"),
        ({"wire": "classic", "port": 1}, "port must be from 2 to 65535"),
        ({"wire": "classic", "port": 70_000}, "port must be"),
    ],
)
def test_a_server_that_cannot_be(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        avlab.Server(pictures(1), **setting)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_port_in_use_is_named(kind: socket.SocketKind) -> None:
    port = free_pair()
    taken = port - (kind == socket.SOCK_STREAM)
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", taken))
        if kind == socket.SOCK_STREAM:
            other.listen()
        with pytest.raises(OSError, match=f"port {taken} on 127.0.0.1 is in use"):
            avlab.Server(pictures(1), wire="classic", port=port).start()


def test_a_server_can_be_started_again_at_once() -> None:
    """The tutorial's cannot for a minute: its port is in TIME_WAIT."""
    port = free_pair()
    for _ in range(3):
        with avlab.Server(pictures(), fps=30, loop=True, wire="classic", port=port) as server, Raw(server) as raw:
            raw.picture()
            port = port_of(server)
            server.stop()
            assert raw.chunk() == b""
            assert raw.chunk() is None


def test_play_says_what_is_not_available(clip: Path) -> None:
    port = free_pair()
    with running("serve", clip, "--wire", "classic", "--port", port, "--width", 160, "--loop") as server:
        play = ["play", server.url, "--no-window", "--audio", "null", "--seconds", 1]
        with running(*play) as other:
            done = commands.run(*play, "--json", "--playout-delay", 0.2)
            code, plain, _ = other.wait()
    assert (done.returncode, code) == (0, 0), done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["shown"] >= 10
    assert (said["lost"], said["av_p95_ms"], said["error"]) == (None, None, None)
    assert said["audio_seconds"] > 0.5
    assert "playout_delay does not apply" in done.stderr
    assert "not available on the classic wire" in plain
