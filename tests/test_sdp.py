"""Session descriptions and ranges of normal play time."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlab.wire.sdp import (
    MAX_MEDIA,
    MAX_TEXT,
    Media,
    NptRange,
    SessionDescription,
    parse,
    resolve_control,
    serialize,
)
from avlab.wire.units import NS, WireError

VIDEO = Media(kind="video", payload_type=26, encoding="JPEG", clock_rate=90_000, control="video", framerate=29.97)
AUDIO = Media(kind="audio", payload_type=97, encoding="L16", clock_rate=48_000, channels=2, control="audio")
SESSION = SessionDescription(
    name="count.mp4",
    session_id=3,
    version=1,
    range=NptRange(0, 20 * NS),
    media=(VIDEO, AUDIO),
    attributes=(("tool", "avlab"),),
)

# As GStreamer's and FFmpeg's servers and a common camera write them.
GSTREAMER = """v=0\r
o=- 1188340656180883 1 IN IP4 127.0.0.1\r
s=Session streamed with GStreamer\r
i=rtsp-server\r
t=0 0\r
a=tool:GStreamer\r
a=type:broadcast\r
a=control:*\r
a=range:npt=now-\r
m=video 0 RTP/AVP 26\r
c=IN IP4 0.0.0.0\r
a=rtpmap:26 JPEG/90000\r
a=framerate:30\r
a=control:stream=0\r
a=ts-refclk:local\r
m=audio 0 RTP/AVP 96\r
c=IN IP4 0.0.0.0\r
b=AS:1411\r
a=rtpmap:96 l16/44100/2\r
a=fmtp:96 emphasis=none\r
a=recvonly\r
a=control:stream=1\r
"""
FFMPEG = """v=0
o=- 0 0 IN IP6 ::1
s=No Name
c=IN IP6 ::1
t=0 0
m=video 5004 RTP/AVP 26
b=AS:200
m=audio 5006 RTP/AVP 10
"""


def test_a_description_comes_back_as_it_was() -> None:
    text = serialize(SESSION)
    assert parse(text) == SessionDescription(
        name="count.mp4",
        session_id=3,
        version=1,
        address="0.0.0.0",
        range=NptRange(0, 20 * NS),
        media=tuple(
            Media(**{name: getattr(media, name) for name in Media.__slots__} | {"address": "0.0.0.0"})
            for media in SESSION.media
        ),
        attributes=(("tool", "avlab"),),
    )
    assert serialize(parse(text)) == text


def test_the_lines_stand_in_the_order_of_rfc_4566() -> None:
    assert serialize(SESSION).split("\r\n") == [
        "v=0",
        "o=- 3 1 IN IP4 127.0.0.1",
        "s=count.mp4",
        "c=IN IP4 0.0.0.0",
        "t=0 0",
        "a=control:*",
        "a=range:npt=0-20",
        "a=tool:avlab",
        "m=video 0 RTP/AVP 26",
        "a=rtpmap:26 JPEG/90000",
        "a=control:video",
        "a=framerate:29.97",
        "m=audio 0 RTP/AVP 97",
        "a=rtpmap:97 L16/48000/2",
        "a=control:audio",
        "",
    ]


def test_gstreamers_description() -> None:
    session = parse(GSTREAMER)
    assert (session.name, session.control, session.range) == ("Session streamed with GStreamer", "*", NptRange(None))
    assert (session.session_id, session.origin) == (1188340656180883, "127.0.0.1")
    video, audio = session.media
    assert (video.kind, video.encoding, video.clock_rate, video.framerate) == ("video", "JPEG", 90_000, 30.0)
    assert (video.control, video.port, video.attributes) == ("stream=0", 0, (("ts-refclk", "local"),))
    assert (audio.encoding, audio.clock_rate, audio.channels, audio.payload_type) == ("L16", 44_100, 2, 96)
    assert audio.attributes == (("fmtp", "96 emphasis=none"), ("recvonly", ""))


def test_static_payload_types_need_no_rtpmap() -> None:
    session = parse(FFMPEG)
    assert (session.address, session.range) == ("::1", None)
    video, audio = session.media
    assert (video.encoding, video.clock_rate, video.port, video.address) == ("JPEG", 90_000, 5004, "::1")
    assert (audio.encoding, audio.clock_rate, audio.channels) == ("L16", 44_100, 2)
    assert "c=IN IP6 ::1" in serialize(session)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("m=audio 0 RTP/AVP 0", (0, "PCMU", 8000, 1)),
        ("m=audio 0 RTP/AVP 11", (11, "L16", 44_100, 1)),
        ("m=audio 0 RTP/AVP 99", (99, "", 0, 1)),
        ("m=audio 0 RTP/AVP 99 8", (8, "PCMA", 8000, 1)),
        ("m=audio 0 RTP/AVP 99 98\na=rtpmap:98 opus/48000/2", (98, "OPUS", 48_000, 2)),
        ("m=audio 0 RTP/AVP 10\na=rtpmap:10 L16/22050/1", (10, "L16", 22_050, 1)),
        ("m=application 9 UDP/DTLS webrtc-datachannel", (96, "", 0, 1)),
    ],
)
def test_the_first_format_that_is_understood_is_taken(lines: str, expected: tuple[object, ...]) -> None:
    (media,) = parse(f"v=0\n{lines}\n").media
    assert (media.payload_type, media.encoding, media.clock_rate, media.channels) == expected


@pytest.mark.parametrize("value", ["", "0", "-1", "nan", "inf", "1e999999", "1e-999999", "thirty"])
def test_a_framerate_that_is_no_number_is_not_said(value: str) -> None:
    assert parse(f"v=0\nm=video 0 RTP/AVP 26\na=framerate:{value}").media[0].framerate is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "first line is not v=0"),
        ("hello", "first line is not v=0"),
        ("v=0\nnonsense", "not of the form x=value: 'nonsense'"),
        ("v=0\nm=video", "m=video lacks its port"),
        ("v=0\nm=video x RTP/AVP 26", "port 'x' is not a number from 0 to 65535"),
        ("v=0\nm=video 65536 RTP/AVP 26", "port '65536'"),
        ("v=0\nm=video 0 RTP/AVP 128", "payload type '128'"),
        ("v=0\nm=video 0 RTP/AVP 9999999999999999", "payload type '9999999999999999'"),
        ("v=0\nm=audio 0 RTP/AVP 96\na=rtpmap:96", "a=rtpmap:96 is not of the form"),
        ("v=0\nm=audio 0 RTP/AVP 96\na=rtpmap:96 L16/x", "clock rate 'x'"),
        ("v=0\nm=audio 0 RTP/AVP 96\na=rtpmap:96 L16/0", "of 0"),
        ("v=0\nm=audio 0 RTP/AVP 96\na=rtpmap:96 L16/8000/0", "of 0"),
        ("v=0\n" + "m=audio 0 RTP/AVP 0\n" * (MAX_MEDIA + 1), "more than 32 media"),
        ("v=0\n" + "a=x\n" * MAX_TEXT, "65536 is the most"),
    ],
)
def test_what_is_no_description_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(WireError, match=sentence):
        parse(text)


@pytest.mark.parametrize("text", [GSTREAMER, FFMPEG, serialize(SESSION)])
def test_every_truncation_is_a_value_or_a_wire_error(text: str) -> None:
    for end in range(len(text)):
        with contextlib.suppress(WireError):
            parse(text[:end])


@given(st.lists(st.tuples(st.sampled_from("vosictbam"), st.text(max_size=30)), max_size=10))
def test_any_lines_are_a_value_or_a_wire_error(lines: list[tuple[str, str]]) -> None:
    with contextlib.suppress(WireError):
        session = parse("v=0\n" + "\n".join(f"{key}={value}" for key, value in lines))
        parse(serialize(session))


def test_a_line_break_in_a_value_is_refused() -> None:
    with pytest.raises(WireError, match="line break"):
        serialize(SessionDescription(name="a\r\na=evil"))


# ---- normal play time


@pytest.mark.parametrize(
    ("text", "start_ns", "end_ns", "back"),
    [
        ("npt=0-20", 0, 20 * NS, "npt=0-20"),
        ("npt=12.5-20.000000001", 12_500_000_000, 20_000_000_001, "npt=12.5-20.000000001"),
        ("npt=now-", None, None, "npt=now-"),
        ("npt=10-", 10 * NS, None, "npt=10-"),
        ("npt=-30", None, 30 * NS, "npt=now-30"),
        ("npt=0:01:30.25-1:00:00", 90_250_000_000, 3600 * NS, "npt=90.25-3600"),
        ("NPT = 5. - 6 ;time=19970123T143720Z", 5 * NS, 6 * NS, "npt=5-6"),
    ],
)
def test_a_range(text: str, start_ns: int | None, end_ns: int | None, back: str) -> None:
    span = NptRange.parse(text)
    assert span == NptRange(start_ns, end_ns)
    assert span.serialize() == back


@given(st.integers(0, 10**15), st.none() | st.integers(0, 10**15))
def test_a_range_comes_back_to_the_nanosecond(start_ns: int, end_ns: int | None) -> None:
    assert NptRange.parse(NptRange(start_ns, end_ns).serialize()) == NptRange(start_ns, end_ns)


@pytest.mark.parametrize("text", ["", "npt", "npt=", "npt=-", "npt=5", "smpte=0:10:20-", "clock=19961108T143720Z-"])
def test_a_range_of_another_kind_is_refused(text: str) -> None:
    with pytest.raises(WireError, match="npt=now-"):
        NptRange.parse(text)


@pytest.mark.parametrize(
    "text", ["npt=x-", "npt=1e9-", "npt=1:2-", "npt=0-0:99:00", "npt=" + "9" * 5000 + "-", "npt=٣-"]
)
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(WireError, match="not normal play time"):
        NptRange.parse(text)


@given(st.text(max_size=30))
def test_any_range_is_a_value_or_a_wire_error(text: str) -> None:
    with contextlib.suppress(WireError):
        NptRange.parse("npt=" + text).serialize()


# ---- addresses


@pytest.mark.parametrize(
    ("base", "control", "address"),
    [
        ("rtsp://host:8554/clip/", "video", "rtsp://host:8554/clip/video"),
        ("rtsp://host:8554/clip", "video", "rtsp://host:8554/clip/video"),
        ("rtsp://host/clip", "*", "rtsp://host/clip"),
        ("rtsp://host/clip/", "", "rtsp://host/clip/"),
        ("rtsp://host/clip", "rtsp://other/clip/0", "rtsp://other/clip/0"),
        ("rtsp://host:8554/clip/", "/clip/video", "rtsp://host:8554/clip/video"),
        ("rtsp://host", "stream=0", "rtsp://host/stream=0"),
    ],
)
def test_control_addresses(base: str, control: str, address: str) -> None:
    assert resolve_control(base, control) == address
