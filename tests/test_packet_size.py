"""How large packets are: what may be asked for, by whom, and that all sizes carry pictures and sound whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
from rawclient import RawClient, until

import avlab
from avlab.media.codec import encode_jpeg
from avlab.media.sources import CHUNK_NS
from avlab.stream.rtsp.media_sockets import MediaSockets
from avlab.stream.sockets.links import UdpLink
from avlab.wire.batch import Batch
from avlab.wire.rtp import HEADER_BYTES, REPAIR_BYTES, RtpPacket, check_packet_size
from avlab.wire.units import NS

FRAMES = 12


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray[Any, Any]]:
    """Pictures of some 75 KB: more than one packet at any size."""
    random = np.random.default_rng(7)
    return [random.integers(0, 256, (240, 320, 3), dtype=np.uint8) for _ in range(FRAMES)]


# ---- what may be asked for


@pytest.mark.parametrize("size", [575, 65_001, 0, -1200, 1200.0, True, "1200", None, 10**30])
def test_what_is_no_size_is_refused_in_a_sentence(size: Any) -> None:
    with pytest.raises(ValueError, match=r"^packet_size must be a whole number of bytes from 576 to 65,000, not "):
        avlab.Server([np.zeros((16, 16, 3), np.uint8)], packet_size=size)
    server = avlab.Server([np.zeros((16, 16, 3), np.uint8)])
    with pytest.raises(ValueError, match="packet_size must be"):
        server.packet_size = size
    assert server.packet_size == 1200


@pytest.mark.parametrize("size", [576, 1200, 8000, 65_000])
def test_a_simulated_run_cuts_pictures_and_sound_into_packets_of_that_size(data: Path, size: int) -> None:
    network = avlab.Network(loss=0.02, seed=2)
    trace = avlab.simulate(data / "count-15.mp4", network=network, packet_size=size, seconds=4, quality=90)
    packets = trace.packets
    assert packets["bytes"].max() <= size
    frames = trace.frames.query("stream == 'video'")
    if size <= 1200:
        assert packets.query("stream == 'video'")["bytes"].max() == size - REPAIR_BYTES
    # Each packet has 20 bytes of headers, and a picture as many as it takes.
    whole = int(frames["bytes"].dropna().iloc[0]) - 600
    assert frames["packets"].dropna().iloc[0] >= max(1, whole // size)
    sound = packets.query("stream == 'audio'")
    chunks, of = 4 * NS // CHUNK_NS, 44100 * CHUNK_NS // NS * 4  # bytes of each, in stereo
    assert len(sound) == chunks * math.ceil(of / (size - HEADER_BYTES))
    assert trace.settings.query("name == 'packet_size'")["value"].tolist() == [size]


def test_larger_packets_are_lost_less_often_and_cost_more_of_a_picture_repaired(data: Path) -> None:
    def run(size: int) -> avlab.Trace:
        way = avlab.Network(loss=0.05, seed=1)
        return avlab.simulate(data / "count-15.mp4", network=way, packet_size=size, seconds=30, audio=False)

    harmed = [int((run(size).frames["fate"] == "incomplete").sum()) for size in (576, 1200, 8000)]
    assert harmed[0] > harmed[1] > harmed[2], "of a loss that is by packets"
    with pytest.raises(ValueError, match="packet_size must be"):
        avlab.simulate(30.0, network=avlab.Network(), packet_size=500)
    with pytest.raises(ValueError, match="packet_size and rate_control are for packets"):
        avlab.simulate(30.0, packet_size=8000)


@pytest.mark.parametrize("size", [576, 1200, 65_000])
def test_the_ends_of_the_range_are_sizes(size: int) -> None:
    assert check_packet_size(size) == size
    server = avlab.Server([np.zeros((16, 16, 3), np.uint8)], packet_size=size)
    assert server.packet_size == size
    rows = server.trace.settings
    assert rows[rows["name"] == "packet_size"]["value"].tolist() == [size]


def test_the_command_line_says_the_same(data: Path) -> None:
    done = commands.run("serve", str(data / "count-15.mp4"), "--packet-size", "70000", "--seconds", "1")
    assert done.returncode == 1
    assert done.stderr == "avlab: packet_size must be a whole number of bytes from 576 to 65,000, not 70000\n"


def test_the_classic_wire_has_no_packets() -> None:
    with avlab.Server([np.zeros((16, 16, 3), np.uint8)], wire="classic", packet_size=8000) as server:
        assert any("packet_size does nothing on the classic wire" in words for words in server.notices)
    with avlab.Server([np.zeros((16, 16, 3), np.uint8)], wire="classic") as server:
        assert not server.notices


# ---- what links carry


@pytest.mark.parametrize("offload", [True, False])
@pytest.mark.parametrize(
    ("size", "last", "count"),
    [(576, 1, 200), (1023, 1023, 64), (1024, 1, 65), (8000, 300, 18), (21_835, 21_835, 7), (32_753, 9, 5),
     (32_754, 9, 5), (65_000, 65_000, 3), (65_507, 1, 2)],
)  # fmt: skip
def test_a_batch_of_any_size_arrives_as_it_was(offload: bool, size: int, last: int, count: int) -> None:
    here, there = UdpLink("127.0.0.1"), UdpLink("127.0.0.1")
    try:
        here.offload = offload
        packets = [bytes([at % 251]) * size for at in range(count - 1)] + [b"z" * last]
        batch = Batch(b"".join(packets), size)
        assert here.send_batch(batch, ("127.0.0.1", there.port)) == count
        got: list[bytes] = []
        until(lambda: got.extend(data for data, _ in there.receive()) or len(got) >= count)
        assert got == packets
    finally:
        here.close()
        there.close()


# ---- on the way


@pytest.mark.slow
@pytest.mark.parametrize("size", [576, 8000, 65_000])
@pytest.mark.parametrize("over", ["udp", "tcp"])
def test_pictures_and_sound_come_whole_at_any_size(data: Path, size: int, over: Any) -> None:
    with avlab.Server(data / "count-15.mp4", packet_size=size, once=True, quality=95) as server:
        with avlab.Client(server.url, audio="null", video_over=over, audio_over=over) as client:
            client.wait()
        sent, came = server.trace, client.trace
    packets = sent.packets
    assert packets["bytes"].max() <= size
    video = packets.query("stream == 'video'")["bytes"]
    assert video.max() == min(size - REPAIR_BYTES, video.max())
    if size == 576:
        assert video.max() == size - REPAIR_BYTES
    assert set(packets["fate"].dropna()) <= {"sent", "in_flight"}, "the system took all of them"
    frames = came.frames.query("stream == 'video'")
    assert len(frames) == 75
    assert set(frames["fate"]) <= {"shown", "late", "skipped"}, "none of them incomplete"
    sound = packets.query("stream == 'audio'")["bytes"]
    assert sound.max() == (HEADER_BYTES + 44100 * CHUNK_NS // NS * 4 if size >= 8000 else sound.max())


@pytest.mark.slow
@pytest.mark.parametrize("repair", ["rtx", "fec"])
def test_what_is_lost_of_large_packets_is_repaired(pictures: list[Any], repair: Any) -> None:
    network = avlab.Network(loss=0.15, seed=3)
    server = avlab.Server(pictures, loop=True, fps=20, packet_size=9000, network=network, parity=0.5)
    with server, avlab.Client(server.url, repair=repair, playout_delay=0.3) as client:
        until(lambda: len(client.trace.packets.query("fate == 'recovered' and bytes > 8000")))
        packets = client.trace.packets
    assert packets["bytes"].max() <= 9000


@pytest.mark.slow
def test_it_acts_while_the_server_runs_isolated_too(pictures: list[Any]) -> None:
    server = avlab.Server(pictures, loop=True, fps=20, isolated=True, packet_size=2000)
    with server, avlab.Client(server.url) as client:

        def largest() -> int:
            sizes = client.recent(0.3).packets["bytes"].dropna()
            return int(sizes.max()) if len(sizes) else 0  # none yet, on a busy machine

        until(lambda: largest() == 2000 - REPAIR_BYTES)
        server.packet_size = 30_000
        until(lambda: largest() == 30_000 - REPAIR_BYTES)
        with pytest.raises(ValueError, match="packet_size"):
            server.packet_size = 100


@pytest.mark.slow
def test_a_system_of_small_datagrams_has_it_lowered_and_says_so(
    pictures: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MediaSockets, "largest", lambda self, most: 9216)  # as macOS comes
    with avlab.Server(pictures, loop=True, fps=20, packet_size=30_000) as server:
        with avlab.Client(server.url) as client:
            until(lambda: client.recent(5).frames["fate"].eq("shown").any())
        packets = server.trace.packets
        told = [words for words in server.notices if "net.inet.udp.maxdgram=65535" in words]
    assert packets["bytes"].max() == 9216 - REPAIR_BYTES
    assert len(told) == 1
    assert "no datagram of 30,000 bytes" in told[0]
    assert "9,216" in told[0]


# ---- what a client asks for, RFC 2326 12.7


@pytest.fixture
def server(pictures: list[Any]) -> Iterator[avlab.Server]:
    with avlab.Server(pictures, loop=True, fps=20, packet_size=4000) as running:
        yield running


def sizes_of(client: RawClient, frames: int) -> set[int]:
    """How large packets are that are not a picture's last, over so many pictures; each picture comes whole."""
    sizes: set[int] = set()
    ends = 0
    client.packets.clear()
    while ends < frames:
        client.read()
        packets = [RtpPacket.parse(each.data) for each in client.packets if each.channel == 0]
        ends = sum(packet.marker for packet in packets)
        sizes = {len(packet.payload) for packet in packets if not packet.marker}
    return sizes


