"""What servers and clients write into a capture of their own, as tshark reads it."""

from __future__ import annotations

import signal
import struct
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import tools
from hypothesis import given
from hypothesis import strategies as st

import avlab
from avlab.stream.capturing import WAITING_BYTES, Capture
from avlab.stream.clock import MonotonicClock
from avlab.wire.batch import Batch
from avlab.wire.credentials import Blanking

CHECKED = [
    option
    for layer in ("ip.check_checksum", "udp.check_checksum", "tcp.check_checksum")
    for option in ("-o", f"{layer}:TRUE")
]


def tshark(path: Path, *arguments: str) -> str:
    return tools.run("tshark", "-n", "-r", path, *CHECKED, *arguments)


def fields(path: Path, *names: str, only: str = "") -> list[list[str]]:
    wanted = [word for name in names for word in ("-e", name)]
    said = tshark(path, *(["-Y", only] if only else []), "-T", "fields", *wanted)
    return [line.split("\t") for line in said.splitlines()]


def complaints(path: Path, *arguments: str) -> list[str]:
    """What Wireshark finds odd: warnings and errors, but for nothing that is a mere note of how a connection went."""
    said = tshark(path, "-q", "-z", "expert,warn", *arguments)
    return [line for line in said.splitlines() if line.strip() and "===" not in line and "Frequency" not in line]


def written(path: Path) -> tuple[Capture, list[str]]:
    notices: list[str] = []
    return Capture(path, clock=MonotonicClock(), notice=lambda name, words: notices.append(words)), notices


