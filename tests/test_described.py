"""Descriptions without RTSP: where media goes, who is believed to send it, and what is refused with a sentence."""

from __future__ import annotations

import errno
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import ports
import pytest
from hypothesis import given
from hypothesis import strategies as st

import avlab
from avlab.stream.described.describedreceiver import is_description
from avlab.stream.described.found import IN_A_ROW, MOST_EARLY, QUIET_NS, SHARE, FoundSender, parted
from avlab.stream.described.interfaces import open_destination
from avlab.stream.sockets.multicast import is_any_group, member_at, speakers
from avlab.stream.sockets.system import Sockets
from avlab.wire import rtcp, sdp
from avlab.wire.batch import Batch
from avlab.wire.destinations import Destination, destination_of, read_destination, why_not
from avlab.wire.rtp import RtpPacket

NS = 1_000_000_000
GREY = [np.full((48, 64, 3), 128, np.uint8)]

FFMPEG = """SDP:
v=0
o=- 0 0 IN IP4 127.0.0.1
s=No Name
t=0 0
a=tool:libavformat LIBAVFORMAT_VERSION
m=video 5004 RTP/AVP 26
c=IN IP4 127.0.0.1
b=AS:200
m=audio 5006 RTP/AVP 10
c=IN IP4 239.255.7.7/1
"""


def where(*lines: str, session: tuple[str, ...] = ("c=IN IP4 192.0.2.7",)) -> Destination:
    description = sdp.parse("\n".join(["v=0", *session, *lines]))
    return destination_of(description, description.media[0])


def test_what_ffmpeg_prints_is_understood() -> None:
    description = sdp.parse(FFMPEG)
    video, audio = (destination_of(description, media) for media in description.media)
    assert video == Destination("127.0.0.1", 5004, 5005)
    assert audio == Destination("239.255.7.7", 5006, 5007)
    assert [why_not(media) for media in description.media] == ["", ""]


def test_lines_that_say_more_of_the_way() -> None:
    assert where("m=video 5004 RTP/AVP 26") == Destination("192.0.2.7", 5004, 5005)
    assert where("m=video 5004 RTP/AVP 26", "a=rtcp:6000").control_port == 6000
    assert where("m=video 5004 RTP/AVP 26", "a=rtcp:0").control_port == 5005
    muxed = where("m=video 5004 RTP/AVPF 26", "a=rtcp-mux")
    assert muxed.muxed
    assert muxed.control_port == 5004
    assert where("m=video 5004 RTP/AVP 26", "a=ssrc:77 cname:x", "a=ssrc:78 cname:y").ssrc == 77
    assert where("m=video 5004 RTP/AVP 26", "a=ssrc:99999999999 cname:x").ssrc is None
    assert where("m=video 5004 RTP/AVP 26", "c=IN IP6 ff15::7").host == "ff15::7"
    assert where("m=video 5004 RTP/AVP 26", session=()).host == "0.0.0.0"


@pytest.mark.parametrize(
    ("line", "sources"),
    [
        ("a=source-filter: incl IN IP4 232.1.1.1 192.0.2.9 192.0.2.10", ("192.0.2.9", "192.0.2.10")),
        ("a=source-filter:incl IN IP4 * 192.0.2.9", ("192.0.2.9",)),
        ("a=source-filter: incl IN IP4 232.1.1.2 192.0.2.9", ()),
        ("a=source-filter: excl IN IP4 232.1.1.1 192.0.2.9", ()),
        ("a=source-filter: incl IN IP4 232.1.1.1 somebody.example", ()),
        ("a=source-filter:", ()),
    ],
)
def test_a_filter_names_who_may_send(line: str, sources: tuple[str, ...]) -> None:
    assert where("m=video 5004 RTP/AVP 26", line, session=("c=IN IP4 232.1.1.1/8",)).sources == sources
    assert where("m=video 5004 RTP/AVP 26", session=("c=IN IP4 232.1.1.1/8", line)).sources == sources


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("m=video 0 RTP/AVP 26", "no port, as in the descriptions that an RTSP server gives"),
        ("m=video 5004 RTP/SAVP 96", "encrypted"),
        ("m=video 9 UDP/TLS/RTP/SAVPF 96", "encrypted"),
        ("m=video 5004 udp 33", "no RTP over UDP"),
        ("m=video 5004 TCP/RTP/AVP 96", "no RTP over UDP"),
    ],
)
def test_what_cannot_come_is_said_to(line: str, why: str) -> None:
    [media] = sdp.parse(f"v=0\n{line}").media
    assert why in why_not(media)


