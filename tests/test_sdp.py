"""Session descriptions and ranges of normal play time."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avlab.wire.sdp import (
    MAX_MEDIA,
    MAX_TEXT,
    Media,
    NptRange,
    SessionDescription,
    clock_length_ns,
    parse,
    repair_offer,
    resolve_control,
    serialize,
    with_feedback,
    without_feedback,
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


@pytest.mark.parametrize("text", [GSTREAMER, FFMPEG, serialize(SESSION)])
@pytest.mark.parametrize("capitals", ["M", "A", "CM", "VOSCTMAB"])
def test_lines_in_capitals_say_the_same(text: str, capitals: str) -> None:
    lines = [line[:1].upper() + line[1:] if line[:1].upper() in capitals else line for line in text.splitlines()]
    assert parse("\n".join(lines)) == parse(text)


@pytest.mark.parametrize("protocol", ["RTP/AVP", "RTP/AVPF", "rtp/avp", "RTP/AVP/TCP"])
@pytest.mark.parametrize("rest", [" 26", " 96 97\na=rtpmap:96 H264/90000", "\na=rtpmap:26 JPEG/90000\na=control:x"])
def test_a_medium_without_a_port_is_one_whose_port_setup_tells(protocol: str, rest: str) -> None:
    assert parse(f"v=0\nm=video {protocol}{rest}") == parse(f"v=0\nm=video 0 {protocol}{rest}")


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
        ("", "neither a line v=0 nor a medium"),
        ("hello", "neither a line v=0 nor a medium"),
        ("<html>\n<a href=x>m=1</a>", "neither a line v=0 nor a medium"),
        ("v=1\ns=of another time", "neither a line v=0 nor a medium"),
        ("v=0\n" + "a=x\n" * MAX_TEXT, "65536 is the most"),
    ],
)
def test_what_is_no_description_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(WireError, match=sentence):
        parse(text)


# ---- one odd line refuses nothing


PLAYS = ["v=0", "o=- 1 1 IN IP4 192.0.2.7", "s=door", "c=IN IP4 0.0.0.0", "t=0 0", "a=control:*"]
PLAYS += ["m=video 0 RTP/AVP 26", "a=rtpmap:26 JPEG/90000", "a=control:trackID=0", "a=framerate:25"]
PLAYS += ["m=audio 0 RTP/AVP 97", "a=rtpmap:97 L16/44100/2", "a=control:trackID=1"]
TRACKS = [("video", 26, "JPEG", 90_000, 1, "trackID=0"), ("audio", 97, "L16", 44_100, 2, "trackID=1")]


def tracks(text: str) -> list[tuple[str, int, str, int, int, str]]:
    """What of a description a client needs to play it."""
    found = [(m.kind, m.payload_type, m.encoding, m.clock_rate, m.channels, m.control) for m in parse(text).media]
    return [track for track in found if track[2] in ("JPEG", "L16")]


def without(*keys: str) -> list[str]:
    return [line for line in PLAYS if line[0] not in keys]


def changed(old: str, new: str) -> list[str]:
    return [line.replace(old, new) for line in PLAYS]


ODD_LINES = {
    "TP-Link's own track": [*PLAYS, "m=application/TP-LINK 0 RTP/AVP smart/1/90000", "a=rtpmap:95 TP-LINK/90000"],
    "ONVIF's metadata": [*PLAYS, "m=application 0 RTP/AVP 107", "a=rtpmap:107 vnd.onvif.metadata/90000/500"],
    "Hikvision's media header": [*PLAYS, "a=Media_header:MEDIAINFO=494D4B48010100;", "a=appversion:1.0"],
    "a talk-back track without a rate": [*PLAYS, "m=audio 0 RTP/AVP 0", "a=rtpmap:0 PCMU", "a=sendonly"],
    "a track without formats": [*PLAYS, "m=video 0", "a=control:trackID=9"],
    "a track with nothing": [*PLAYS, "m=", "a=control:trackID=9"],
    "MPEG-TS beside it": [*PLAYS, "m=video 8048 MP2T/AVP 33"],
    "a negative port": changed("video 0", "video -1353744643"),
    "an absurd port": changed("video 0", "video 99999999999999999999"),
    "a port and how many": changed("video 0", "video 5004/2"),
    "no port at all": changed("m=video 0 RTP/AVP 26", "m=video RTP/AVP"),
    "a protocol of its own": changed("m=video 0 RTP/AVP 26", "m=video 0 RTP/AVP/TCP 26"),
    "a payload type that cannot be, too": changed("RTP/AVP 26", "RTP/AVP 200 26"),
    "kinds in capitals": changed("m=video", "m=VIDEO"),
    "attributes in capitals": changed("a=control", "a=Control"),
    "no rate for JPEG": changed("JPEG/90000", "JPEG"),
    "no rate, and a slash": changed("JPEG/90000", "JPEG/"),
    "a rate that is no whole number": changed("JPEG/90000", "JPEG/90000.0"),
    "a blank after the colon": changed("a=rtpmap:26 ", "a=rtpmap: 26  "),
    "a tab in the map": changed("26 JPEG", "26\tJPEG"),
    "more in the map than there is": changed("JPEG/90000", "JPEG/90000/1/x"),
    "a map without anything": [*PLAYS, "a=rtpmap", "a=rtpmap:", "a=rtpmap:97", "a=rtpmap:x L16/8000"],
    "a map of another type with rate 0": [*PLAYS, "a=rtpmap:99 L16/0", "a=rtpmap:98 L16/8000/0"],
    "parameters without a type": [*PLAYS, "a=fmtp:", "a=fmtp", "a=fmtp:packetization-mode=1"],
    "an i that is alone": [*PLAYS[:3], "i", *PLAYS[3:]],
    "an i that is empty": [*PLAYS[:3], "i=", *PLAYS[3:]],
    "a line that is prose": [*PLAYS[:3], "This camera speaks RTSP", *PLAYS[3:]],
    "a date": [*PLAYS[:3], "Thu, Jun 13 2024 04:05:06 GMT", *PLAYS[3:]],
    "an = that is alone": [*PLAYS[:3], "=", "==", "xy=z", *PLAYS[3:]],
    "markup around it": ["<sdp>", *PLAYS, "</sdp>"],
    "no v": without("v"),
    "no o": without("o"),
    "no s": without("s"),
    "no t": without("t"),
    "none of them": without("v", "o", "s", "t", "c"),
    "v not first": [*PLAYS[1:3], "v=0", *PLAYS[3:]],
    "TP-Link's o, of seven words": changed("o=- 1 1", "o=- 14665860 31787219 1"),
    "an o without an address": changed("192.0.2.7", ""),
    "an o of nothing": changed("o=- 1 1 IN IP4 192.0.2.7", "o="),
    "hexadecimal numbers": changed("o=- 1 1", "o=jdoe 0xAC4EC96E 103bdb6f"),
    "a t in words": changed("t=0 0", "t=now-"),
    "a c twice in one": changed("c=IN IP4 0.0.0.0", "c=IN c=IN IP4 0.0.0.0"),
    "a c cut short": changed("c=IN IP4 0.0.0.0", "c=IN IP4"),
    "a range by the clock": [*PLAYS[:6], "a=range:clock=0-", *PLAYS[6:]],
    "bandwidth of a kind unknown": [*PLAYS[:6], "b=X-AV", *PLAYS[6:]],
    "a framerate that is none": changed("framerate:25", "framerate:x"),
    "blanks at the ends": [line + "  \t" for line in PLAYS],
    "blanks before": [" " + line for line in PLAYS],
    "blanks around =": [line.replace("=", " = ", 1) for line in PLAYS],
    "more media than there can be": PLAYS + ["m=audio 0 RTP/AVP 0"] * 200,
}


@pytest.mark.parametrize("lines", ODD_LINES.values(), ids=ODD_LINES)
def test_an_odd_line_refuses_nothing_that_is_understood(lines: list[str]) -> None:
    assert tracks("\r\n".join(lines) + "\r\n") == TRACKS


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(PLAYS),
        "\r".join(PLAYS),
        "\r\n\r\n".join(PLAYS),
        "\n\r".join(PLAYS),
        "\ufeff" + "\r\n".join(PLAYS),
        "\r\n".join(PLAYS) + "\r\n\0",
        "\r\n".join(PLAYS) + "\0\0\0\0",
        "\r\n\r\n" + "\r\n".join(PLAYS),
        "\r\n".join(PLAYS).replace("s=door", "s=T\xfcr").encode("latin-1").decode("utf-8", "replace"),
    ],
)
def test_whatever_ends_the_lines_they_are_read(text: str) -> None:
    assert tracks(text) == TRACKS


def test_the_attributes_of_a_medium_that_cannot_be_read_are_its_own() -> None:
    text = "v=0\nm=video 0 RTP/AVP 26\na=control:good\nm=\na=control:bad\na=rtpmap:26 OTHER/1"
    good, bad = parse(text).media
    assert (good.encoding, good.control, bad.control) == ("JPEG", "good", "bad")


def test_media_past_the_most_are_passed_over() -> None:
    assert len(parse("v=0\n" + "m=audio 0 RTP/AVP 0\na=control:x\n" * (MAX_MEDIA + 5)).media) == MAX_MEDIA


def test_the_mediums_own_map_is_its_last() -> None:
    """Simple clients take the last of a medium's maps for the medium's; those of repairs come before it."""
    media = Media(
        kind="video",
        payload_type=26,
        encoding="JPEG",
        clock_rate=90_000,
        **repair_offer(26, 90_000, rtx=97, fec=98, keep_ms=1000),
    )
    text = serialize(SessionDescription(media=(media,)))
    maps = [line for line in text.split("\r\n") if line.startswith("a=rtpmap:")]
    assert maps == ["a=rtpmap:97 rtx/90000", "a=rtpmap:98 ulpfec/90000", "a=rtpmap:26 JPEG/90000"]
    (again,) = parse(text).media
    assert (again.payload_type, again.encoding, again.repairs) == (26, "JPEG", {"rtx": 97, "fec": 98})
    assert serialize(parse(text)) == serialize(SessionDescription(media=(again,), origin="127.0.0.1"))


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


# ---- feedback


def test_the_feedback_profile_is_described_and_taken_back() -> None:
    plain = replace(VIDEO, **repair_offer(26, 90_000, rtx=97, fec=98, keep_ms=1000))
    media = with_feedback(plain, ssrc=7, rtx_ssrc=0xFFFFFFFF, cname="avlab")
    text = serialize(SessionDescription(media=(media, AUDIO)))
    [video, audio] = parse(text).media
    assert "m=video 0 RTP/AVPF 26 97 98\r\nb=RS:20000\r\nb=RR:100000\r\n" in text
    assert (video.feedback, audio.feedback) == (True, False)
    assert (video.again_from(7), video.again_from(8), video.again_from(None)) == (0xFFFFFFFF, None, None)
    assert video.rtcp_bits == media.rtcp_bits
    assert video.repairs == {"rtx": 97, "fec": 98}
    for each in (media, video):
        told = without_feedback(each)
        assert told.protocol == "RTP/AVP"
        assert "rtcp-fb" not in dict(told.attributes)


@pytest.mark.parametrize("odd", ["FID", "FID 7", "FID 7 x", "FID 7 4294967296", "FEC 7 8", "FID 7 8 9", "FID -7 8"])
def test_a_group_that_pairs_nothing_is_passed_over(odd: str) -> None:
    [media] = parse(f"v=0\nm=video 0 RTP/AVPF 26\na=ssrc-group:{odd}\nb=RR:x\nb=RS:\nb=\nb=RR:99999999999").media
    assert media.again_from(7) is None
    assert media.rtcp_bits is None
    assert media.feedback


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
        ("rtsp://host/clip", "/clip", "rtsp://host/clip"),
        ("rtsp://host/clip", "/trackID=1", "rtsp://host/clip/trackID=1"),
        ("rtsp://host:554/cam?channel=1&subtype=0", "trackID=0", "rtsp://host:554/cam?channel=1&subtype=0/trackID=0"),
        ("rtsp://host/cam?channel=1/", "trackID=0", "rtsp://host/cam?channel=1/trackID=0"),
        ("rtsp://host/cam?channel=1/", "*", "rtsp://host/cam?channel=1/"),
        ("rtsp://host/?user=a_b", "track1", "rtsp://host/?user=a_b/track1"),
        ("rtsp://host/media", "?ctype=video", "rtsp://host/media?ctype=video"),
    ],
)
def test_control_addresses(base: str, control: str, address: str) -> None:
    assert resolve_control(base, control) == address


@pytest.mark.parametrize(
    ("lines", "size"),
    [
        ("a=x-dimensions:2560,1440", (2560, 1440)),
        ("a=x-dimensions: 2560 , 1440 ", (2560, 1440)),
        ("a=framesize:26 3840-2160", (3840, 2160)),
        ("a=framesize:96 3840-2160", None),  # of another format
        ("a=x-dimensions:0,0", None),
        ("a=x-dimensions:wide", None),
        ("a=x-dimensions:wide\r\na=framesize:26 3840-2160", (3840, 2160)),
        ("a=control:0", None),
    ],
)
def test_the_size_of_pictures_that_their_packets_cannot_say(lines: str, size: tuple[int, int] | None) -> None:
    [media] = parse(f"v=0\r\ns=x\r\nm=video 0 RTP/AVP 26\r\n{lines}\r\n").media
    assert media.size == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("clock=20240101T120000Z-20240101T120530Z", 330),
        ("clock=20240101T120000.5Z-20240101T120001.25Z", 0.75),
        ("Clock = 20231231T235959Z - 20240101T000001Z ;time=19970123T143720Z", 2),
        ("clock=20240101T120000Z-20240101T110000Z", -3600),
        ("clock=20240101T120000Z-", None),
        ("clock=20241301T120000Z-20241302T120000Z", None),
        ("clock=20240101T126000Z-20240101T129999Z", None),
        ("clock=-", None),
        ("npt=0-20", None),
        ("", None),
    ],
)
def test_ranges_of_absolute_time(text: str, seconds: float | None) -> None:
    assert clock_length_ns(text) == (None if seconds is None else round(seconds * NS))
