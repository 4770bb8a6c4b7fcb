"""Whatever a peer sends, or the system refuses it, ends with that peer; a fault of the server's own is seen by all."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import tools
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rawclient import RawClient, until

import avlab
from avlab.network.ratecontrol import Choice, Report
from avlab.stream.rtsp.audience import MOST_TOLD, RtspAudience
from avlab.stream.sockets.links import udp_pair
from avlab.wire import rtcp, rtsp

INTERLEAVED = "RTP/AVP/TCP;unicast;interleaved=0-1"
PICTURES = [np.full((64, 64, 3), 9 * n, np.uint8) for n in range(20)]


@pytest.fixture(scope="module")
def server() -> Iterator[avlab.Server]:
    with avlab.Server(PICTURES, fps=30, loop=True) as running:
        yield running


def goes_on(server: avlab.Server) -> None:
    """The server plays for the next one."""
    with RawClient(server.url) as sane:
        sane.set_up("video", INTERLEAVED)
        assert sane.ask("PLAY").status == 200
        until(lambda: sane.read() and len(sane.packets) > 3)
    assert server.running
    assert not any("led to an error here" in words for words in server.notices)


# ---- bytes

REQUESTS = [
    b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n",
    b"DESCRIBE rtsp://h/x RTSP/1.0\r\nCSeq: 2\r\nAccept: application/sdp\r\n\r\n",
    b"SETUP rtsp://h/x/video RTSP/1.0\r\nCSeq: 3\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n",
    b"SETUP rtsp://h/video RTSP/1.0\r\nCSeq: 3\r\nTransport: RTP/AVP;unicast;client_port=9-10\r\nX-Repair:rtx\r\n\r\n",
    b"PLAY rtsp://h/x RTSP/1.0\r\nCSeq: 4\r\nRange: npt=0-\r\nScale: 1\r\n\r\n",
    b"PAUSE rtsp://h/x RTSP/1.0\r\nCSeq: 5\r\n\r\n",
    b"TEARDOWN rtsp://h/x RTSP/1.0\r\nCSeq: 6\r\n\r\n",
    b"GET_PARAMETER rtsp://h/x RTSP/1.0\r\nCSeq: 7\r\nContent-Length: 2\r\n\r\nab",
]
REPORT = rtcp.serialize_compound([rtcp.ReceiverReport(1, (rtcp.ReportBlock(7, 1, 2, 3, 4),)), rtcp.Sdes(1, "x")])


@st.composite
def said(draw: st.DrawFn) -> bytes:
    """Requests as they should be, and then not quite."""
    parts = draw(st.lists(st.sampled_from([*REQUESTS, rtsp.interleave(1, REPORT), b"$\x01"]), max_size=6))
    data = bytearray(b"".join(parts))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.integers(0, 2))
        if how == 0:
            data[at : at + 1] = draw(st.binary(max_size=3))
        elif how == 1:
            del data[at : at + draw(st.integers(1, 20))]
        else:
            odd = ["[", "]", "\\", "%", "a℀b", "\x00", "rtsp://[x", "-1", "99999999999", "npt=", ";;", "=", "\udcff"]
            data[at:at] = draw(st.sampled_from(odd)).encode("utf-8", "surrogateescape")
    return bytes(data)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(said() | st.binary(max_size=300), st.booleans())
def test_no_bytes_end_more_than_their_own_connection(server: avlab.Server, data: bytes, reset: bool) -> None:
    with RawClient(server.url) as mad:
        mad.socket.sendall(data)
        if reset:  # in the middle of whatever the server does with it
            mad.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert server.running


def test_and_then_all_goes_on(server: avlab.Server) -> None:
    goes_on(server)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.binary(max_size=100) | st.sampled_from([REPORT, b"", bytes(1500)]), max_size=5), st.integers(0, 255))
def test_no_report_ends_anything(server: avlab.Server, reports: list[bytes], cut: int) -> None:
    links = udp_pair("127.0.0.1")
    with RawClient(server.url) as raw:
        granted = raw.set_up("video", f"RTP/AVP;unicast;client_port={links[0].port}-{links[1].port}")
        assert granted.server_port is not None
        assert granted.ssrc is not None
        known = REPORT.replace((7).to_bytes(4, "big"), granted.ssrc.to_bytes(4, "big"))
        for port in granted.server_port:
            links[1].send(
                [one for one in (*reports, known, known[: max(1, cut % len(known))]) if one], ("127.0.0.1", port)
            )
        raw.ask("PLAY")
        for channel in (0, 1, 7):
            raw.socket.sendall(b"".join(rtsp.interleave(channel, one) for one in (*reports, known)))
        assert raw.ask("OPTIONS").status == 200
    for link in links:
        link.close()
    assert server.running


# ---- faults


def test_what_nobody_has_foreseen_ends_with_its_peer_and_is_said(
    monkeypatch: pytest.MonkeyPatch, hidden_faults: list[str]
) -> None:
    def mistaken(self: Any, host: str, tell: Any) -> str:
        raise ZeroDivisionError("integer division or modulo by zero")

    monkeypatch.setattr(RtspAudience, "describe", mistaken)
    with avlab.Server(PICTURES, fps=30, loop=True) as server:
        with RawClient(server.url) as good:
            good.set_up("video", INTERLEAVED)
            for _ in range(3):
                with RawClient(server.url) as bad:
                    bad.send("DESCRIBE")
                    assert bad.hung_up()
            assert good.ask("OPTIONS").status == 200
        [words] = server.notices
        assert words == "a client was parted from, as what it sent led to an error here (ZeroDivisionError)"
        events = server.trace.settings.query("name == 'client refused'")["value"]
        assert list(events) == ["127.0.0.1: ZeroDivisionError: integer division or modulo by zero"] * 3
    assert len(hidden_faults) == 3
    hidden_faults.clear()


class Failing:
    """A part of somebody's own that fails, as soon as a client has it called."""

    def update(self, report: Report, /) -> Choice | None:
        raise KeyError("mine")

    def restart(self, start_ns: int) -> None:
        raise KeyError("mine")

    def push(self, item: Any, now_ns: int) -> None: ...

    def wake_at(self) -> int | None: ...

    def pull(self, now_ns: int) -> list[Any]:
        return []