@given(st.text(max_size=300))
def test_whatever_a_description_says_is_a_destination(text: str) -> None:
    description = sdp.parse(f"v=0\nm=video 5004 RTP/AVP 26\n{text}")
    for media in description.media:
        to = destination_of(description, media)
        assert 0 < to.control_port <= 65_536
        assert isinstance(why_not(media), str)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1:5004", ("127.0.0.1", 5004)),
        ("[::1]:5004", ("::1", 5004)),
        ("239.255.1.1:5004", ("239.255.1.1", 5004)),
        ("projector:6000", ("projector", 6000)),
    ],
)
def test_an_address_and_a_port_are_read(text: str, found: tuple[str, int]) -> None:
    assert read_destination(text) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("127.0.0.1", "write it as"),
        ("5004", "write it as"),
        ("rtp://127.0.0.1:5004", "write it as"),
        ("a b:5004", "write it as"),
        ("user@host:5004", "write it as"),
        ("::1:5004", "write it as"),
        ("127.0.0.1:5005", "an even one"),
        ("127.0.0.1:0", "an even one"),
        ("127.0.0.1:65534", "an even one"),
        ("0.0.0.0:5004", "no address of one machine"),
        ("[::]:5004", "no address of one machine"),
        ("255.255.255.255:5004", "no address of one machine"),
        ("224.0.0.1:5004", "routers and hosts"),
    ],
)
def test_what_is_no_address_to_send_to_is_a_sentence(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        avlab.Server(GREY, to=text)


def test_groups_of_both_kinds_and_what_is_none() -> None:
    assert all(map(is_any_group, ("239.255.1.2", "232.1.1.1", "ff15::1", "ff05::2", "ff0e::1")))
    assert not any(map(is_any_group, ("224.0.0.5", "ff02::1", "ff01::1", "fe80::1", "10.0.0.1", "name", "")))


# ---- who sends


def packet(number: int, *, ssrc: int = 7, kind: int = 26, size: int = 100) -> bytes:
    return RtpPacket(kind, number, 0, ssrc, False, bytes(size)).serialize()


def report(ssrc: int = 7) -> bytes:
    return rtcp.serialize_compound([rtcp.SenderReport(ssrc, 1, 1, 1, 1), rtcp.Sdes(ssrc, "x")])


def from_(host: str, *data: bytes, port: int = 7000) -> list[tuple[Batch, Any]]:
    return [(Batch(each, len(each)), (host, port)) for each in data]


def numbers(taken: list[Batch]) -> list[int]:
    return [RtpPacket.parse(data).sequence for batch in taken for data in batch.datagrams()]


def test_a_sender_is_found_by_what_comes_and_its_first_packets_are_kept() -> None:
    sender = FoundSender(kinds={26})
    for number in range(1, IN_A_ROW):
        assert sender.media(from_("10.0.0.5", packet(number)), 0) == []
    assert sender.host == ""
    assert numbers(sender.media(from_("10.0.0.5", packet(IN_A_ROW)), 0)) == list(range(1, IN_A_ROW + 1))
    assert sender.host == "10.0.0.5"
    assert numbers(sender.media(from_("10.0.0.5", packet(9), packet(8)), 0)) == [9, 8]


def test_packets_of_others_and_of_other_kinds_are_nobodys() -> None:
    sender = FoundSender(kinds={26}, ssrc=7)
    stray = [packet(1), packet(2, kind=96), packet(3), packet(4, ssrc=8), packet(5), b"", b"\x80", bytes(40)]
    for data in stray:
        assert sender.media(from_("10.0.0.5", data), 0) == []
    for turn in range(2 * IN_A_ROW):
        assert sender.media(from_(f"10.0.0.{turn % 2}", packet(turn)), 0) == [], "two that take turns are none"
    assert sender.media(from_("10.0.0.5", *(packet(n) for n in range(5))), 0)
    assert sender.media(from_("10.0.0.6", *(packet(n) for n in range(5))), 0) == []


def test_another_address_takes_over_when_the_first_is_silent() -> None:
    sender = FoundSender(kinds={26})
    sender.media(from_("10.0.0.5", *(packet(n) for n in range(4))), 0)
    other = [packet(n, ssrc=9) for n in range(4)]
    assert sender.media(from_("10.0.0.6", *other), QUIET_NS) == []
    assert numbers(sender.media(from_("10.0.0.6", *other), QUIET_NS + 1)) == [0, 1, 2, 3]
    assert sender.host == "10.0.0.6"
    assert sender.reports_to is None


def test_with_a_filter_nobody_else_is_heard() -> None:
    sender = FoundSender(kinds={26}, sources=("10.0.0.9",))
    assert sender.media(from_("10.0.0.5", *(packet(n) for n in range(9))), 0) == []
    assert sender.control(from_("10.0.0.5", report()), 0) == []
    assert len(numbers(sender.media(from_("10.0.0.9", *(packet(n) for n in range(9))), 0))) == 9


def test_a_report_before_the_first_packet_waits_for_its_sender() -> None:
    sender = FoundSender(kinds={26})
    assert sender.control(from_("10.0.0.6", *[report(8)] * 20, port=1), 0) == []
    assert sender.control(from_("10.0.0.5", report(), port=7001), 0) == []
    assert sender.early() == []
    sender.media(from_("10.0.0.5", *(packet(n) for n in range(4))), 0)
    assert [batch.data for batch in sender.early()] == [report()]
    assert sender.reports_to == ("10.0.0.5", 7001)
    assert sender.early() == []
    assert [batch.data for batch in sender.control(from_("10.0.0.5", report(), port=7003), 0)] == [report()]
    assert sender.reports_to == ("10.0.0.5", 7003), "where it reports from now"
    assert sender.control(from_("10.0.0.6", report(8)), 0) == []
    assert MOST_EARLY < 20


def test_what_goes_back_is_a_small_part_of_what_came() -> None:
    sender = FoundSender(kinds={26})
    sender.media(from_("10.0.0.5", *(packet(n, size=388) for n in range(4))), 0)
    assert not sender.affords(4 * 400 // SHARE + 1)
    assert sender.affords(4 * 400 // SHARE)
    assert not sender.affords(1)
    assert sender.reported


def test_reports_at_the_port_of_media_are_told_apart() -> None:
    same = report()
    mixed = b"".join([packet(1, size=len(same) - 12), same, packet(2, size=len(same) - 12)])
    media, control = parted([(Batch(mixed, len(same)), ("10.0.0.5", 5004))])
    assert numbers([batch for batch, _ in media]) == [1, 2]
    assert [batch.data for batch, _ in control] == [same]
    alone = from_("10.0.0.5", packet(1))
    assert parted(alone) == (alone, [])


# ---- where to receive


def test_only_the_address_that_is_named_is_listened_at() -> None:
    port = ports.free(2)
    opened = open_destination(Destination("127.0.0.1", port, port + 1), Sockets())
    try:
        assert [link.socket.getsockname()[:2] for link in opened.links] == [  # type: ignore[attr-defined]
            ("127.0.0.1", port), ("127.0.0.1", port + 1)
        ]  # fmt: skip
        assert (opened.where, opened.multicast, opened.words) == (f"127.0.0.1:{port}", False, "")
        with pytest.raises(OSError, match=f"port {port} on 127.0.0.1 is in use, and the description has") as failure:
            open_destination(Destination("127.0.0.1", port, port + 1), Sockets())
        assert failure.value.errno == errno.EADDRINUSE
    finally:
        for link in opened.links:
            link.close()


class Ways(Sockets):
    """A machine that has no address but 127.0.0.1."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def datagrams(self, host: str, port: int) -> Any:
        self.asked.append(host)
        if host not in ("127.0.0.1", "0.0.0.0"):
            raise OSError(errno.EADDRNOTAVAIL, "no address of this machine")
        return super().datagrams(host, 0)


def test_an_address_of_another_machine_is_received_where_the_way_there_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avlab.stream.described.interfaces.address_towards", lambda host: "127.0.0.1")
    ways = Ways()
    opened = open_destination(Destination("192.0.2.77", 5004, 5005), ways)
    for link in opened.links:
        link.close()
    assert ways.asked == ["192.0.2.77", "127.0.0.1", "127.0.0.1"]
    assert "192.0.2.77, which is no address of this machine: what comes to 127.0.0.1 is played" in opened.words
    monkeypatch.setattr("avlab.stream.described.interfaces.address_towards", lambda host: None)
    with pytest.raises(OSError, match="no way leads there"):
        open_destination(Destination("192.0.2.77", 5004, 5005), ways)


class Nameless(Sockets):
    """A machine that knows no names."""

    def dialler(self) -> Any:
        return self

    def lookup(self, host: str, port: int, timeout: float) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, f"no {host}")


def test_no_address_is_every_address_and_a_name_is_looked_up() -> None:
    port = ports.free(2)
    opened = open_destination(Destination("0.0.0.0", port, port), Sockets())
    opened.links[0].close()
    assert len(opened.links) == 1
    assert "every address of this machine" in opened.words
    opened = open_destination(Destination("localhost", port, port + 1), Sockets())
    for link in opened.links:
        link.close()
    assert opened.where == f"127.0.0.1:{port}"
    with pytest.raises(OSError, match="nobody is no address, and no name that is known here"):
        open_destination(Destination("nobody", port, port + 1), Nameless())


def test_a_group_that_hosts_speak_with_is_not_joined() -> None:
    with pytest.raises(OSError, match="routers and hosts speak with"):
        open_destination(Destination("224.0.0.1", 5004, 5005), Sockets())


# ---- files


@pytest.mark.parametrize("text", ["v=0\r\n", "SDP:\nv=0\n", "\ufeffv=0\n", "\n v=0\r\n"])
def test_a_description_is_known_by_its_name_or_by_what_it_begins_with(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.txt"
    file.write_text(text, encoding="utf-8")
    assert is_description(file)
    assert is_description(str(file))
    assert is_description("not/there.sdp")
    assert is_description(Path("NOT/THERE.SDP"))


def test_other_files_are_none(data: Path, tmp_path: Path) -> None:
    assert not is_description(data / "count.mp4")
    assert not is_description(tmp_path)
    assert not is_description("rtsp://127.0.0.1/a.sdp")
    assert not is_description("nothing")
    with pytest.raises(ValueError, match="is a file, and a client plays an address"):
        avlab.Client(data / "count.mp4")


HEAD = "v=0\nc=IN IP4 127.0.0.1\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("this is no description\n", "is no session description"),
        ("", "is no session description"),
        ("v=0\ns=x\n", "describes no medium"),
        (HEAD + "m=video 0 RTP/AVP 26\n", "no port, as in the descriptions"),
        (HEAD + "m=video RTP/AVP 26\n", "no port, as in the descriptions"),
        (HEAD + "M=video RTP/AVP 96\nA=rtpmap:96 H264/90000\n", "no port, as in the descriptions"),
        (HEAD + "m=video 5004 RTP/SAVP 96\na=rtpmap:96 H264/90000\n", "it is encrypted"),
        (HEAD + "m=video 5004 RTP/AVP 32\n", "carries MPV"),
        (HEAD + "m=application 5004 RTP/AVP 100\n", "avlab plays pictures of"),
        (HEAD + "m=video 5004 RTP/AVP 26\nm=audio 5004 RTP/AVP 0\n", "port 5004 .* give each an even port"),
        (HEAD + "m=video 5004 RTP/AVP 26\nm=audio 5005 RTP/AVP 0\n", "RTCP included"),
    ],
)
def test_what_cannot_be_played_is_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "session.sdp"
    file.write_text(text)
    client = avlab.Client(file, audio="null")
    with pytest.raises((OSError, ValueError), match=words) as failure:
        client.start()
    assert "\n" not in str(failure.value)


def test_a_file_that_is_not_there_or_of_another_kind_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="name the description that 'ffmpeg -sdp_file' or"):
        avlab.Client(tmp_path / "none.sdp").start()
    (tmp_path / "folder.sdp").mkdir()
    with pytest.raises(OSError, match=r"folder\.sdp cannot be read"):
        avlab.Client(tmp_path / "folder.sdp").start()
    (tmp_path / "bytes.sdp").write_bytes(bytes(range(256)) * 2000)
    with pytest.raises(ValueError, match="is no session description"):
        avlab.Client(str(tmp_path / "bytes.sdp")).start()


@pytest.mark.parametrize(
    "given",
    [{"video_over": "tcp"}, {"audio_over": "udp"}, {"class_code": "BCDFGH"}, {"allow_basic": True}, {"repair": "rtx"}],
)
def test_what_is_asked_of_servers_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(given))} is for a server that can be asked"):
        avlab.Client("session.sdp", **given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sdp": "a.sdp"}, "give that as well, as to="),
        ({"wire": "classic"}, "leave out wire='classic'"),
        ({"wire": "http"}, "leave out wire='http'"),
        ({"multicast": True}, "multicast is for clients that ask"),
        ({"class_code": True}, "class_code is for clients that ask"),
        ({"users": "users.htdigest"}, "users is for clients that ask"),
        ({"port": 8554}, "port is for clients that ask"),
        ({"sdp": 7}, "sdp must be the path of a file"),
    ],
)
def test_what_makes_no_sense_without_clients_that_ask(given: dict[str, Any], words: str) -> None:
    if given != {"sdp": "a.sdp"}:
        given = {"to": "127.0.0.1:5004", **given}
    with pytest.raises((ValueError, TypeError), match=words):
        avlab.Server(GREY, **given)


def test_what_is_there_already_is_not_written_over(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "clip.mp4"
    file.write_bytes(b"a clip")
    server = avlab.Server(data / "count-15.mp4", to="127.0.0.1:5004", sdp=file)
    with pytest.raises(OSError, match="is something else than a description"):
        server.start()
    assert file.read_bytes() == b"a clip"
    with pytest.raises(OSError, match="the description cannot be written to"):
        avlab.Server(data / "count-15.mp4", to="127.0.0.1:5004", sdp=tmp_path / "no" / "a.sdp").start()
    with pytest.raises(OSError, match=r"192\.0\.2\.123 is no address of this machine"):
        avlab.Server(data / "count-15.mp4", to="127.0.0.1:5004", host="192.0.2.123").start()


def test_before_it_is_open_nothing_is_described() -> None:
    assert avlab.Server(GREY, to="127.0.0.1:5004").description == ""
    assert avlab.Server(GREY).description == ""


# ---- groups


@pytest.mark.parametrize(("source", "comes"), [("127.0.0.1", True), ("127.0.0.2", False)])
def test_of_a_group_with_a_filter_the_network_is_asked_for_its_sources_alone(source: str, comes: bool) -> None:
    port = ports.free(2)
    group = f"232.1.{port % 250}.{1 + port // 250 % 250}"
    link = member_at(group, port, ["127.0.0.1"], [source])
    here = speakers("127.0.0.1")
    try:
        here[0].send([b"a packet"], (group, port))
        time.sleep(0.05)  # on loopback it is there at once, or never
        assert [data for data, _ in link.receive()] == [b"a packet"] * comes
    finally:
        for each in (link, *here):
            each.close()


def test_an_address_without_multicast_does_not_count_while_another_has_it() -> None:
    port = ports.free(2)
    link = member_at("239.255.79.1", port, ["192.0.2.200", "127.0.0.1", "127.0.0.1"])
    link.close()
    with pytest.raises(OSError, match=r"\[Errno"):
        member_at("239.255.79.1", port, ["192.0.2.200"])
    with pytest.raises(OSError, match="no interface"):
        member_at("239.255.79.1", port, [])