def begin(client: RawClient, setup: dict[str, str], play: dict[str, str]) -> None:
    answer = client.ask("SETUP", "/video", Transport="RTP/AVP/TCP;unicast;interleaved=0-1", **setup)
    assert answer.status == 200
    assert client.ask("PLAY", **play).status == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setup", "play", "payload"),
    [
        ({}, {}, 4000),
        ({"Blocksize": "1000"}, {}, 1012),
        ({"Blocksize": " 0900 "}, {}, 912),
        ({}, {"Blocksize": "2000"}, 2012),
        ({"Blocksize": "1000"}, {"Blocksize": "2000"}, 2012),
        ({"Blocksize": "100000"}, {}, 4000),  # a server may send less, and never more than it was set to
        ({"Blocksize": "1"}, {}, 576),
    ],
)
def test_a_client_asks_for_smaller_packets(
    server: avlab.Server, setup: dict[str, str], play: dict[str, str], payload: int
) -> None:
    with RawClient(server.url) as client:
        begin(client, setup, play)
        assert sizes_of(client, 3) == {payload - REPAIR_BYTES - 12}


@pytest.mark.slow
def test_each_client_gets_the_size_that_it_asks_for(server: avlab.Server) -> None:
    with RawClient(server.url) as small, RawClient(server.url) as middle, RawClient(server.url) as usual:
        begin(small, {"Blocksize": "700"}, {})
        begin(middle, {"Blocksize": "1500"}, {})
        begin(usual, {}, {})
        found = [sizes_of(client, 3) for client in (small, middle, usual)]
    assert found == [{682}, {1482}, {3970}]


