"""What a server answers to what clients do ask: queries, passwords, ranges, profiles; and its first report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from rawclient import RawClient, until

import avlab
from avlab.media import synth
from avlab.stream.sockets.links import udp_pair
from avlab.wire import rtcp, rtsp, sdp
from avlab.wire.rtp import RtpPacket

INTERLEAVED = "RTP/AVP/TCP;unicast;interleaved=0-1"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(synth.write(synth.constant("two.mp4", 15, 2), tmp_path_factory.mktemp("clips")))


@pytest.fixture
def server(clip: str) -> Iterator[avlab.Server]:
    with avlab.Server(clip, loop=True) as running:
        yield running


@pytest.fixture
def raw(server: avlab.Server) -> Iterator[RawClient]:
    with RawClient(server.url) as client:
        yield client


# ---- addresses


@pytest.mark.parametrize(
    "form",
    [
        "{url}?token=1/{track}",
        "{url}/{track}?token=1",
        "{url}/?token=1/{track}",
        "{url}/{track}/?token=a/b",
        "{url}?path=/x/y&token=1/{track}/",
        "{root}/{track}",
        "{url}/{track}/",
    ],
)
def test_a_track_is_found_before_a_query_and_after_it(raw: RawClient, form: str) -> None:
    url = raw.url
    ssrcs = {}
    for n, track in enumerate(("video", "audio")):
        raw.url = form.format(url=url, track=track, root=url.rsplit("/", 1)[0])
        answer = raw.ask("SETUP", Transport=f"RTP/AVP/TCP;unicast;interleaved={2 * n}-{2 * n + 1}")
        assert answer.status == 200
        ssrcs[raw.url] = rtsp.parse_transport(answer.headers["Transport"])[0].ssrc
    raw.url = url + "?token=1"
    infos = rtsp.parse_rtp_info(raw.ask("PLAY").headers["RTP-Info"])
    assert [info.url for info in infos] == list(ssrcs), "each by the address that it was asked for by"
    until(lambda: raw.read() and {packet.channel for packet in raw.packets} >= {0, 2})


@pytest.mark.parametrize("form", ["{url}?token=1", "{url}?token=/", "{url}/smell?x=1", "{url}?x=video1"])
def test_a_query_makes_no_track(raw: RawClient, form: str) -> None:
    raw.url = form.format(url=raw.url)
    assert raw.ask("SETUP", Transport=INTERLEAVED).status == 404


@pytest.mark.parametrize("login", ["ann:secret@", "ann@", "a%40b:sec:ret@", "x@y:secret@"])
def test_a_password_is_never_told_again(server: avlab.Server, raw: RawClient, login: str) -> None:
    url = raw.url
    raw.url = url.replace("//", f"//{login}")
    said = []
    for method, path, headers in [
        ("DESCRIBE", "", {}),
        ("SETUP", "/video", {"Transport": INTERLEAVED}),
        ("PLAY", "", {}),
        ("SETUP", "/smell", {"Transport": INTERLEAVED}),
        ("DANCE", "", {}),
    ]:
        answer = raw.ask(method, path, **headers)
        said.append(answer.serialize())
        if method == "DESCRIBE":
            assert answer.headers["Content-Base"] == url + "/"
    raw.socket.sendall(f"NONSENSE rtsp://{login}h/x\r\n\r\n".encode())
    assert raw.hung_up()
    record = " ".join(str(value) for value in server.trace.settings["value"])
    assert "NONSENSE rtsp://h/x" in record
    for word in ("secret", "sec:ret", "ann"):
        assert word not in record
        assert not any(word.encode() in one for one in said)


# ---- what is played


@pytest.mark.parametrize(
    "wish", ["npt=0-", "npt=1-1.5", "npt=now-", "npt=5-", "clock=19961108T142300Z-", "nonsense", ""]
)
def test_a_range_is_answered_with_what_is_played(raw: RawClient, wish: str) -> None:
    raw.set_up("video", INTERLEAVED)
    answer = raw.ask("PLAY", **({"Range": wish} if wish else {}))
    assert answer.status == 200
    span = sdp.NptRange.parse(answer.headers["Range"])
    assert span.start_ns is not None
    assert span.start_ns < 1_000_000_000
    assert answer.headers["Range"].endswith("-")
    assert "Scale" not in answer.headers


@pytest.mark.parametrize("scale", ["2", "-1", "1.0", "x"])
def test_nobody_plays_faster_than_all(raw: RawClient, scale: str) -> None:
    raw.set_up("video", INTERLEAVED)
    assert raw.ask("PLAY", Scale=scale).headers["Scale"] == "1"


@pytest.mark.parametrize("loop", [True, False])
def test_a_clip_that_all_share_has_no_range_to_seek_in(clip: str, loop: bool) -> None:
    with avlab.Server(clip, loop=loop) as server, RawClient(server.url) as raw:
        assert b"a=range" not in raw.ask("DESCRIBE").body


@pytest.mark.parametrize(
    "offer",
    [
        "RTP/SAVP;unicast;client_port=5000-5001",
        "RTP/SAVP/TCP;unicast;interleaved=0-1",
        "RTP/SAVPF;unicast;client_port=5000-5001",
        "RTP/AVP/XYZ;unicast;client_port=5000-5001",
        "RTP/AVP/XYZ;unicast;interleaved=0-1",
        "MP2T/H2221/UDP;unicast;client_port=5000-5001",
        "RAW/RAW/UDP;unicast;client_port=5000-5001",
    ],
)
def test_profiles_that_are_not_spoken_are_refused(raw: RawClient, offer: str) -> None:
    assert raw.ask("SETUP", "/video", Transport=offer).status == 461
    assert raw.set_up("video", f"{offer},{INTERLEAVED}").interleaved == (0, 1)


@pytest.mark.parametrize("odd", ["SCTP", "RTP", "RTP/AVP;client_port=99999-2", ";;", "RTP/AVP/TCP;interleaved=900-901"])
def test_an_odd_offer_spoils_no_other(raw: RawClient, odd: str) -> None:
    assert raw.set_up("video", f"{odd},{INTERLEAVED}").interleaved == (0, 1)


# ---- the way there


@pytest.mark.parametrize("over", ["tcp", "udp"])
def test_a_report_comes_before_any_frame_is_due(clip: str, over: str) -> None:
    """So a way that is shut shows at once, however long the first picture takes."""
    source: Any = [(n * 3600.0, np.full((64, 64, 3), n, np.uint8)) for n in range(3)]
    with avlab.Server(source) as server, RawClient(server.url) as raw:
        links = udp_pair("127.0.0.1")
        ports = f"RTP/AVP;unicast;client_port={links[0].port}-{links[1].port}"
        granted = raw.set_up("video", INTERLEAVED if over == "tcp" else ports)
        # The first picture is due at once; who comes after it waits an hour for the next.
        assert raw.ask("PLAY").status == 200
        assert raw.ask("PAUSE").status == 200
        until(lambda: len(server.trace.frames) == 1)
        raw.packets.clear()
        while links[0].receive() or links[1].receive():
            pass
        assert raw.ask("PLAY").status == 200
        got: list[bytes] = []

        def reported() -> bool:
            if over == "tcp":
                got.extend(packet.data for packet in raw.packets if packet.channel == 1)
                return bool(got) or bool(raw.read() and False)
            got.extend(data for data, _ in links[1].receive())
            return bool(got)

        until(reported)
        report, name = rtcp.parse_compound(got[0])
        assert isinstance(report, rtcp.SenderReport)
        assert isinstance(name, rtcp.Sdes)
        assert report.ssrc == name.ssrc == granted.ssrc
        for link in links:
            link.close()


@pytest.mark.slow
@pytest.mark.parametrize(("host", "asked"), [("0.0.0.0", "127.0.0.2"), ("0.0.0.0", "127.0.0.1"), ("::", "::1")])
def test_media_comes_from_the_address_that_was_asked(clip: str, host: str, asked: str) -> None:
    with avlab.Server(clip, loop=True, host=host) as server:
        port = server.url.rsplit(":", 1)[1].split("/")[0]
        name = f"[{asked}]" if ":" in asked else asked
        with RawClient(f"rtsp://{name}:{port}/two") as raw, RawClient(raw.url) as other:
            for one in (raw, other):
                links = udp_pair("::1" if ":" in asked else "127.0.0.1")
                for stream in ("video", "audio"):
                    ports = f"client_port={links[0].port}-{links[1].port}"
                    granted = one.set_up(stream, f"RTP/AVP;unicast;{ports}")
                assert granted.server_port is not None
                assert one.ask("PLAY").status == 200
                came: list[tuple[bytes, Any]] = []
                until(lambda links=links, came=came: came.extend(links[0].receive()) or len(came) > 200)
                assert {address[0] for _, address in came} == {asked}
                assert len({RtpPacket.parse(data).ssrc for data, _ in came}) == 2
                reports = links[1].receive()
                assert reports
                assert {address[0] for _, address in reports} == {asked}
                for link in links:
                    link.close()
            assert raw.ask("TEARDOWN").status == 200  # the other still has the sockets
            assert other.ask("OPTIONS").status == 200
            assert other.ask("TEARDOWN").status == 200
            other.session = None
            again = other.ask("SETUP", "/video", Transport="RTP/AVP;unicast;client_port=5000-5001")
            assert again.status == 200


@pytest.mark.parametrize("ports", ["0", "0-0", "0-5001", "5000-0"])
def test_port_0_is_refused_where_no_other_way_is_offered(raw: RawClient, ports: str) -> None:
    offer = f"RTP/AVP;unicast;client_port={ports}"
    assert raw.ask("SETUP", "/video", Transport=offer).status == 461
    assert raw.set_up("video", f"{offer},{INTERLEAVED}").interleaved == (0, 1)