@pytest.mark.needs("tshark")
@pytest.mark.parametrize(
    ("here", "there", "layer"),
    [
        (("192.0.2.1", 5000), ("192.0.2.200", 6001), "ip"),
        (("2001:db8::1", 5000, 0, 0), ("2001:db8::2", 6001), "ipv6"),
        (("fe80::1", 5000, 0, 2), ("fe80::2%eth0", 6001), "ipv6"),
        (("::ffff:192.0.2.1", 5000, 0, 0), ("::ffff:192.0.2.7", 6001), "ip"),
    ],
)
def test_datagrams_and_a_connection_are_what_tshark_takes_for_sound(
    here: tuple[str, int], there: tuple[str, int], layer: str, tmp_path: Path
) -> None:
    path = tmp_path / "made.pcapng"
    capture, notices = written(path)
    capture.udp(Batch(bytes(range(1, 251)) * 9, 999), here, there, sent=True)
    capture.udp(Batch(b"", 0), there, here, sent=False)
    connection = capture.connection(here, there, opened=True)
    connection.sent(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n")
    connection.received(b"$\0" + struct.pack("!H", 5_000) + b"a" * 5_000)
    connection.sent(b"TEARDOWN * RTSP/1.0\r\nCSeq: 2\r\n\r\n")
    connection.received(b"")
    connection.closed()
    capture.close()
    assert not notices
    assert complaints(path) == []
    sent, received = (host.partition("%")[0].removeprefix("::ffff:") for host in (here[0], there[0]))
    datagrams = fields(path, f"{layer}.src", f"{layer}.dst", "udp.srcport", "udp.length", only="udp")
    assert datagrams[:3] == [[sent, received, "5000", str(8 + size)] for size in (999, 999, 252)]
    assert datagrams[3] == [received, sent, "6001", "8"]
    bad = " or ".join(f"{name}.checksum.status == 0" for name in ("ip", "udp", "tcp"))
    assert fields(path, "frame.number", only=bad) == []
    lengths = fields(path, "tcp.seq", "tcp.len", only=f"tcp and {layer}.src == {received}")
    assert [int(length) for _, length in lengths] == [0, 1448, 1448, 1448, 660, 0]
    assert int(lengths[-1][0]) == 1 + 5_004  # the end comes after all of it


def test_what_is_too_much_for_the_disk_is_left_out_and_said(tmp_path: Path) -> None:
    capture, notices = written(tmp_path / "full.pcapng")
    ends = ("192.0.2.1", 5000), ("192.0.2.2", 6000)
    connection = capture.connection(*ends, opened=False)
    for _ in range(WAITING_BYTES // 50_000 + 10):
        capture.udp(Batch(bytes(50_000), 1_000), *ends, sent=True)
    connection.sent(bytes(60_000))
    capture.write()
    capture.udp(Batch(b"room again", 10), *ends, sent=True)
    connection.sent(b"beyond a hole")
    capture.close()
    assert len(notices) == 1
    data = (tmp_path / "full.pcapng").read_bytes()
    assert len(data) > WAITING_BYTES
    assert b"room again" in data
    assert b"beyond a hole" not in data  # whoever followed the connection would read nonsense from there on
    assert b"\x05\0\x08\0" + struct.pack("<Q", 11) in data[-60:]  # ten datagrams' batches and a run of bytes


def test_a_disk_that_fails_ends_the_capture_and_nothing_else(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        return
    capture, notices = written(path := tmp_path / "full.pcapng")
    assert capture.file is not None
    capture.file.close()
    capture.file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115 - it is the capture's now
    for _ in range(3):
        capture.udp(Batch(b"something", 9), ("192.0.2.1", 1), ("192.0.2.2", 2), sent=True)
        capture.write()
    capture.close()
    assert notices == [f"the capture ends here, as {path} cannot be written any more (No space left on device)"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no/such/run.pcapng", "make it first"),
        ("folder", "it is a folder"),
        ("/dev/null", "it is no file"),
        ("/proc/run.pcapng", "cannot be written|make it first"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_opened(
    name: str, words: str, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / name
    for handle in (
        avlab.Server(data / "count.mp4", capture=path),
        avlab.Client("rtsp://127.0.0.1:1/nobody", capture=path),
    ):
        with pytest.raises(OSError, match=words):
            handle.start()
        handle.stop()
    with pytest.raises(TypeError, match="capture must be the path of a file, not 5"):
        avlab.Server(data / "count.mp4", capture=5)  # type: ignore[arg-type]


def test_a_capture_keeps_segmentation_off_unless_it_is_asked_for(data: Path, tmp_path: Path) -> None:
    server = avlab.Server(data / "count.mp4", capture=tmp_path / "run.pcapng")
    assert server.offload == "off"
    server.offload = "auto"
    assert server.offload == "off"
    server.offload = "on"
    assert server.offload == "on"
    assert avlab.Server(data / "count.mp4").offload == "auto"


# ---- credentials

SECRET = b"dXNlcjpwYXNzd29yZA"
DIALOGUE = (
    b"DESCRIBE rtsp://h/clip RTSP/1.0\r\nCSeq: 2\r\nAuthorization: Basic " + SECRET + b"==\r\n\r\n"
    b"$\0\0\x20not\nAuthorization: a header here\n"
    b'SETUP rtsp://h/clip RTSP/1.0\r\nauthorization : Digest username="u",\r\n response="'
    + SECRET
    + b'"\r\nCSeq: 3\r\n'
    b"Proxy-Authorization:\tBasic " + SECRET + b"\r\nTransport: RTP/AVP\r\n\r\n$\1\0\0"
)


@given(st.lists(st.integers(0, len(DIALOGUE)), max_size=8))
def test_credentials_are_blanked_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    blanking, ends = Blanking(), [0, *sorted(cuts), len(DIALOGUE)]
    said = b"".join(blanking.blanked(DIALOGUE[at:end]) for at, end in pairwise(ends))
    stars = b"*" * len(SECRET)
    known = DIALOGUE.replace(b" Basic " + SECRET + b"==", b"*" * (9 + len(SECRET)))
    known = known.replace(b' Digest username="u",', b"*" * 21).replace(
        b' response="' + SECRET + b'"', b"*" * 11 + stars + b"*"
    )
    assert said == known.replace(b"\tBasic " + SECRET, b"*" * 7 + stars)
    assert b"Authorization: a header here" in said  # a packet's payload is what it is


LOGGED_IN = (
    b"DESCRIBE rtsp://u:" + SECRET + b"@h:554/clip RTSP/1.0\r\nCSeq: 2\r\n\r\n"
    b"Content-Base: rtsp://u:" + SECRET + b"@x@h/clip\r\na=control:rtsp://h:554/clip/a@b\r\n//\r\n\r\n"
)


@given(st.lists(st.integers(0, len(LOGGED_IN)), max_size=8))
def test_a_password_in_an_address_is_blanked_wherever_it_is_cut(cuts: list[int]) -> None:
    """Some players put it into the request's line, and some servers into their answers."""
    blanking, ends = Blanking(), [0, *sorted(cuts), len(LOGGED_IN)]
    said = b"".join(blanking.blanked(LOGGED_IN[at:end]) for at, end in pairwise(ends))
    assert len(said) == len(LOGGED_IN)
    assert said.count(b"\r\n") == LOGGED_IN.count(b"\r\n")
    for at in range(len(SECRET) - 3):
        assert SECRET[at : at + 4] not in said
    whole = Blanking().blanked(LOGGED_IN)
    stars = b"*" * (2 + len(SECRET))
    assert whole == LOGGED_IN.replace(b"u:" + SECRET + b"@x", stars + b"**").replace(b"u:" + SECRET, stars)


@given(st.binary(max_size=300))
def test_blanking_keeps_every_length(data: bytes) -> None:
    assert len(Blanking().blanked(data)) == len(data)


# ---- live


@pytest.mark.slow
@pytest.mark.needs("tshark")
@pytest.mark.parametrize(
    ("isolated", "over"), [(False, "udp"), (True, "tcp")], ids=["in this process", "isolated, all over TCP"]
)
def test_tshark_sees_what_both_sides_saw(isolated: bool, over: str, data: Path, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("server.pcapng", "client.pcapng")]
    with avlab.Server(data / "count.mp4", width=320, capture=paths[0], isolated=isolated) as server:
        port = server.url.split(":")[2].split("/")[0]
        with avlab.Client(server.url, audio="null", capture=paths[1], video_over=over) as client:  # type: ignore[arg-type]
            client.wait(2.5)
    sent, seen = server.trace, client.trace
    assert [value for name, value in zip(sent.settings["name"], sent.settings["value"], strict=True)
            if name == "offload in use"] in (["off"], ["not available"], [])  # fmt: skip
    for path in paths:
        as_rtsp = ("-d", f"tcp.port=={port},rtsp")
        assert complaints(path, *as_rtsp) == []
        said = tshark(path, *as_rtsp, "-q", "-z", "rtp,streams")
        counts = {}
        for line in said.splitlines():
            if "0x" in line:
                ssrc, rest = line.split("0x")[1].split(None, 1)
                numbers = rest.split("(")[0].split()
                counts[int(ssrc, 16)] = int(numbers[-2]), int(numbers[-1])
        assert set(counts) >= set(seen.packets["ssrc"])
        for ssrc, (count, lost) in counts.items():
            heard = int((seen.packets["received"].notna() & (seen.packets["ssrc"] == ssrc)).sum())
            # What was in a connection when it ended was sent, and heard by the system at most.
            assert lost == 0
            assert heard <= count <= max(1, int((sent.packets["ssrc"] == ssrc).sum()))
        asked = tshark(path, *as_rtsp, "-Y", "rtsp.method", "-T", "fields", "-e", "rtsp.method").split()
        assert asked == ["OPTIONS", "DESCRIBE", "SETUP", "SETUP", "PLAY", "TEARDOWN"]


@pytest.mark.slow
@pytest.mark.needs("tshark")
def test_a_capture_survives_a_kill(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "killed.pcapng"
    command = [sys.executable, "-m", "avlab", "serve", data / "count.mp4", "--port", "0", "--capture", path]
    with tools.started(*command, seconds=60) as child:
        assert child.stdout is not None
        url = child.stdout.readline().split()[-1]
        with avlab.Client(url, audio="null") as client:
            deadline = time.monotonic() + 30
            while path.stat().st_size < 300_000 and time.monotonic() < deadline:
                client.wait(0.1)
            child.send_signal(signal.SIGKILL)
            with pytest.raises(OSError, match="closed the connection"):
                client.wait(20)
    assert len(fields(path, "frame.number", only="udp")) > 100