@pytest.mark.parametrize("block", ["0", "-1", "12.5", "many", "", "1 000", "９９９", "99999999999"])
def test_what_is_no_blocksize_is_refused_by_its_status(server: avlab.Server, block: str) -> None:
    with RawClient(server.url) as client:
        answer = client.ask("SETUP", "/video", Transport="RTP/AVP/TCP;unicast;interleaved=0-1", Blocksize=block)
        assert answer.status == 416
        begin(client, {}, {})
        assert client.ask("PLAY", Blocksize=block).status == 416
        sizes_of(client, 1)  # and goes on


def test_a_picture_is_what_it_was_at_every_size(pictures: list[Any]) -> None:
    from avlab.stream.rtsp.packing import Cut
    from avlab.wire.payloads.jpeg import FrameAssembler, packed

    jpeg = encode_jpeg(pictures[0], width=None, quality=80)[0]
    made: list[int] = []

    def make(size: int) -> Any:
        made.append(size)
        return packed(jpeg, packet_size=size)

    cut = Cut(make, 8000)
    for asked in (None, 8000, 576, 9000, 576, 1200, None):
        batch = cut.at_most(asked).stamped(sequence=65_530, timestamp=1, ssrc=2)
        assembler = FrameAssembler()
        assert not assembler.add_run(65_530, True, batch)
        assert assembler.frame()[-1000:] == jpeg[-1000:]
    assert made == [8000, 576, 1200], "each size is made once"