@pytest.mark.parametrize("part", ["pacer", "rate_control"])
def test_a_fault_of_the_servers_own_parts_is_no_peers(part: str) -> None:
    made: Any = Failing()
    server = avlab.Server(PICTURES, fps=30, loop=True, **{part: made}).start()
    links = udp_pair("127.0.0.1")
    with RawClient(server.url) as raw:
        granted = raw.set_up("video", f"RTP/AVP;unicast;client_port={links[0].port}-{links[1].port}")
        assert granted.server_port is not None
        raw.send("PLAY")
        block = rtcp.ReportBlock(granted.ssrc or 0, 0, 0, 0, 0)
        report = rtcp.serialize_compound([rtcp.ReceiverReport(7, (block,)), rtcp.Sdes(7, "x")])
        port = granted.server_port[1]
        until(lambda: server.error is not None or links[1].send([report], ("127.0.0.1", port)) < 0)
        assert raw.ask("OPTIONS").status == 200
    for link in links:
        link.close()
    assert "KeyError: 'mine'" in str(server.error)
    server.stop()


def test_the_record_of_refusals_is_bounded(server: avlab.Server) -> None:
    for _ in range(MOST_TOLD + 50):
        with RawClient(server.url) as mad:
            mad.socket.sendall(b"NONSENSE\r\n\r\n")
    goes_on(server)
    assert (server.trace.settings["name"] == "client refused").sum() <= MOST_TOLD + 2


# ---- a system that is short of descriptors

SHORT = """
import resource, sys
import numpy as np
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
import avlab
pictures = [np.full((64, 64, 3), 9 * n, np.uint8) for n in range(20)]
with avlab.Server(pictures, fps=30, loop=True, host=sys.argv[1]) as server:
    print(server.url, flush=True)
    sys.stdin.readline()
    print(*server.notices, sep="; ", flush=True)
    print(server.running, server.error, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_server_without_descriptors_goes_on(host: str) -> None:
    """A scan of its port, and clients at many of its addresses, of which each needs sockets of its own."""
    command = [sys.executable, "-c", SHORT, host]
    with tools.started(*command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            port = int(url.rsplit(":", 1)[1].split("/")[0])
            answers: list[int] = []
            with ExitStack() as stack:
                for n in range(70):
                    there = f"127.0.0.{n + 1}" if host == "0.0.0.0" and sys.platform == "linux" else "127.0.0.1"
                    one = stack.enter_context(RawClient(f"rtsp://{there}:{port}/x"))
                    one.socket.settimeout(0.2)
                    try:
                        answer = one.ask("SETUP", "/video", Transport="RTP/AVP;unicast;client_port=9000-9001")
                    except (TimeoutError, ConnectionError):
                        continue
                    answers.append(answer.status)
            assert answers.count(200) >= 5
            assert set(answers) <= {200, 503}

            def served() -> bool:
                try:
                    with RawClient(url) as sane:
                        sane.socket.settimeout(2)
                        sane.set_up("video", INTERLEAVED)
                        assert sane.ask("PLAY").status == 200
                        while len(sane.packets) < 5:
                            sane.read()
                        return True
                except OSError:
                    return False

            until(served)
        finally:
            out, _ = process.communicate("\n", timeout=tools.SECONDS)
    notices, state = out.splitlines()
    assert "raise the limit of open files" in notices
    assert state == "True None"
    assert process.returncode == 0
