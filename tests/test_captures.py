"""Captures of RTP, whoever made them, as traces: streams, what was lost and late, frames, picture against sound."""

from __future__ import annotations

import io
import json
import os
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tools
import traces
from captures import AIORTC, LINKS, Packet, block, film, pcap, pcapng, rtp, section, sound, tcp, udp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import avlab
from avlab.cli import main
from avlab.measure.captures.blocks import CaptureFile
from avlab.measure.record.tables import PACKET_FATES
from avlab.measure.record.trace import SettingRow
from avlab.wire import rtcp

NS = 1_000_000_000


def read(path: Path, data: bytes) -> avlab.Trace:
    path.write_bytes(data)
    return avlab.Trace.from_pcap(path)


def over_udp(packets: list[Packet], **options: Any) -> list[Packet]:
    return [(time_ns, udp(data, **options)) for time_ns, data in packets]


def only(trace: avlab.Trace) -> dict[str, Any]:
    [stream] = trace.meta["streams"]
    return dict(stream)


# ---- files


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("ends", [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")], ids=["IPv4", "IPv6"])
def test_every_link_and_either_ip(link: str, ends: tuple[str, str], tmp_path: Path) -> None:
    number, wrap = LINKS[link]
    if link == "PPPoE" and ":" in ends[0]:
        wrap = lambda packet: bytes(12) + b"\x88\x64\x11\0\0\1" + struct.pack("!HH", len(packet) + 2, 0x57) + packet  # noqa: E731
    packets = [(time_ns, wrap(packet)) for time_ns, packet in over_udp(film(), ends=ends)]
    found = only(read(tmp_path / "link.pcap", pcap(packets, link=number)))
    assert found["flow"] == [ends[0], 5004, ends[1], 5006, 17]
    assert (found["packets"], found["lost"], found["kind"], found["rate"], found["frames"]) == (
        200,
        0,
        "video",
        90_000,
        50,
    )


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["us", "ns", "ng", "ng 2**-30", "ng us", "ng 10**-12"])
def test_every_kind_of_file_tells_the_same_times(order: str, kind: str, tmp_path: Path) -> None:
    packets = over_udp(film(1))
    resolution = {"ng 2**-30": 0x80 | 30, "ng us": 6, "ng 10**-12": 12}.get(kind, 9)
    if kind.startswith("ng"):
        packets = packets if resolution != 12 else [(time_ns - 1_699_990_000 * NS, data) for time_ns, data in packets]
        data = pcapng(packets, order=order, resolution=resolution)
    else:
        data = pcap(packets, order=order, nano=kind == "ns")
    trace = read(tmp_path / "file", data)
    expected = [(time_ns - packets[0][0]) / NS for time_ns, _ in packets]
    np.testing.assert_allclose(trace.packets["received"], expected, rtol=0, atol=1.1e-6)
    assert only(trace)["packets"] == 100


def test_sections_interfaces_and_blocks_of_other_kinds(tmp_path: Path) -> None:
    packets = over_udp(film(1))
    some, more = packets[:60], packets[60:]
    number, wrap = LINKS["cooked"]
    second = struct.pack("<HHI", number, 0, 0) + struct.pack("<HHBxxx", 9, 1, 6)
    data = pcapng(some) + block(0xBAD, b"of nobody's") + block(1, second)
    for time_ns, packet in more:
        ticks = (1_700_000_000_123_456_789 + time_ns) // 1000
        cooked = wrap(packet)
        head = struct.pack("<IIIII", 1, ticks >> 32, ticks & 0xFFFFFFFF, len(cooked), len(cooked))
        data += block(6, head + cooked)
    data += pcapng([(5 * NS + time_ns, packet) for time_ns, packet in over_udp(film(1, ssrc=9))], order=">")
    trace = read(tmp_path / "sections", data)
    assert [(each["ssrc"], each["packets"], each["lost"]) for each in trace.meta["streams"]] == [
        (0x1234, 100, 0),
        (9, 100, 0),
    ]
    assert trace.packets["received"].is_monotonic_increasing


def test_simple_packet_blocks_have_the_time_of_the_one_before(tmp_path: Path) -> None:
    data = pcapng(over_udp(film(0.2)))
    packet = udp(rtp(20, 5 * 3600, marker=True, size=900))
    trace = read(tmp_path / "simple", data + block(3, struct.pack("<I", len(packet)) + packet))
    assert only(trace)["packets"] == 21
    assert trace.packets["received"].iloc[-1] == trace.packets["received"].iloc[-2]


NAMELESS = block(6, struct.pack("<IIIII", 7, 0, 0, 4, 4) + b"none")
"""A packet of an interface that nobody described."""


@pytest.mark.parametrize("odd", [NAMELESS, NAMELESS * 3, block(6, b""), block(2, bytes(8))], ids=len)
@pytest.mark.parametrize("before", [b"", pcapng(over_udp(film(0.2, ssrc=7)))], ids=["first", "between"])
def test_a_section_without_a_packet_that_can_be_read_hides_no_other(before: bytes, odd: bytes, tmp_path: Path) -> None:
    header = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    with pytest.raises(ValueError, match="it has no packets"):
        read(tmp_path / "none", header + odd + header + odd)
    trace = read(tmp_path / "some", before + header + odd + pcapng(over_udp(film(1))) + header + odd)
    assert [each["packets"] for each in trace.meta["streams"]] == [20, 100][not before :]


@pytest.mark.parametrize("copies", [2, 3])
@pytest.mark.parametrize("kind", ["video", "audio"])
def test_a_stream_is_found_where_each_packet_was_captured_several_times(copies: int, kind: str, tmp_path: Path) -> None:
    packets = over_udp(film() if kind == "video" else sound())
    again = [(time_ns + at * 20_000, data) for time_ns, data in packets for at in range(copies)]
    found = only(read(tmp_path / "mirrored", pcap(sorted(again, key=lambda each: each[0]))))
    assert (found["kind"], found["packets"], found["lost"]) == (kind, copies * len(packets), 0)
    assert found["duplicates"] == (copies - 1) * len(packets)


@pytest.mark.parametrize("whole", [pcap(over_udp(film(0.6))), pcapng(over_udp(film(0.6)))], ids=["pcap", "pcapng"])
@given(cut=st.floats(0, 1), spoil=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_cut_or_spoilt_anywhere_is_numbers_or_a_sentence(
    whole: bytes, cut: float, spoil: list[tuple[float, int]], tmp_path: Path
) -> None:
    data = bytearray(whole[: round(cut * len(whole))])
    for place, value in spoil if data else ():
        data[int(place * len(data))] = value
    try:
        trace = read(tmp_path / "cut", bytes(data))
    except ValueError:
        return
    assert 0 < sum(each["packets"] for each in trace.meta["streams"]) <= 60
    avlab.metrics.summary(trace)
    avlab.metrics.loss(trace)


def test_a_cut_file_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut.pcap"
    path.write_bytes(pcap(over_udp(film()))[:-300])
    assert main(["analyse", str(path)]) == 0
    assert "the file is cut short" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "neither pcap nor pcapng"),
        (b"PK\3\4 no capture", "neither pcap nor pcapng"),
        (pcap([])[:20], "ends within its header"),
        (pcap([]), "it has no packets"),
        (section(101), "it has no packets"),
        (pcap(over_udp(film()), link=105), "link type 105"),
        (pcap([(0, udp(b"\x12\x34\1\0\0\1" + bytes(30), ports=(5353, 53)))] * 50), "50 packets, 50 of them of UDP"),
        (pcap([(0, bytes(60))] * 3, link=1), "3 packets, 0 of them"),
    ],
)
def test_what_is_no_rtp_is_a_sentence(
    data: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=words):
        avlab.Trace.from_pcap(path)
    assert main(["analyse", str(path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_what_is_no_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no capture at"):
        avlab.Trace.from_pcap(tmp_path / "none")
    with pytest.raises(ValueError, match="is no file"):
        avlab.Trace.from_pcap(tmp_path)


def test_random_datagrams_are_no_streams(tmp_path: Path) -> None:
    rng = random.Random(1)
    noise = [(at * 1_000_000, udp(rng.randbytes(60))) for at in range(3_000)]
    like = [(at * 1_000_000, udp(b"\x80\x60" + rng.randbytes(2) + bytes(4) + b"same" + bytes(80))) for at in range(300)]
    with pytest.raises(ValueError, match="no RTP was found"):
        read(tmp_path / "noise", pcap(noise + like))
    trace = read(tmp_path / "both", pcap(sorted(noise + over_udp(film(), ports=(7, 8)))))
    assert only(trace)["packets"] == 200


def test_a_file_is_read_in_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = read(tmp_path / "whole", pcapng(over_udp(film())))
    monkeypatch.setattr("avlab.measure.captures.blocks.PART", 5_000)
    for data in (pcapng(over_udp(film())), pcap(over_udp(film()))):
        trace = read(tmp_path / "parts", data)
        assert trace.meta["streams"] == whole.meta["streams"]
        assert len(list(CaptureFile(io.BytesIO(data)))) > 20
        for name in ("packets", "frames"):
            assert (trace.rows(name) == whole.rows(name)).all()


# ---- numbers


def spoilt(seed: int, *, loss: float, kind: int = 26) -> list[Packet]:
    """A film that loses and jitters, numbers and timestamps wrapping; nothing overtakes."""
    rng = random.Random(seed)
    made, last = [], 0
    for at, (time_ns, _) in enumerate(film(4)):
        last = max(last + 1_000, time_ns + round(rng.expovariate(1 / 3e6)))
        packet = rtp(
            65_400 + at, 2**32 - 40_000 + at // 4 * 3600, marker=at % 4 == 3, kind=kind, size=rng.randint(50, 900)
        )
        if at in (0, 399) or rng.random() >= loss:
            made.append((last, packet))
    return made


def of_tshark(path: Path, *options: str) -> dict[tuple[str, int], list[float]]:
    """Packets, lost, mean and maximum jitter by source's address and SSRC."""
    said = tools.run("tshark", "-n", "-r", path, "--enable-heuristic", "rtp_udp", *options, "-q", "-z", "rtp,streams")
    found = {}
    for line in said.splitlines():
        if " 0x" in line:
            before, after = line.split(" 0x")
            ssrc, rest = after.split(None, 1)
            counts, numbers = rest.split("(", 1)
            packets, lost = map(float, counts.split()[-2:])
            jitters = [float(each) for each in numbers.split(")")[1].split() if each[-1].isdigit()]
            found[before.split()[2], int(ssrc, 16)] = [packets, lost, *jitters[-2:]]
    return found


def agrees(path: Path, *options: str) -> list[dict[str, Any]]:
    """Each stream that avlab has is tshark's, number by number to the last of its digits."""
    told = of_tshark(path, *options)
    streams = avlab.Trace.from_pcap(path).meta["streams"]
    for each in streams:
        packets, lost, mean, most = told.pop((each["flow"][0], each["ssrc"]))
        assert each["packets"] == packets
        assert each["lost"] - each["duplicates"] == lost
        if most > 0:  # it knows the clock, and not every packet has a marker
            clock = each["rate"] // 1000 * 1000 / each["rate"]  # which it takes for whole kilohertz
            within = 5.1e-4 if clock == 1 else 0.02 * most
            assert (each["jitter_ms"], each["max_jitter_ms"]) == (
                pytest.approx(mean, abs=within),
                pytest.approx(most, abs=within),
            )
    assert all(packets < 4 for packets, *_ in told.values())  # datagrams that open a firewall, and the like
    return streams


@pytest.mark.needs("tshark")
@pytest.mark.parametrize(("seed", "loss"), [(1, 0.0), (2, 0.02), (3, 0.2)])
def test_tshark_agrees_on_loss_and_jitter(seed: int, loss: float, tmp_path: Path) -> None:
    path = tmp_path / "lossy.pcap"
    path.write_bytes(pcap(over_udp(spoilt(seed, loss=loss))))
    [stream] = agrees(path)
    assert (stream["lost"] > 0) == (loss > 0)
    assert stream["max_jitter_ms"] > stream["jitter_ms"] > 0.5


@pytest.mark.needs("tshark")
def test_tshark_agrees_where_packets_overtake_and_come_twice(tmp_path: Path) -> None:
    packets = over_udp(spoilt(4, loss=0.05))
    rng = random.Random(5)
    for at in rng.sample(range(10, 350), 40):
        time_ns, data = packets[at]
        packets[at] = time_ns + 45_000_000, data
    packets.insert(100, packets[99])
    path = tmp_path / "late.pcap"
    path.write_bytes(pcap(sorted(packets, key=lambda each: each[0])))
    [stream] = agrees(path)
    assert stream["duplicates"] == 1
    assert stream["reordered"] >= 35


@pytest.mark.needs("tshark")
def test_tshark_agrees_on_a_call_between_two_of_aiortc() -> None:
    streams = agrees(AIORTC)
    assert [(each["format"], each["kind"], each["rate"]) for each in streams] == [
        ("PCMU", "audio", 8_000), ("", "video", 90_000),
    ] * 2  # fmt: skip
    assert all(each["fps"] == pytest.approx(30, abs=0.1) for each in streams if each["kind"] == "video")


def test_an_encrypted_call_is_two_pairs_with_jitter_and_delay() -> None:
    trace = avlab.Trace.from_pcap(AIORTC)
    forth, back = ((each["flow"][0:2]) for each in trace.meta["streams"][1:3])
    assert forth != back
    assert trace.meta["shown"] == [2, 1]  # the video and the sound of one direction
    assert avlab.Trace.from_pcap(AIORTC, streams=[3, 4]).meta["shown"] == [4, 3]
    jitter = avlab.metrics.jitter(trace)
    for each in trace.meta["streams"]:
        mine = jitter[jitter["ssrc"] == each["code"]]["jitter_ms"]
        assert each["jitter_ms"] == pytest.approx(mine.mean(), rel=0.05)
        assert mine.max() == pytest.approx(each["max_jitter_ms"], rel=1e-6)
        assert 0 < each["delay_ms"] < each["delay_p95_ms"] < each["delay_max_ms"]
    assert avlab.metrics.frame_ledger(trace).offered == 127
    assert [row.value for row in trace.setting_rows if row.name == "encrypted or damaged RTCP"] == [23]
    with pytest.raises(ValueError, match=r"no stream 5 in .*: they are numbered from 1 to 4"):
        avlab.Trace.from_pcap(AIORTC, streams=[5])


def test_one_source_between_two_pairs_of_addresses_is_two_streams(tmp_path: Path) -> None:
    near, far = film(), [(time_ns + 3_000_000, data) for at, (time_ns, data) in enumerate(film()) if at % 10]
    packets = over_udp(near) + over_udp(far, ends=("192.0.2.9", "192.0.2.10"))
    trace = read(tmp_path / "relay", pcap(sorted(packets, key=lambda each: each[0])))
    first, second = trace.meta["streams"]
    assert (first["packets"], first["lost"], second["packets"], second["lost"]) == (
        200,
        0,
        180,
        19,
    )  # the first is unknown
    assert first["ssrc"] == second["ssrc"] == 0x1234
    assert trace.packets.groupby("ssrc").size().to_dict() == {0x1234: 200, 0x1234 + 2**32: 180}
    assert avlab.metrics.summary(trace).packet_loss_percent == 0
    other = avlab.Trace.from_pcap(tmp_path / "relay", streams=[2])
    assert avlab.metrics.summary(other).packet_loss_percent == pytest.approx(100 * 19 / 199)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_a_clock_that_nobody_described_is_found(rate: int, tmp_path: Path) -> None:
    rng = random.Random(rate)
    packets = [(time_ns + rng.randint(0, 8_000_000), data) for time_ns, data in sound(4, rate=rate)]
    found = only(read(tmp_path / "sound", pcap(over_udp(packets))))
    assert (found["kind"], found["rate"]) == ("audio", rate)
    assert 0.5 < found["jitter_ms"] < 8


def test_frames_are_told_by_timestamp_and_marker(tmp_path: Path) -> None:
    gone = {22, 31, 40, 60, 61, 62, 63, 100, 101, 102, 103}
    kept = [packet for at, packet in enumerate(film()) if at not in gone]
    trace = read(tmp_path / "frames", pcap(over_udp(kept)))
    frames = trace.frames.set_index("index")
    counts = frames["fate"].dropna().astype(str).value_counts().to_dict()
    assert counts == {"incomplete": 3, "lost": 2}
    assert frames.index[frames["fate"] == "incomplete"].tolist() == [5, 7, 10]  # a middle, an end, a beginning
    assert frames.index[frames["fate"] == "lost"].tolist() == [15, 25]
    assert frames["packets_lost"].dropna().sum() == 3
    np.testing.assert_allclose(frames["pts"].to_numpy(np.float64), np.arange(50) / 25, atol=1e-9)
    assert frames["complete"].notna().sum() == 45
    assert avlab.metrics.packet_ledger(trace).lost == len(gone)
    assert len(avlab.metrics.fps(trace)) == 45  # nothing is shown in a capture: what is whole stands for it
    assert avlab.metrics.summary(trace).fps == pytest.approx(44 / 1.96)


def reported(ssrc: int, at_ns: int, timestamp: int, *, late_ns: int = 0) -> Packet:
    sender = rtcp.SenderReport(ssrc, rtcp.ns_to_ntp(1_600_000_000 * NS + at_ns), timestamp, 1, 1)
    return at_ns + late_ns, rtcp.serialize_compound([sender, rtcp.Sdes(ssrc, "one@camera")])


@pytest.mark.parametrize("late_ms", [0, 80, -60])
def test_picture_against_sound_is_told_by_sender_reports(late_ms: int, tmp_path: Path) -> None:
    """The sound takes so much longer: so much later is what is heard at a picture."""
    pictures, heard = film(4), [(time_ns + 100_000_000 + late_ms * 1_000_000, data) for time_ns, data in sound(4)]
    told = [reported(0x1234, at * NS, at * 90_000) for at in range(4)]
    told += [reported(0x5678, at * NS, at * 48_000, late_ns=100_000_000) for at in range(4)]
    packets = over_udp([(time_ns + 100_000_000, data) for time_ns, data in pictures] + told) + over_udp(
        heard, ports=(6004, 6006)
    )
    trace = read(tmp_path / "sync", pcap(sorted(packets, key=lambda each: each[0])))
    assert {each["cname"] for each in trace.meta["streams"]} == {"one@camera"}
    offset = trace.sync["offset"].iloc[10:-10] * 1e3
    # A picture is whole 3 ms after its beginning, and a packet of sound is 20 ms long.
    assert offset.median() == pytest.approx(-late_ms, abs=21)
    assert len(offset) > 60


def test_receivers_reports_are_rows_with_the_round_trip_from_here(tmp_path: Path) -> None:
    sender = reported(0x1234, NS, 90_000)
    middle = rtcp.ns_to_ntp(1_600_000_000 * NS + NS) >> 16 & 0xFFFFFFFF
    block_ = rtcp.ReportBlock(0x1234, 64, 7, 30, 900, middle, 65_536 // 2)
    answer = (NS + 540_000_000, rtcp.serialize_compound([rtcp.ReceiverReport(1, (block_,)), rtcp.Sdes(1, "viewer")]))
    packets = over_udp([*film(), sender]) + over_udp([answer], ends=("192.0.2.2", "192.0.2.1"))
    [row] = read(tmp_path / "reports", pcap(sorted(packets))).reports.to_dict("records")
    assert row["time"] == pytest.approx(1.54)
    assert (row["loss"], row["lost"], row["jitter"]) == (0.25, 7, pytest.approx(0.01))
    assert row["round_trip"] == pytest.approx(0.04, abs=1e-4)


# ---- RTSP

DESCRIPTION = (
    b"v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\nm=audio 0 RTP/AVP 97\r\na=rtpmap:97 opus/48000/2\r\n"
)


def conversation() -> bytes:
    """What a server says: a description, then pictures and sound on two channels."""
    answer = b"RTSP/1.0 200 OK\r\nCSeq: 2\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n"
    said = answer % len(DESCRIPTION) + DESCRIPTION + b"RTSP/1.0 200 OK\r\nCSeq: 3\r\n\r\n"
    media = [(time_ns, 0, data) for time_ns, data in film(1)] + [(time_ns, 2, data) for time_ns, data in sound(1)]
    return said + b"".join(b"$" + struct.pack("!BH", channel, len(data)) + data for _, channel, data in sorted(media))


def segments(data: bytes, sizes: list[int]) -> list[Packet]:
    made, at, number = [], 0, 0
    while at < len(data):
        size = sizes[number % len(sizes)]
        made.append((number * 1_000_000, tcp(data[at : at + size], 4_294_967_000 + at)))
        at, number = at + size, number + 1
    return made


@given(sizes=st.lists(st.integers(1, 3_000), min_size=1, max_size=5), seed=st.integers(0, 1 << 30))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_interleaved_is_found_however_it_is_cut(sizes: list[int], seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    made = segments(conversation(), [max(size, 40) for size in sizes])
    for at in range(len(made) - 1, 1, -1):
        if rng.random() < 0.1:  # twice, or the next one first
            made.insert(at, (made[at][0], made[at][1]))
        elif rng.random() < 0.1 and at > 2:
            (one, first), (two, second) = made[at - 1 : at + 1]
            made[at - 1 : at + 1] = [(one, second), (two, first)]
    trace = read(tmp_path / "rtsp", pcap(made))
    found = {each["format"]: (each["packets"], each["lost"], each["rate"]) for each in trace.meta["streams"]}
    assert found == {"H264": (100, 0, 90_000), "opus": (50, 0, 48_000)}


def test_behind_a_hole_in_a_connection_it_goes_on(tmp_path: Path) -> None:
    made = segments(conversation(), [700])
    del made[40]
    trace = read(tmp_path / "hole", pcap(made))
    video = next(each for each in trace.meta["streams"] if each["kind"] == "video")
    assert 90 <= video["packets"] < 100
    assert video["packets"] + video["lost"] == 100


# ---- back into a capture


@pytest.mark.needs("tshark")
@pytest.mark.parametrize("side", ["server", "client"])
def test_a_trace_is_written_without_payloads_and_comes_back_the_same(side: str, tmp_path: Path) -> None:
    made = traces.run(seconds=4, loss=0.05)  # tshark counts from the first to the last that came, overtaken or not
    trace = made.server if side == "server" else made.client
    path = tmp_path / "headers.pcap"
    trace.to_pcap(path)
    rows = trace.rows("packets")
    assert path.stat().st_size == 24 + 56 * len(rows)
    back = avlab.Trace.from_pcap(path)
    assert {each["flow"][0] for each in back.meta["streams"]} == {"192.0.2.1"}
    assert back.packets["bytes"].sum() == trace.packets["bytes"].sum()
    agrees(path, "-o", "ip.check_checksum:TRUE")
    assert (
        tools.run("tshark", "-r", path, "-o", "ip.check_checksum:TRUE", "-Y", "ip.checksum.status == 0").strip() == ""
    )
    ours = avlab.metrics.jitter(trace)
    if side == "client":
        theirs = avlab.metrics.jitter(back)
        for kind in ("video", "audio"):
            one, two = (table[table["stream"] == kind]["jitter_ms"].to_numpy() for table in (ours, theirs))
            np.testing.assert_allclose(np.sort(one), np.sort(two), atol=1e-5)


def test_pictures_of_another_format_are_no_jpeg_in_a_capture(tmp_path: Path) -> None:
    made = traces.run(seconds=1).client
    setting = SettingRow(made.epoch_ns, "codec", "Mine")
    other = avlab.Trace(packets=[made.rows("packets")], settings=[setting], meta=made.meta)
    for trace, kind in ((made, 26), (other, 96)):
        trace.to_pcap(tmp_path / "run.pcap")
        found = avlab.Trace.from_pcap(tmp_path / "run.pcap").meta["streams"]
        assert {each["payload_type"] for each in found if each["kind"] == "video"} == {kind}


def test_payload_types_are_those_that_were_described(tmp_path: Path) -> None:
    made = traces.run(seconds=1).client
    for described, kinds in (({"video": 99, "audio": 8}, {99, 8}), ({"audio": 11, "odd": 3, "video": "x"}, {26, 11})):
        trace = avlab.Trace(packets=[made.rows("packets")], meta=made.meta | {"payload_types": described})
        trace.to_pcap(tmp_path / "run.pcap")
        found = avlab.Trace.from_pcap(tmp_path / "run.pcap").meta["streams"]
        assert {each["payload_type"] for each in found} == kinds


def test_what_was_repaired_is_as_lost_in_a_capture_as_it_was_on_the_way(tmp_path: Path) -> None:
    made = traces.run(seconds=4, loss=0.05).client
    rows = made.rows("packets").copy()
    pictures = np.flatnonzero((rows["stream"] == 0) & (rows["received"] >= 0))
    rows["fate"][pictures[5:-5:9]] = PACKET_FATES.index("recovered")
    numbers = []
    for name, packets in (("before", made.rows("packets")), ("after", rows)):
        avlab.Trace(packets=[packets], meta=made.meta).to_pcap(tmp_path / name)
        streams = avlab.Trace.from_pcap(tmp_path / name).meta["streams"]
        numbers.append(next((each["packets"], each["lost"]) for each in streams if each["kind"] == "video"))
    repaired = len(pictures[5:-5:9])
    assert numbers[1] == (numbers[0][0] - repaired, numbers[0][1] + repaired)


def test_a_trace_that_cannot_be_a_capture_says_why(tmp_path: Path) -> None:
    empty = avlab.Trace(meta={"side": "client", "epoch_ns": 0, "clock": "none"})
    with pytest.raises(ValueError, match="no packets with numbers of RTP"):
        empty.to_pcap(tmp_path / "none.pcap")
    with pytest.raises(FileNotFoundError, match="make it first"):
        traces.run(seconds=1).client.to_pcap(tmp_path / "no" / "such.pcap")


# ---- the command line, plots, and files of traces


def test_analyse_prints_a_table_and_writes_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plots"
    assert main(["analyse", str(AIORTC), "--out", str(out), "--streams", "3,4"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "0 PCMU/8000" in said.out
    assert "[" not in said.out  # addresses of IPv4
    drawn = {"capture.avtrace", *(f"{name}.png" for name in ("fps", "sync", "loss", "delays", "page"))}
    assert drawn <= set(os.listdir(out))
    saved = avlab.Trace.load(out / "capture.avtrace")
    assert saved.meta["shown"] == [4, 3]
    assert avlab.metrics.summary(saved) == avlab.metrics.summary(avlab.Trace.from_pcap(AIORTC, streams=[3, 4]))
    assert "seen by the capture" in repr(saved)


def test_analyse_gives_one_object_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyse", str(AIORTC), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["packets"] for each in told["streams"]] == [210, 127, 208, 125]
    assert told["summary"]["target_fps"] == pytest.approx(30, abs=0.1)
    assert main(["analyse", "nowhere.pcap", "--json"]) == 1


@pytest.mark.slow
@pytest.mark.needs("tshark")
def test_tshark_agrees_on_a_capture_of_avlab_s_own(data: Path, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("server.pcapng", "client.pcapng")]
    network = avlab.Network(loss=0.05, jitter=0.004, seed=3)
    with avlab.Server(data / "count.mp4", width=320, capture=paths[0], network=network) as server:
        port = server.url.split(":")[2].split("/")[0]
        with avlab.Client(server.url, audio="null", capture=paths[1]) as client:
            client.wait(3)
    for path in paths:
        streams = agrees(path, "-d", f"tcp.port=={port},rtsp")
        assert {each["format"] for each in streams} == {"JPEG", "L16"}
        assert any(each["lost"] for each in streams)
    trace = avlab.Trace.from_pcap(paths[1])
    ours = client.trace
    video = next(each for each in trace.meta["streams"] if each["kind"] == "video")
    heard = ours.packets[(ours.packets["stream"] == "video") & ours.packets["received"].notna()]
    assert video["packets"] == len(heard)
    assert len(trace.sync) > 30
    assert len(trace.reports) >= 2
